"""The worker's end, before a card process that does as it is told here. The real one is in tests/server."""

import contextlib
import gc
import logging
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer import fallbacks, remote
from indexer.arrays import Array, Floats, mapped
from indexer.config import IndexerConfig
from indexer.dense import open_index
from indexer.exact import ExactIndex
from indexer.remote import CardError, CardProcess, RemoteForward, RemoteIndex
from indexer.wire import Line, Message, accepted, listening

KEY = b"k" * 32
TOLD = {"of": "index x", "kind": "exact on cuda:0 (float16)"}
VECTORS = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
MASK = np.arange(50) % 3 == 0
# Answers a message over its line.
Answer = Callable[[Line, Message], None]


class Played:
    """A card process in threads: each connection's messages are kept and answered by `answer`."""

    def __init__(self, address: str, answer: Answer) -> None:
        self.messages: list[Message] = []
        self.lines: list[Line] = []
        self.ended = threading.Semaphore(0)
        self._answer = answer
        self._listener = listening(address)
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def _serve(self) -> None:
        while True:
            try:
                self.lines.append(accepted(self._listener, 10))
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._converse, args=(self.lines[-1],), daemon=True))
            self._threads[-1].start()

    def _converse(self, line: Line) -> None:
        try:
            assert line.opens_with(KEY)
            while True:
                self.messages.append(line.receive())
                self._answer(line, self.messages[-1])
        except (OSError, EOFError):
            line.close()
            self.ended.release()

    def close(self) -> None:
        # A second time there is nothing left to shut down.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for line in self.lines:
            line.end()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield str(Path(folder) / "card")


@pytest.fixture
def play(address: str) -> Iterator[Callable[[Answer], Played]]:
    playing: list[Played] = []

    def begin(answer: Answer) -> Played:
        playing.append(Played(address, answer))
        return playing[-1]

    yield begin
    for each in playing:
        each.close()


@pytest.fixture
def card(address: str) -> Iterator[CardProcess]:
    with contextlib.closing(CardProcess(address, KEY, 10, 10)) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "indexes" / "7"
    made.mkdir(parents=True)
    np.save(made / "vectors.npy", VECTORS)
    return made


@pytest.fixture
def vectors(folder: Path) -> Floats:
    return np.asarray(mapped(folder / "vectors.npy"), np.float32)


@pytest.fixture
def used(card: CardProcess) -> Iterator[None]:
    remote.use(card)
    yield
    remote.use(None)


def replies(*arrays: Array, **told: Any) -> Answer:
    """Says what an opened index does, and these arrays to every request."""
    return lambda line, message: line.send(TOLD if message.told["do"] == "open" else told, *arrays)


def check(index: RemoteIndex) -> None:
    """That it answers as `ExactIndex` does, with and without a mask."""
    for mask in (None, MASK):
        found, expected = (each.search(VECTORS[:3], 4, mask) for each in (index, ExactIndex(VECTORS)))
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_an_index_is_opened_by_the_file_of_its_vectors_and_says_that_it_is_shared(
    play: Callable[[Answer], Played], used: None, folder: Path, vectors: Floats
) -> None:
    played = play(replies())
    # There is no dense.faiss to read, and no card that may be chosen.
    index = open_index("HNSW16", folder, vectors, IndexerConfig(device="cuda:7"))
    assert (index.kind, len(index), index.dimensions) == ("exact on cuda:0 (float16), shared", 50, 8)
    [message] = played.messages
    assert message.told == {"do": "open", "what": "index", "name": str(folder / "vectors.npy")}
    assert list(folder.iterdir()) == [folder / "vectors.npy"]
    index.save(folder)
    assert list(folder.iterdir()) == [folder / "vectors.npy"]


def test_queries_and_masks_go_out_and_neighbours_come_back(
    play: Callable[[Answer], Played], card: CardProcess, folder: Path, vectors: Floats
) -> None:
    rows, scores = np.arange(8).reshape(2, 4), np.ones((2, 4), np.float32)
    played = play(replies(rows, scores))
    index = remote.open_remote(card, vectors, folder)
    assert index is not None
    for mask in (None, MASK):
        found = index.search(VECTORS[:2].astype(np.float64), np.int64(4), mask)
        np.testing.assert_array_equal(found.rows, rows)
        np.testing.assert_array_equal(found.scores, scores)
    _, plain, masked = played.messages
    assert plain.told == {"do": "ask", "of": "index x", "k": 4, "under": [None, None]}
    assert masked.told == plain.told | {"under": [0, 0]}
    np.testing.assert_array_equal(plain.arrays[0], VECTORS[:2])
    assert (len(plain.arrays), len(masked.arrays)) == (1, 2)
    np.testing.assert_array_equal(np.unpackbits(masked.arrays[1], count=50, bitorder="little").astype(bool), MASK)


def test_a_batch_goes_out_at_once_and_each_mask_of_it_once(
    play: Callable[[Answer], Played], card: CardProcess, folder: Path, vectors: Floats
) -> None:
    played = play(replies(np.zeros((5, 4), np.int64), np.zeros((5, 4), np.float32)))
    index = remote.open_remote(card, vectors, folder)
    assert index is not None
    other = ~MASK
    index.search_each(VECTORS[:5], 4, [MASK, None, other, MASK, None])
    _, message = played.messages
    assert message.told["under"] == [0, None, 1, 0, None]
    queries, *sent = message.arrays
    np.testing.assert_array_equal(queries, VECTORS[:5])
    for bits, mask in zip(sent, (MASK, other), strict=True):
        np.testing.assert_array_equal(np.unpackbits(bits, count=50, bitorder="little").astype(bool), mask)


def test_a_batch_that_the_card_process_fails_keeps_its_masks(
    play: Callable[[Answer], Played], card: CardProcess, folder: Path, vectors: Floats
) -> None:
    played = play(replies())
    index = remote.open_remote(card, vectors, folder)
    assert index is not None
    played.close()
    masks = [None, MASK, ~MASK]
    found, expected = (each.search_each(VECTORS[:3], 4, masks) for each in (index, ExactIndex(VECTORS)))
    np.testing.assert_array_equal(found.rows, expected.rows)


def test_requests_one_after_the_other_share_a_connection_and_those_at_once_do_not(
    play: Callable[[Answer], Played], card: CardProcess
) -> None:
    both = threading.Barrier(2, timeout=10)

    def answer(line: Line, message: Message) -> None:
        if message.told["together"]:
            both.wait()
        line.send({}, message.arrays[0])

    def ask(number: int, together: bool) -> None:
        [back] = card.ask({"together": together}, np.array([number]))
        numbers.append((number, int(back[0])))

    numbers: list[tuple[int, int]] = []
    played = play(answer)
    for number in range(3):
        ask(number, False)
    assert len(played.lines) == 1
    threads = [threading.Thread(target=ask, args=(number, True)) for number in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(played.lines) == 2
    assert sorted(numbers) == [(number, number) for number in range(5)]


def test_with_its_last_reference_an_index_lets_go(
    play: Callable[[Answer], Played], card: CardProcess, folder: Path, vectors: Floats
) -> None:
    played = play(replies())
    index = remote.open_remote(card, vectors, folder)
    assert index is not None
    gc.disable()
    try:
        # At once, not at the next collection: the next release needs the room.
        del index
        assert played.ended.acquire(timeout=10)
    finally:
        gc.enable()


def test_what_is_refused_is_told_and_opened_on_the_cpu(
    play: Callable[[Answer], Played],
    used: None,
    folder: Path,
    vectors: Floats,
    caplog: pytest.LogCaptureFixture,
) -> None:
    play(lambda line, _: line.send({"error": "cuda:0: 50 vectors of 8 need 3.00 GiB"}))
    before = fallbacks.counted().get("search", 0)
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_index("exact", folder, vectors, IndexerConfig()), ExactIndex)
    assert fallbacks.counted()["search"] == before + 1
    [record] = caplog.records
    assert record.getMessage() == (
        f"The CPU searches the vectors of {folder} in place of the card: cuda:0: 50 vectors of 8 need 3.00 GiB."
    )


@pytest.mark.usefixtures("used")
def test_vectors_that_are_in_no_file_are_searched_on_the_cpu(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_index("exact", tmp_path, VECTORS, IndexerConfig()), ExactIndex)
    assert "they are not mapped from a file" in caplog.text


@pytest.mark.usefixtures("used")
def test_where_there_is_no_card_process_the_cpu_searches(
    folder: Path, vectors: Floats, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_index("exact", folder, vectors, IndexerConfig()), ExactIndex)
    assert "cannot be reached" in caplog.text


def cut_off(line: Line) -> None:
    line._end.sendall(b"\x10\x00\x00\x00[")
    line.end()


# What becomes of a request, and the reason that is told.
FAULTS: dict[str, tuple[Callable[[Line], None], str]] = {
    "gone with the request": (Line.end, "the connection has ended"),
    "gone within the answer": (cut_off, "the connection has ended"),
    "silent": (lambda _: None, "timed out"),
    "failing": (lambda line: line.send({"error": "no kernel image"}), "no kernel image"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_request_is_lost_and_the_reason_is_told_once(
    fault: str,
    play: Callable[[Answer], Played],
    address: str,
    folder: Path,
    vectors: Floats,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fail, reason = FAULTS[fault]

    def answer(line: Line, message: Message) -> None:
        if message.told["do"] == "open":
            line.send(TOLD)
        else:
            fail(line)

    play(answer)
    index = remote.open_remote(CardProcess(address, KEY, 0.05, 10), vectors, folder)
    assert index is not None
    with caplog.at_level(logging.WARNING):
        check(index)
    [record] = caplog.records
    assert "The CPU works in place of the card for index x" in record.getMessage()
    assert reason in record.getMessage()


def test_after_the_card_process_has_ended_requests_are_answered(
    play: Callable[[Answer], Played], card: CardProcess, folder: Path, vectors: Floats
) -> None:
    played = play(replies(np.zeros((1, 1), np.int64), np.zeros((1, 1), np.float32)))
    index = remote.open_remote(card, vectors, folder)
    assert index is not None
    assert index.search(VECTORS[:1], 1).scores.tolist() == [[0.0]]
    played.close()
    check(index)


def test_a_batch_of_texts_is_embedded_there_and_on_the_cpu_where_that_fails(
    play: Callable[[Answer], Played], card: CardProcess, caplog: pytest.LogCaptureFixture
) -> None:
    loaded: list[int] = []

    def local() -> Any:
        loaded.append(1)
        return lambda input_ids, _: np.full((len(input_ids), 2), 7, np.float32)

    def answer(line: Line, message: Message) -> None:
        if message.told["do"] == "open":
            line.send({"of": "encoder 7"})
        elif message.arrays[0].sum() == 0:
            line.send({"error": "no memory left"})
        else:
            line.send({}, message.arrays[0].astype(np.float32))

    play(answer)
    line, told = card.open("encoder", "7")
    forward = RemoteForward(card, line, told["of"], local)
    ids = np.array([[1, 2], [3, 4]])
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(forward(ids, ids > 0), ids)
        assert not loaded
        for _ in range(2):
            np.testing.assert_array_equal(forward(0 * ids, ids > 0), [[7, 7], [7, 7]])
        # One failure is not the end of the card.
        np.testing.assert_array_equal(forward(ids, ids > 0), ids)
    assert len(loaded) == 1
    [record] = caplog.records
    assert record.getMessage() == "The CPU works in place of the card for encoder 7: no memory left."


def test_an_error_is_no_answer(play: Callable[[Answer], Played], card: CardProcess) -> None:
    play(lambda line, _: line.send({"error": "nothing of that name"}))
    for ask in (lambda: card.ask({"do": "ask"}), lambda: card.open("index", "x")):
        with pytest.raises(CardError, match="nothing of that name"):
            ask()
