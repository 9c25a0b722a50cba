"""Where the ranked rpcs hand in a checked request: one queue, one answer."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vitrine.v1.hit_pb2 import Explanation

from server.batcher import Batcher
from server.explanations import explanations
from server.live import Live
from server.pipeline import Answer, Ask
from server.state import State

if TYPE_CHECKING:
    from server.metrics import Metrics

Work = Callable[[State, Sequence[Ask]], list[Answer]]


class Job(NamedTuple):
    """A request, the pipeline function that answers it, and the state it was checked against."""

    work: Work
    state: State
    ask: Ask


class Desk:
    """One queue for Search, Recommend and Similar: requests of one kind that wait together are answered together."""

    def __init__(
        self, live: Live, max_batch: int, max_waiting: int, threads: int, metrics: "Metrics | None" = None
    ) -> None:
        self.live = live
        self._metrics = metrics
        self._batcher: Batcher[Job, Answer] = Batcher(self._run, max_batch, max_waiting, threads)
        # Explained one by one and beside the ranking: that takes longer than all else, and few ask for it.
        self._explainer: Batcher[Answer, list[Explanation]] = Batcher(_explained, 1, max_waiting)

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        return self._batcher.waiting

    def ruled(self, request: Any, state: State, kind: str, ask: Ask) -> Ask:
        """The ask of a `request` of a kind (`rules.KINDS`), which was checked against `state`, as rules want it."""
        if request.without_rules:
            return ask
        applied = self.live.rulebook.applied(state.columns, kind, ask.query)
        return ask.ruled(applied) if applied.rules else ask

    async def answer(self, work: Work, state: State, ask: Ask) -> Answer:
        """The answer of `state` to `ask`; see `Batcher.submit` for what it raises."""
        return await self._batcher.submit(Job(work, state, ask._replace(asked=time.monotonic())), ask.deadline)

    async def explain(self, answer: Answer, deadline: float) -> list[Explanation]:
        """Why the hits have their scores, if the request asked; see `Batcher.submit` for what it raises."""
        return [] if answer.evidence is None else await self._explainer.submit(answer, deadline)

    async def close(self) -> None:
        """Answer what waits and stop."""
        await self._batcher.close()
        await self._explainer.close()

    def _run(self, jobs: Sequence[Job]) -> list[Answer]:
        self.live.refresh()
        # While a release is swapped some still wait with the old state, whose products and columns may be others.
        states = [self.live.newest(job.state) for job in jobs]
        kinds: dict[tuple[Work, int], list[int]] = {}
        for i, job in enumerate(jobs):
            kinds.setdefault((job.work, id(states[i])), []).append(i)
        answers: dict[int, Answer] = {}
        for (work, _), mine in kinds.items():
            made = work(states[mine[0]], [jobs[i].ask for i in mine])
            answers.update(zip(mine, made, strict=True))
            if self._metrics:
                self._metrics.ran(made)
        return [answers[i] for i in range(len(jobs))]


def _explained(answers: Sequence[Answer]) -> list[list[Explanation]]:
    return [explanations(answer) for answer in answers]
