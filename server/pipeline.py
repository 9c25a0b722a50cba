"""The request path: encode, recall, features, score, page. Each function answers a batch of requests of one kind."""

import time
from collections.abc import Sequence, Set
from typing import NamedTuple

import numpy as np

from indexer.arrays import Doubles, Floats, Ints, Mask
from indexer.text import normalise
from ranker import features, recall
from ranker.explain import Evidence, Prior
from ranker.features import Context
from ranker.history import EMPTY, RATING, History, viewed
from ranker.model import Scores
from ranker.recall import Candidates
from ranker.scoring import Scorable
from server.assortment import Offer
from server.diversity import Diversity, spread
from server.facets import Facet, facets
from server.filters import Filter, rows_matching
from server.hits import Hits, proposals
from server.merchandising import Drawn, boosted, in_front, with_pinned
from server.ordering import Ordering, ordered
from server.rules import NOTHING, Applied, both
from server.state import State


class Ask(NamedTuple):
    """A checked request on its way. `vector` stands in for the query's (Search) or the user's (Recommend)."""

    query: str = ""
    vector: Floats | None = None
    user: str | None = None
    recent: Sequence[str] = ()
    product: str = ""
    condition: Filter | None = None
    # Kinds of engagement (`ranker.history`) whose products are left out of a recommendation.
    excluded: Set[int] = frozenset()
    # Columns whose values are counted, and how many of them are told.
    counted: Sequence[tuple[str, int]] = ()
    diversity: Diversity | None = None
    ordering: Ordering | None = None
    # What a merchandiser's rules do to it, of which `query` and `condition` hold their part already.
    applied: Applied = NOTHING
    offset: int = 0
    size: int = 24
    explain: bool = False
    asked: float = 0.0  # time.monotonic
    deadline: float = float("inf")  # time.monotonic

    def ruled(self, applied: Applied) -> "Ask":
        """This request as the rules want it that hold for it; an order of the customer's own goes before theirs."""
        applied = applied if self.ordering is None else applied.unmoved
        kept = [each for each in (self.condition, applied.condition) if each is not None]
        query = applied.rewriting.rewrite if applied.rewriting else self.query
        return self._replace(applied=applied, query=query, condition=both(kept))


class Answer(NamedTuple):
    """One page. `degraded` holds (stage, reason), `timings` (stage, seconds of the batch)."""

    state: State
    offer: Offer
    hits: Hits
    candidates: int
    timings: Sequence[tuple[str, float]]
    degraded: Sequence[tuple[str, str]]
    personal: bool = False
    facets: Sequence[Facet] = ()
    # What the hits were scored by, where the request asks why and they were scored.
    evidence: Evidence | None = None
    # The rules that were applied, and the products that they put in front.
    applied: Applied = NOTHING
    pinned: Sequence[str] = ()
    # The query as it was searched, where misspelt words of it were mended.
    corrected: str = ""


class _Plan(NamedTuple):
    """Which members rank a request, and what is left out, as (stage, reason)."""

    trees: bool
    network: bool
    degraded: Sequence[tuple[str, str]]


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
    watch, now, offer = _Stopwatch(), state.now(), state.assortment.offer
    mended = [state.model.retrieval.lexical.mended(ask.query) for ask in asks]
    vectors = _query_vectors(state, asks, mended)
    watch.lap("encode")
    contexts = [
        state.model.space.context(now, _history(state, ask, now), normalise(ask.query), vector, _disliked(state, ask))
        for ask, vector in zip(asks, vectors, strict=True)
    ]
    masks, listed = _masks(offer, asks), [offer.listed] * len(asks)
    found = state.model.retrieval.recall_each(contexts, state.behaviour, masks, listed)
    drawn = _drawn(state, asks, found, masks, listed)
    watch.lap("recall")
    answers = _ranked(state, offer, "query", asks, contexts, drawn, watch)
    return [
        answer if text == normalise(ask.query) else answer._replace(corrected=text)
        for ask, text, answer in zip(asks, mended, answers, strict=True)
    ]


def recommend(state: State, asks: Sequence[Ask]) -> list[Answer]:
    """Products for users."""
    watch, now, offer = _Stopwatch(), state.now(), state.assortment.offer
    space = state.model.space
    contexts = [space.context(now, _history(state, ask, now), disliked=_disliked(state, ask)) for ask in asks]
    contexts = [
        context if ask.vector is None else context._replace(user_vector=ask.vector)
        for ask, context in zip(asks, contexts, strict=True)
    ]
    watch.lap("encode")
    left_out = [_left_out(ask, context) for ask, context in zip(asks, contexts, strict=True)]
    masks = [
        mask if mask is None or not len(rows) else _without(rows, mask)
        for mask, rows in zip(_masks(offer, asks), left_out, strict=True)
    ]
    listed = [_without(rows, _listed(offer)) if len(rows) else offer.listed for rows in left_out]
    found = state.model.retrieval.recall_each(contexts, state.behaviour, masks, listed)
    drawn = _drawn(state, asks, found, masks, listed)
    watch.lap("recall")
    return _ranked(state, offer, "user", asks, contexts, drawn, watch)


def similar(state: State, asks: Sequence[Ask]) -> list[Answer]:
    """Products like a product: title neighbours and product-space neighbours, fused and not re-ranked."""
    watch, k, offer = _Stopwatch(), state.model.retrieval.candidates, state.assortment.offer
    every = _listed(offer)
    rows = [state.row_of[ask.product] for ask in asks]
    masks = [
        _without(row, every if mask is None else mask) for row, mask in zip(rows, _masks(offer, asks), strict=True)
    ]
    retrieval, catalogue = state.model.retrieval, state.model.catalogue
    near, related = (
        recall.for_vectors(index, [vectors[row] for row in rows], k, masks, name)
        for name, index, vectors in (
            ("dense", retrieval.titles, catalogue.table.vectors),
            ("related", retrieval.products, catalogue.space),
        )
    )
    found = [recall.fuse(channels, k) for channels in zip(near, related, strict=True)]
    drawn = _drawn(state, asks, found, masks, masks)
    watch.lap("recall")
    return [_page(state, offer, ask, each, None, None, watch, []) for ask, each in zip(asks, drawn, strict=True)]


def _query_vectors(state: State, asks: Sequence[Ask], mended: Sequence[str]) -> list[Floats]:
    """The given vectors, and those of the mended queries by at most one pass of the encoder."""
    encoded = iter(state.query_vectors([text for ask, text in zip(asks, mended, strict=True) if ask.vector is None]))
    return [next(encoded) if ask.vector is None else ask.vector for ask in asks]


def _history(state: State, ask: Ask, now: float) -> History:
    rows = [state.row_of[product] for product in ask.recent if product in state.row_of]
    return viewed(state.behaviour.history(ask.user), rows, now)


def _disliked(state: State, ask: Ask) -> History:
    return state.behaviour.disliked(ask.user)


def _masks(offer: Offer, asks: Sequence[Ask]) -> list[Mask | None]:
    """The listed rows that each request's filter passes, None without one.

    Equal filters of a batch are looked up once, and are one array.
    """
    # By what they read as, since tuples are equal whatever their names: `All` and `AnyOf` of the same parts.
    conditions = {repr(ask.condition): ask.condition for ask in asks}
    masks = {told: None if condition is None else _passing(offer, condition) for told, condition in conditions.items()}
    return [masks[repr(ask.condition)] for ask in asks]


def _passing(offer: Offer, condition: Filter) -> Mask:
    mask = rows_matching(condition, offer.products)
    return mask if offer.listed is None else mask & offer.listed


def _listed(offer: Offer) -> Mask:
    return np.ones(len(offer.products), bool) if offer.listed is None else offer.listed


def _without(rows: int | Ints, mask: Mask) -> Mask:
    kept = mask.copy()
    kept[rows] = False
    return kept


def _drawn(
    state: State,
    asks: Sequence[Ask],
    found: Sequence[Candidates],
    masks: Sequence[Mask | None],
    listed: Sequence[Mask | None],
) -> list[Drawn]:
    """The candidates with what is pinned beside them; that must pass what recall's must."""
    return [
        with_pinned(each, ask.applied.pins, state.row_of, shown if mask is None else mask)
        for ask, each, mask, shown in zip(asks, found, masks, listed, strict=True)
    ]


def _left_out(ask: Ask, context: Context) -> Ints:
    """The rows that the user did with what the request excludes; what was rated low was rated."""
    if not ask.excluded:
        return np.empty(0, np.int64)
    history, disliked = context.history, context.disliked if RATING in ask.excluded else EMPTY
    rows = [row for row, kind in zip(history.rows, history.kinds, strict=True) if kind in ask.excluded]
    return np.array([*rows, *disliked.rows], np.int64)


def _ranked(
    state: State,
    offer: Offer,
    kind: str,
    asks: Sequence[Ask],
    contexts: Sequence[Context],
    drawn: Sequence[Drawn],
    watch: _Stopwatch,
) -> list[Answer]:
    """Features, scores and pages; what cannot be ranked is left in recall order."""
    found = [each.found for each in drawn]
    plans = [_plan(state, kind, ask, c) for ask, c in zip(asks, found, strict=True)]
    catalogue = state.model.catalogue._replace(table=offer.table)
    lists = [
        Scorable(context, c.rows, features.matrix(context, c.rows, catalogue, state.behaviour)) if plan.trees else None
        for context, c, plan in zip(contexts, found, plans, strict=True)
    ]
    watch.lap("features")
    scores = [
        each and state.model.served(kind, each, c.scores)
        for each, c in zip(_scores(state, plans, lists), found, strict=True)
    ]
    watch.lap("score")
    answers = []
    for i, (ask, context) in enumerate(zip(asks, contexts, strict=True)):
        personal = bool(context.history.rows) or (not context.query and context.user_vector is not None)
        answers.append(_page(state, offer, ask, drawn[i], scores[i], lists[i], watch, plans[i].degraded, personal))
    watch.lap("page")
    return [
        answer._replace(timings=[("wait", watch.start - ask.asked), *watch.laps])
        for ask, answer in zip(asks, answers, strict=True)
    ]


def _plan(state: State, kind: str, ask: Ask, found: Candidates) -> _Plan:
    """What can be done for a request in the time it has left."""
    if not len(found.rows):
        return _unranked("recall", "no candidate: the filter matches none, or no engagement is known yet")
    if kind not in state.model.manifest["learnt"]:
        # A ranker that never saw a query in training ranks a query's candidates by everything but the query.
        return _unranked("score", f"the log held too few requests by {kind} to learn from: hits are in recall order")
    left = ask.deadline - time.monotonic()
    if left < state.ranking_budget:
        return _unranked("score", "the deadline left no time to rank: hits are in recall order")
    if left < state.ranking_budget + state.network_budget:
        return _Plan(True, False, [("network", "the deadline left no time for the DNN: the trees ranked alone")])
    return _Plan(True, True, [])


def _unranked(stage: str, reason: str) -> _Plan:
    return _Plan(False, False, [(stage, reason)])


def _scores(state: State, plans: Sequence[_Plan], lists: Sequence[Scorable | None]) -> list[Scores | None]:
    """The scores of each list that is ranked: one pass for those that the network ranks, one for those it does not."""
    scores: list[Scores | None] = [None] * len(lists)
    members = state.model.members
    if members is None:
        return scores
    for network in (True, False):
        mine = {i: item for i, item in enumerate(lists) if item is not None and plans[i].network is network}
        made = members.score(list(mine.values()), state.model.space.all_vectors, skip_network=not network)
        for i, each in zip(mine, made, strict=True):
            scores[i] = each
    return scores


def _page(
    state: State,
    offer: Offer,
    ask: Ask,
    drawn: Drawn,
    scores: Scores | None,
    ranked: Scorable | None,
    watch: _Stopwatch,
    degraded: Sequence[tuple[str, str]],
    personal: bool = False,
) -> Answer:
    """The hits of the asked page; equal scores keep recall order, so that pages do not overlap."""
    found = drawn.found
    fused, network, trees, prior = scores or Scores(found.scores, None, None)
    order = _order(offer, ask, drawn, fused)
    kept = order[ask.offset : ask.offset + ask.size]
    rows = found.rows[kept]
    places, proposed = proposals(rows, found.channels)
    hits = Hits(
        rows=rows,
        scores=fused[kept],
        recall=found.scores[kept],
        network=None if network is None else network[kept],
        trees=_shown_trees(state, ranked, trees, kept),
        channels=[channel.name for channel in found.channels],
        places=places,
        proposed=proposed,
    )
    timings = [("wait", watch.start - ask.asked), *watch.laps]
    evidence = None
    if ask.explain and ranked is not None and scores is not None:
        usual = 0.0 if network is None else float(network.mean())
        # Candidates come in the recall's order.
        added = None if prior is None else Prior(kept + 1, prior[kept])
        evidence = Evidence(ranked.features[kept], hits.network, usual, added)
    counted = facets(ask.counted, offer.products, found.rows[order])
    shown = ask.applied, list(drawn.pinned)
    return Answer(state, offer, hits, len(order), timings, degraded, personal, counted, evidence, *shown)


def _order(offer: Offer, ask: Ask, drawn: Drawn, scores: Doubles) -> Ints:
    """The candidates, best first, as places in recall's order: by score, then as rules and diversity move them.

    Or, where the customer has an order of their own, the best of them in that.
    """
    rows = drawn.found.rows
    order = np.argsort(-scores, kind="stable")
    if ask.ordering is not None:
        return order[ordered(ask.ordering, offer.products, rows[order])]
    if ask.applied.boosts:
        order = order[boosted(ask.applied.boosts, offer.products, rows[order])]
    if ask.diversity is not None:
        order = order[spread(ask.diversity, offer.products, rows[order])]
    if drawn.pinned:
        order = order[in_front(list(drawn.pinned.values()), rows[order])]
    return order


def _shown_trees(state: State, ranked: Scorable | None, trees: Doubles | None, kept: Ints) -> Doubles | None:
    """The plain trees' scores of the page: a fusion that does without them has not made any."""
    if trees is not None:
        return trees[kept]
    if ranked is None or state.model.members is None:
        return None
    return state.model.members.tree_scores(ranked.features[kept])
