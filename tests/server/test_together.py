"""Natural batching: what waits is one batch, each caller gets its own answer, and a failure is its batch's alone."""

import logging
import socket
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from indexer.arrays import Array
from indexer.wire import Line
from server.together import Together


class Doubling:
    """Twice each number, one batch at a time when it is let; numbers below 0 are an error."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def __call__(self, numbers: Sequence[int]) -> list[Sequence[Array]]:
        self.batches.append(list(numbers))
        self.began.release()
        assert self.let.acquire(timeout=10)
        if min(numbers) < 0:
            raise ValueError("below 0")
        return [[np.array(2 * number)] for number in numbers]


@pytest.fixture
def doubling() -> Doubling:
    return Doubling()


@pytest.fixture
def together(doubling: Doubling) -> Iterator[Together[int]]:
    made: Together[int] = Together(doubling, "doubling")
    yield made
    doubling.let.release(100)
    made.close()


@pytest.fixture
def lines() -> Iterator[list[tuple[Line, Line]]]:
    """Ends of connections: of who asks, and of who answers."""
    made = []
    for asks, answers in (socket.socketpair() for _ in range(6)):
        asks.settimeout(10)
        made.append((Line(asks), Line(answers)))
    yield made
    for pair in made:
        for line in pair:
            line.close()


def answer(line: Line) -> int:
    return int(line.receive().arrays[0])


def test_what_waits_is_answered_together_and_a_lone_one_at_once(
    together: Together[int], doubling: Doubling, lines: list[tuple[Line, Line]]
) -> None:
    together.put(0, lines[0][1])
    assert doubling.began.acquire(timeout=10)
    for number in range(1, 6):
        together.put(number, lines[number][1])
    doubling.let.release(2)
    assert [answer(asks) for asks, _ in lines] == [0, 2, 4, 6, 8, 10]
    assert doubling.batches == [[0], [1, 2, 3, 4, 5]]


def test_a_failing_batch_is_told_to_each_of_its_callers_and_to_no_other(
    together: Together[int], doubling: Doubling, lines: list[tuple[Line, Line]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        together.put(3, lines[0][1])
        assert doubling.began.acquire(timeout=10)
        together.put(-1, lines[1][1])
        together.put(4, lines[2][1])
        doubling.let.release(3)
        assert answer(lines[0][0]) == 6
        assert [lines[i][0].receive().told for i in (1, 2)] == [{"error": "it failed: below 0"}] * 2
    assert "doubling failed for 2 callers" in caplog.text
    together.put(5, lines[3][1])
    assert answer(lines[3][0]) == 10


def test_a_caller_that_is_gone_keeps_no_other_waiting(
    together: Together[int], doubling: Doubling, lines: list[tuple[Line, Line]]
) -> None:
    together.put(0, lines[0][1])
    assert doubling.began.acquire(timeout=10)
    for number in (1, 2):
        together.put(number, lines[number][1])
    lines[1][0].close()
    doubling.let.release(2)
    assert answer(lines[2][0]) == 4


def test_closed_it_has_answered_what_waited(doubling: Doubling, lines: list[tuple[Line, Line]]) -> None:
    together: Together[int] = Together(doubling, "doubling")
    doubling.let.release(9)
    for number in range(3):
        together.put(number, lines[number][1])
    together.close()
    assert [answer(asks) for asks, _ in lines[:3]] == [0, 2, 4]
