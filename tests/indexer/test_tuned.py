"""Which encoder a build and an index get: the newest tuned of the configured one, or that one itself."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from indexer import tuned as module
from indexer.config import IndexerConfig
from indexer.encoder import fingerprint
from indexer.errors import SnapshotError
from indexer.store import Store
from indexer.tuned import encoder_of, model_folder, newest_encoder


@pytest.fixture(autouse=True)
def _stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be loaded: the folder or name, and what it is told."""
    monkeypatch.setattr(
        module, "load_encoder", lambda config, told=None, kept=None: SimpleNamespace(name=config.encoder, tuned=told)
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return model(tmp_path / "base", "weights")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def model(folder: Path, weights: str) -> Path:
    folder.mkdir()
    (folder / "modules.json").write_text("[]")
    (folder / "model.safetensors").write_text(weights)
    return folder


@pytest.fixture
def publish(store: Store) -> Callable[..., str]:
    """Publishes an encoder tuned from the model of a folder; returns its id."""

    def make(of: Path, **told: float) -> str:
        def fill(folder: Path) -> dict[str, Any]:
            model(folder / "model", f"tuned from {of.name}")
            return {"base": fingerprint(of), "queries_below": 0.5, "events_before": 7.0, **told}

        return store.publish("encoders", fill)

    return make


def test_without_a_tuned_encoder_the_configured_one_is_used(store: Store, base: Path) -> None:
    config = IndexerConfig(encoder=str(base))
    for found in (newest_encoder(store, config), encoder_of(store, {"id": "i", "encoder": {"name": "any"}}, config)):
        assert (found.name, found.tuned) == (str(base), None)


def test_the_newest_of_the_same_base_is_used(
    store: Store, base: Path, tmp_path: Path, publish: Callable[..., str]
) -> None:
    other = model(tmp_path / "other", "other weights")
    publish(base)
    newest = publish(base, events_before=9.0)
    publish(other)
    found = newest_encoder(store, IndexerConfig(encoder=str(base)))
    assert found.name == str(model_folder(store, newest))
    assert found.tuned == {"id": newest, "queries_below": 0.5, "events_before": 9.0}


def test_the_base_is_its_weights_not_its_path(
    store: Store, base: Path, tmp_path: Path, publish: Callable[..., str]
) -> None:
    name = publish(base)
    copy = shutil.copytree(base, tmp_path / "copy")
    assert newest_encoder(store, IndexerConfig(encoder=str(copy))).tuned is not None
    (copy / "model.safetensors").write_text("changed")
    assert newest_encoder(store, IndexerConfig(encoder=str(copy))).tuned is None
    # Nor is an encoder tuned from a tuned one taken for the base's.
    assert newest_encoder(store, IndexerConfig(encoder=str(model_folder(store, name)))).tuned is None


def test_tuned_encoders_can_be_left_alone(store: Store, base: Path, publish: Callable[..., str]) -> None:
    publish(base)
    assert newest_encoder(store, IndexerConfig(encoder=str(base), tuned=False)).tuned is None


def test_an_index_gets_the_encoder_it_was_built_with(store: Store, base: Path, publish: Callable[..., str]) -> None:
    """Not the newest; and an index of the plain encoder gets that, whatever was tuned since."""
    first = publish(base)
    publish(base)
    config = IndexerConfig(encoder=str(base), tuned=False)
    found = encoder_of(store, {"id": "i", "encoder": {"tuned": {"id": first}}}, config)
    assert (found.name, found.tuned["id"]) == (str(model_folder(store, first)), first)  # type: ignore[index]
    assert encoder_of(store, {"id": "i", "encoder": {"name": "plain"}}, IndexerConfig(encoder=str(base))).tuned is None


def test_an_index_whose_encoder_is_gone_is_refused(store: Store, base: Path, publish: Callable[..., str]) -> None:
    name = publish(base)
    shutil.rmtree(store.path("encoders", name))
    with pytest.raises(SnapshotError) as refused:
        encoder_of(store, {"id": "index-1", "encoder": {"tuned": {"id": name}}}, IndexerConfig(encoder=str(base)))
    for told in ("index-1", name, str(store.root / "encoders"), "vitrine index build"):
        assert told in str(refused.value)
