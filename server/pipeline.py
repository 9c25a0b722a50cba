"""The request path: encode, recall, features, score, page. Each function answers a batch of requests of one kind."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexer.arrays import Doubles, Floats, Ints, Mask
from indexer.text import normalise
from ranker import features, recall
from ranker.features import Context
from ranker.history import History, viewed
from ranker.recall import Candidates
from ranker.scoring import Scorable
from server.filters import Filter, rows_matching
from server.state import State


class Ask(NamedTuple):
    """A checked request on its way. `vector` stands in for the query's (Search) or the user's (Recommend)."""

    query: str = ""
    vector: Floats | None = None
    user: str | None = None
    recent: Sequence[str] = ()
    product: str = ""
    condition: Filter | None = None
    offset: int = 0
    size: int = 24
    asked: float = 0.0  # time.monotonic
    deadline: float = float("inf")  # time.monotonic


class Source(NamedTuple):
    """A channel that proposed a product, with the product's rank and score there."""

    channel: str
    rank: int
    score: float


class Hit(NamedTuple):
    """One product of the page. A member's score is None where it was not run."""

    row: int
    score: float
    sources: Sequence[Source]
    recall: float
    network: float | None
    trees: float | None


class Answer(NamedTuple):
    """One page. `degraded` holds (stage, reason), `timings` (stage, seconds of the batch)."""

    state: State
    hits: Sequence[Hit]
    candidates: int
    timings: Sequence[tuple[str, float]]
    degraded: Sequence[tuple[str, str]]
    personal: bool = False


class _Stopwatch:
    """Seconds since the last lap, by stage."""

    def __init__(self) -> None:
        self.start = self._last = time.monotonic()
        self.laps: list[tuple[str, float]] = []

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.laps.append((stage, now - self._last))
        self._last = now


def search(state: State, asks: Sequence[Ask]) -> list[Answer]:
    """Products for queries."""
    watch, now = _Stopwatch(), state.now()
    vectors = _query_vectors(state, asks)
    watch.lap("encode")
    contexts = [
        state.model.space.context(now, _history(state, ask, now), normalise(ask.query), vector, _disliked(state, ask))
        for ask, vector in zip(asks, vectors, strict=True)
    ]
    found = [_recalled(state, ask, context) for ask, context in zip(asks, contexts, strict=True)]
    watch.lap("recall")
    return _ranked(state, "query", asks, contexts, found, watch)


def recommend(state: State, asks: Sequence[Ask]) -> list[Answer]:
    """Products for users."""
    watch, now = _Stopwatch(), state.now()
    space = state.model.space
    contexts = [space.context(now, _history(state, ask, now), disliked=_disliked(state, ask)) for ask in asks]
    contexts = [
        context if ask.vector is None else context._replace(user_vector=ask.vector)
        for ask, context in zip(asks, contexts, strict=True)
    ]
    watch.lap("encode")
    found = [_recalled(state, ask, context) for ask, context in zip(asks, contexts, strict=True)]
    watch.lap("recall")
    return _ranked(state, "user", asks, contexts, found, watch)


def similar(state: State, asks: Sequence[Ask]) -> list[Answer]:
    """Products like a product: title neighbours and product-space neighbours, fused and not re-ranked."""
    watch, k = _Stopwatch(), state.model.retrieval.candidates
    answers = []
    for ask in asks:
        row = state.snapshot.row_of[ask.product]
        mask = _mask(state, ask)
        mask = np.ones(len(state.snapshot), bool) if mask is None else mask.copy()
        mask[row] = False
        near = recall.for_vector(state.snapshot.index, state.snapshot.vectors[row], k, mask)
        related = recall.for_vector(state.model.space.index, state.model.space.vectors[row], k, mask, "related")
        found = recall.fuse([near, related], k)
        answers.append((ask, found))
    watch.lap("recall")
    return [_page(state, ask, found, found.scores, None, None, watch, []) for ask, found in answers]


def _query_vectors(state: State, asks: Sequence[Ask]) -> list[Floats]:
    """The given vectors, and the queries' by one pass of the encoder."""
    queries = [ask.query for ask in asks if ask.vector is None]
    encoded = iter(state.encoder.encode(queries))
    return [next(encoded) if ask.vector is None else ask.vector for ask in asks]


def _history(state: State, ask: Ask, now: float) -> History:
    rows = [state.snapshot.row_of[product] for product in ask.recent if product in state.snapshot.row_of]
    return viewed(state.behaviour.history(ask.user), rows, now)


def _disliked(state: State, ask: Ask) -> History:
    return state.behaviour.disliked(ask.user)


def _recalled(state: State, ask: Ask, context: Context) -> Candidates:
    return state.model.retrieval.recall(context, state.behaviour, _mask(state, ask))


def _mask(state: State, ask: Ask) -> Mask | None:
    return None if ask.condition is None else rows_matching(ask.condition, state.snapshot.products)


def _ranked(
    state: State,
    kind: str,
    asks: Sequence[Ask],
    contexts: Sequence[Context],
    found: Sequence[Candidates],
    watch: _Stopwatch,
) -> list[Answer]:
    """Features, scores and pages; what cannot be ranked is left in recall order."""
    unranked = [_unranked(state, kind, ask, c) for ask, c in zip(asks, found, strict=True)]
    lists = [
        Scorable(context, c.rows, features.matrix(context, c.rows, state.model.catalogue, state.behaviour))
        for context, c, reasons in zip(contexts, found, unranked, strict=True)
        if not reasons
    ]
    watch.lap("features")
    scored = iter(zip(lists, state.model.members.score(lists, state.model.space.vectors), strict=True))
    watch.lap("score")
    answers = []
    for ask, context, candidates, reasons in zip(asks, contexts, found, unranked, strict=True):
        personal = bool(context.history.rows) or (not context.query and context.user_vector is not None)
        if reasons:
            answers.append(_page(state, ask, candidates, candidates.scores, None, None, watch, reasons, personal))
        else:
            item, scores = next(scored)
            answers.append(
                _page(state, ask, candidates, scores.fused, scores.network, item.features, watch, [], personal)
            )
    watch.lap("page")
    return [
        answer._replace(timings=[("wait", watch.start - ask.asked), *watch.laps])
        for ask, answer in zip(asks, answers, strict=True)
    ]


def _unranked(state: State, kind: str, ask: Ask, found: Candidates) -> list[tuple[str, str]]:
    """Why a request is not ranked, as (stage, reason); empty if it is."""
    if not len(found.rows):
        return [("recall", "no candidate: the filter matches none, or no engagement is known yet")]
    if kind not in state.model.manifest["learnt"]:
        # A ranker that never saw a query in training ranks a query's candidates by everything but the query.
        return [("score", f"the log held too few requests by {kind} to learn from: hits are in recall order")]
    if ask.deadline - time.monotonic() < state.ranking_budget:
        return [("score", "the deadline left no time to rank: hits are in recall order")]
    return []


def _page(
    state: State,
    ask: Ask,
    found: Candidates,
    fused: Doubles,
    network: Doubles | None,
    matrix: Floats | None,
    watch: _Stopwatch,
    degraded: list[tuple[str, str]],
    personal: bool = False,
) -> Answer:
    """The hits of the asked page; equal scores keep recall order, so that pages do not overlap."""
    places = np.argsort(-fused, kind="stable")[ask.offset : ask.offset + ask.size]
    sources = _sources(found, found.rows[places])
    trees = None if matrix is None or not len(places) else state.model.members.tree_scores(matrix[places])
    hits = [
        Hit(
            row=int(found.rows[place]),
            score=float(fused[place]),
            sources=sources[i],
            recall=float(found.scores[place]),
            network=None if network is None else float(network[place]),
            trees=None if trees is None else float(trees[i]),
        )
        for i, place in enumerate(places)
    ]
    return Answer(state, hits, len(found.rows), [("wait", watch.start - ask.asked), *watch.laps], degraded, personal)


def _sources(found: Candidates, rows: Ints) -> list[list[Source]]:
    """For each of `rows`, the channels that proposed it."""
    sources: list[list[Source]] = [[] for _ in rows]
    wanted = {int(row): i for i, row in enumerate(rows)}
    for channel in found.channels:
        for place in np.flatnonzero(np.isin(channel.rows, rows)):
            sources[wanted[int(channel.rows[place])]].append(
                Source(channel.name, int(place) + 1, float(channel.scores[place]))
            )
    return sources
