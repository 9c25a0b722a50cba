"""Vitrine's own row: a model of the store on the very requests the peers are asked."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexer.arrays import Doubles, Ints
from indexer.encoder import Encoder
from indexer.snapshot import IndexSnapshot
from indexer.text import normalise
from peers.context import Context
from ranker.config import RankerConfig
from ranker.examples import Example, Slice
from ranker.log import Request
from ranker.model import Model, Scores
from ranker.recall import kind_of
from ranker.scoring import Scorable
from ranker.stages import Prepared, make_stages, slice_examples

# Lists scored in one pass through the network.
_BATCH = 64


class Ranked(NamedTuple):
    """The rows that a request's answer was chosen from, and their scores; both empty where it had no answer."""

    rows: Ints
    scores: Doubles


class Vitrine:
    """The whole pipeline: recall's candidates, ranked by the model. What recall misses is scored -inf.

    Requests that came with their rows (judged pools) are ranked within them and asked a second time without: the pool
    gives NDCG, the candidates recall.
    """

    name = "Vitrine"

    def __init__(
        self, model: Model, snapshot: IndexSnapshot, encoder: Encoder, config: RankerConfig, prepared: Prepared
    ) -> None:
        self._parts = model, snapshot, encoder, config
        self._prepared = prepared
        self.settings = {"model": model.id, "fusion": model.members.fusion.kind, "candidates": config.candidates}

    def fit(self, context: Context) -> None:
        """Answer all cases; nothing is learnt here."""
        requests = [case.request for case in context.cases]
        free = [request._replace(rows=None, positions=None) for request in requests]
        self._products = context.products
        self._answers = iter(vitrine_scores(free, self._prepared, *self._parts))
        self._pools = iter(
            vitrine_scores(requests, self._prepared, *self._parts) if requests[0].rows is not None else ()
        )

    def scores(self, request: Request, history: Ints) -> Doubles:
        """The candidates' scores; cases are answered in their order."""
        return _spread(next(self._answers), self._products)

    def pool(self, request: Request) -> Doubles:
        """The scores of the request's own rows."""
        if request.rows is None:
            raise ValueError("A request without rows has no pool.")
        return _spread(next(self._pools), self._products)[request.rows]


def vitrine_scores(
    requests: Sequence[Request],
    prepared: Prepared,
    model: Model,
    snapshot: IndexSnapshot,
    encoder: Encoder,
    config: RankerConfig,
) -> list[Ranked]:
    """What the model makes of each request, as the trainer's own replay sees it."""
    asked = prepared._replace(requests=[(request, Slice.TEST) for request in requests])
    stages = make_stages(prepared, snapshot, model.space, config, model.manifest["recall"]["weights"])
    examples = slice_examples(asked, stages, model.space, snapshot, encoder, lambda _: None)[Slice.TEST]
    scores: list[Scores] = []
    for start in range(0, len(examples), _BATCH):
        lists = [Scorable(each.context, each.rows, each.features) for each in examples[start : start + _BATCH]]
        scores += model.members.score(lists, model.space.vectors)
    served = [
        (model.served(kind_of(each.context), made, each.recall_scores) if len(each.recall_scores) else made).fused
        for each, made in zip(examples, scores, strict=True)
    ]
    return paired(requests, examples, served)


def paired(requests: Sequence[Request], examples: Sequence[Example], scores: Sequence[Doubles]) -> list[Ranked]:
    """The answer of each request, in the order of both; a request whose example was left out gets none.

    Raises `ValueError` where an example belongs to no request.
    """
    waiting = list(zip(examples, scores, strict=True))[::-1]
    answers = []
    for request in requests:
        if waiting and _belongs(waiting[-1][0], request):
            example, values = waiting.pop()
            answers.append(Ranked(example.rows, values))
        else:
            answers.append(Ranked(np.empty(0, np.int64), np.empty(0)))
    if waiting:
        raise ValueError(f"{len(waiting)} answers of Vitrine belong to no request: the replay changed their order.")
    return answers


def _belongs(example: Example, request: Request) -> bool:
    wanted = np.sort([grade for grade in request.wanted.values() if grade > 0])
    seen = np.sort(np.concatenate([example.grades[example.grades > 0], example.missed]))
    same = example.context.now == request.time and example.context.query == normalise(request.query)
    return same and len(seen) == len(wanted) and bool(np.allclose(seen, wanted))


def _spread(found: Ranked, products: int) -> Doubles:
    scores = np.full(products, -np.inf)
    scores[found.rows] = found.scores
    return scores
