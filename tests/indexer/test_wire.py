import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.arrays import Array
from indexer.wire import Line, accepted, connected, listening

KEY = b"k" * 32
# An array that fills what the system keeps for a reader, many times over.
MUCH = np.zeros(4 * 2**20, np.float32)


@pytest.fixture
def address() -> Iterator[str]:
    # The path of a socket is at most 107 bytes, which a test's own folder may have already.
    with tempfile.TemporaryDirectory() as folder:
        yield str(Path(folder) / "line")


@pytest.fixture
def listener(address: str) -> Iterator[socket.socket]:
    with listening(address) as made:
        yield made


@pytest.fixture
def ends(address: str, listener: socket.socket) -> Iterator[tuple[Line, Line]]:
    """Of one who asks, and of one who answers."""
    asks = connected(address, KEY, 10)
    answers = accepted(listener, 0.05)
    assert answers.opens_with(KEY)
    yield asks, answers
    asks.close()
    answers.close()


@pytest.mark.parametrize(
    "arrays",
    [
        [],
        [np.arange(6, dtype=np.float32).reshape(2, 3)],
        [np.arange(6, dtype=np.int64), np.array([[True, False]]), np.array([7], np.uint8)],
        [np.arange(12, dtype=np.float32).reshape(3, 4).T[1:]],
        [np.empty((0, 5), np.float32), np.empty((3, 0), np.int64), np.float32([1])],
    ],
    ids=["none", "one", "several", "strided", "empty"],
)
def test_values_and_arrays_arrive_as_they_were(ends: tuple[Line, Line], arrays: list[Array]) -> None:
    asks, answers = ends
    told = {"k": 3, "of": "防水", "nested": {"a": [1, None]}}
    for sender, receiver in ((asks, answers), (answers, asks)):
        sender.send(told, *arrays)
        sender.send({}, *arrays)
        for expected in (told, {}):
            message = receiver.receive()
            assert message.told == expected
            assert len(message.arrays) == len(arrays)
            for got, sent in zip(message.arrays, arrays, strict=True):
                assert got.dtype == sent.dtype
                np.testing.assert_array_equal(got, sent)
                assert got.flags.writeable


def test_an_object_does_not_pass(ends: tuple[Line, Line]) -> None:
    """Its bytes are addresses."""
    asks, answers = ends
    asks.send({}, np.array([{}], object))
    with pytest.raises(TypeError):
        answers.receive()


def test_another_key_is_noticed(address: str, listener: socket.socket) -> None:
    asks, answers = connected(address, b"x" * 32, 10), accepted(listener, 10)
    assert not answers.opens_with(KEY)
    asks.close()
    answers.close()


def test_the_end_of_the_other_is_an_error_wherever_it_comes(ends: tuple[Line, Line]) -> None:
    asks, answers = ends
    # The length of a message and no more of it.
    answers._end.sendall(b"\x09\x00\x00\x00")
    answers.end()
    with pytest.raises(EOFError):
        asks.receive()


def test_one_thread_ends_what_another_waits_for(ends: tuple[Line, Line]) -> None:
    _, answers = ends
    answers.end()
    with pytest.raises(EOFError):
        answers.receive()


def test_where_nobody_listens_it_is_told(address: str) -> None:
    with pytest.raises(OSError, match="No such file"):
        connected(address, KEY, 1)


def test_no_wait_of_one_who_asks_is_without_an_end(address: str, listener: socket.socket) -> None:
    asks = connected(address, KEY, 0.05)
    with pytest.raises(TimeoutError):
        asks.receive()
    with pytest.raises(TimeoutError):
        asks.send({}, MUCH)
    asks.close()


def test_an_answer_that_is_not_read_is_given_up(ends: tuple[Line, Line]) -> None:
    with pytest.raises(BlockingIOError):
        ends[1].send({}, MUCH)
