"""Natural batching: what waits when a worker becomes free is its next batch, so a lone request waits for nothing."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class OverloadedError(Exception):
    """As many requests wait as may."""


class ExpiredError(Exception):
    """The request's deadline passed while it waited; it never reached the model."""


class _Waiting(NamedTuple):
    item: object
    deadline: float
    answer: "asyncio.Future[object]"


class Batcher(Generic[T, R]):
    """Worker threads over one queue. `run` takes the items of a batch and returns as many results.

    An exception of `run` is the answer of every caller of that batch, and of no other.
    """

    def __init__(
        self, run: Callable[[Sequence[T]], Sequence[R]], max_batch: int, max_waiting: int, threads: int = 1
    ) -> None:
        self._run = run
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._threads = [threading.Thread(target=self._work, name=f"batch-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        return self._queue.qsize()

    async def submit(self, item: T, deadline: float = float("inf")) -> R:
        """The result for `item`. `deadline` is on the clock of `time.monotonic`.

        Raises `OverloadedError` at once where the queue is full, `ExpiredError` where the deadline passed in it.
        """
        if self._queue.qsize() >= self._max_waiting:
            raise OverloadedError(f"{self._max_waiting} requests are waiting")
        answer: asyncio.Future[object] = self._loop.create_future()
        self._queue.put(_Waiting(item, deadline, answer))
        return await answer  # type: ignore[return-value]

    async def close(self) -> None:
        """Answer what waits, then end the workers."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            ended = False
            while len(batch) < self._max_batch and not ended:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ended = True
                else:
                    batch.append(following)
            self._answer(batch)
            if ended:
                return

    def _answer(self, batch: list[_Waiting]) -> None:
        now = time.monotonic()
        # Nobody reads the answer to a caller that has left.
        batch = [waiting for waiting in batch if not waiting.answer.done()]
        live = [waiting for waiting in batch if waiting.deadline > now]
        outcomes: list[object] = []
        if live:
            try:
                outcomes = list(self._run([waiting.item for waiting in live]))  # type: ignore[misc]
                if len(outcomes) != len(live):
                    raise RuntimeError(f"a batch of {len(live)} gave {len(outcomes)} results")
            except Exception as error:
                # A future refuses a StopIteration, and its caller would wait for ever.
                failure = RuntimeError(f"a batch ended early: {error}") if isinstance(error, StopIteration) else error
                outcomes = [failure] * len(live)
        late = [waiting for waiting in batch if waiting.deadline <= now]
        expired = ExpiredError("the deadline passed while the request waited")
        self._loop.call_soon_threadsafe(_settle, live + late, outcomes + [expired] * len(late))


def _settle(batch: list[_Waiting], outcomes: list[object]) -> None:
    for waiting, outcome in zip(batch, outcomes, strict=True):
        if waiting.answer.done():
            continue
        if isinstance(outcome, Exception):
            waiting.answer.set_exception(outcome)
        else:
            waiting.answer.set_result(outcome)
