"""Where the ranked rpcs hand in a request: checks collected, one queue, one answer."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from server.batcher import Batcher
from server.live import Live
from server.pipeline import Answer, Ask
from server.state import State

T = TypeVar("T")
Work = Callable[[State, Sequence[Ask]], list[Answer]]


class Job(NamedTuple):
    """A request and the pipeline function that answers it."""

    work: Work
    ask: Ask


class Desk:
    """One queue for Search, Recommend and Similar: requests of one kind that wait together are answered together."""

    def __init__(self, live: Live, max_batch: int, max_waiting: int, threads: int) -> None:
        self.live = live
        self._batcher: Batcher[Job, Answer] = Batcher(self._run, max_batch, max_waiting, threads)

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        return self._batcher.waiting

    async def answer(self, work: Work, ask: Ask) -> Answer:
        """The answer to `ask`; see `Batcher.submit` for what it raises."""
        return await self._batcher.submit(Job(work, ask._replace(asked=time.monotonic())), ask.deadline)

    async def close(self) -> None:
        """Answer what waits and stop."""
        await self._batcher.close()

    def _run(self, jobs: Sequence[Job]) -> list[Answer]:
        state = self.live.state
        answers: dict[int, Answer] = {}
        for work in dict.fromkeys(job.work for job in jobs):
            mine = [i for i, job in enumerate(jobs) if job.work is work]
            answers.update(zip(mine, work(state, [jobs[i].ask for i in mine]), strict=True))
        return [answers[i] for i in range(len(jobs))]
