"""Natural batching between processes: a thread that answers in one go whatever waits when it is free."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from indexer.arrays import Array
from indexer.wire import Line

logger = logging.getLogger(__name__)

T = TypeVar("T")


class _Waiting(NamedTuple, Generic[T]):
    item: T
    line: Line


class Together(Generic[T]):
    """Answers each of the items of a batch over the connection it came from; `run` makes a batch's answers.

    An exception of `run` is told to every caller of that batch. A caller that is gone keeps no other waiting.
    """

    def __init__(self, run: Callable[[Sequence[T]], Sequence[Sequence[Array]]], name: str) -> None:
        self._run = run
        self._queue: queue.SimpleQueue[_Waiting[T] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, item: T, line: Line) -> None:
        """Have `item` answered over `line`."""
        self._queue.put(_Waiting(item, line))

    def close(self) -> None:
        """Answer what waits, then let go of `run`."""
        self._queue.put(None)
        self._thread.join()
        del self._run

    def _work(self) -> None:
        ended = False
        while not ended:
            taken = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    taken.append(self._queue.get_nowait())
            ended = None in taken
            self._answer([waiting for waiting in taken if waiting is not None])

    def _answer(self, batch: Sequence[_Waiting[T]]) -> None:
        if not batch:
            return
        try:
            answers = self._run([waiting.item for waiting in batch])
            for waiting, arrays in zip(batch, answers, strict=True):
                _send(waiting.line, {}, *arrays)
        except Exception as error:
            logger.exception("%s failed for %d callers", self._thread.name, len(batch))
            for waiting in batch:
                _send(waiting.line, {"error": f"it failed: {error}"})


def _send(line: Line, told: dict[str, str], *arrays: Array) -> None:
    try:
        line.send(told, *arrays)
    except OSError:
        # Half of a message may have gone out.
        line.end()
