"""What is open: once for all who hold it, freed when the last lets go."""

import gc
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from indexer.arrays import Array
from indexer.wire import Message
from server.shelf import Shelf


class Echo:
    """Answers what it is asked."""

    def __init__(self, name: str) -> None:
        self.told = {"name": name}

    def read(self, message: Message) -> Array:
        return message.arrays[0]

    def run(self, asked: Sequence[Array]) -> list[Sequence[Array]]:
        return [[each] for each in asked]


class Opening:
    """Opens echoes, and knows which and when they are freed."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.freed = threading.Semaphore(0)
        self.faults: list[Exception] = []

    def __call__(self, what: str, name: str) -> Echo:
        self.opened.append(f"{what} {name}")
        if self.faults:
            raise self.faults.pop()
        echo = Echo(name)
        weakref.finalize(echo, self.freed.release)
        return echo


@pytest.fixture
def opening() -> Opening:
    return Opening()


@pytest.fixture
def shelf(opening: Opening) -> Shelf:
    return Shelf(opening)


class Kept:
    """Stands in for a connection."""

    def __init__(self) -> None:
        self.answers: list[Array] = []
        self.answered = threading.Semaphore(0)

    def send(self, told: dict[str, str], *arrays: Array) -> None:
        self.answers += arrays
        self.answered.release()


def test_it_is_opened_once_and_freed_with_the_last_who_holds_it(shelf: Shelf, opening: Opening) -> None:
    line = Kept()
    gc.disable()
    try:
        with ExitStack() as last:
            with ExitStack() as first:
                told = first.enter_context(shelf.holding("index", "a"))
                assert last.enter_context(shelf.holding("index", "a")) == told == {"of": "index a", "name": "a"}
                assert opening.opened == ["index a"]
            shelf.put(Message({"of": "index a"}, [np.array([5])]), line)
            assert line.answered.acquire(timeout=10)
            assert not opening.freed.acquire(blocking=False)
        # At once, not at the next collection: the next release needs the room.
        assert opening.freed.acquire(blocking=False)
    finally:
        gc.enable()
    with pytest.raises(KeyError, match="index a"):
        shelf.put(Message({"of": "index a"}, [np.array([5])]), line)
    with shelf.holding("index", "a"):
        assert opening.opened == ["index a"] * 2


def test_those_who_ask_at_once_wait_for_the_one_that_opens(opening: Opening) -> None:
    began, let = threading.Event(), threading.Event()

    def slowly(what: str, name: str) -> Echo:
        began.set()
        assert let.wait(10)
        return opening(what, name)

    def held(_: int) -> str:
        with shelf.holding("index", "a") as told:
            everyone.wait()
            return str(told["of"])

    everyone = threading.Barrier(4, timeout=10)
    shelf = Shelf(slowly)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(held, each) for each in range(4)]
        assert began.wait(10)
        let.set()
        assert [each.result() for each in asked] == ["index a"] * 4
    assert opening.opened == ["index a"]


def test_what_is_not_opened_is_tried_again_for_the_next(shelf: Shelf, opening: Opening) -> None:
    opening.faults.append(OSError("no room"))
    with pytest.raises(OSError, match="no room"), shelf.holding("index", "a"):
        pass
    with shelf.holding("index", "a") as told:
        assert told["of"] == "index a"
    assert opening.opened == ["index a"] * 2


def test_things_of_one_name_and_two_kinds_are_two(shelf: Shelf, opening: Opening) -> None:
    with shelf.holding("index", "a"), shelf.holding("encoder", "a"), shelf.holding("index", "b"):
        assert opening.opened == ["index a", "encoder a", "index b"]
