"""Candidates for a request: channels, fused by weighted reciprocal rank. Training and serving draw lists here."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from indexer.amended import MOST_LOST
from indexer.arrays import Doubles, Floats, Ints, Mask
from indexer.index import NOTHING, Searchable
from indexer.lexical import LexicalIndex
from ranker.behaviour import LATELY, MONTH, Behaviour
from ranker.covisited import Covisited
from ranker.features import Context
from ranker.history import History

# The constant of reciprocal-rank fusion, 60 in Cormack et al., SIGIR 2009. By query a smaller one is better: of two
# channels one may be at sea (an English encoder before Chinese titles), and then its long tail outvotes the other's
# first places. Home Depot, first 10: 0.525 of the relevant found where 60 finds 0.512; first 100: no difference.
_RRF = {"query": 10.0, "user": 60.0}

# What a channel's reciprocal ranks count; a channel that is not named counts 1.
Weights = Mapping[str, float]


class Channel(NamedTuple):
    """What one channel proposes: rows best first and its own scores."""

    name: str
    rows: Ints
    scores: Doubles


class Candidates(NamedTuple):
    """Distinct rows, best first by `scores` (reciprocal-rank fusion), and the channels they came from."""

    rows: Ints
    scores: Doubles
    channels: Sequence[Channel]


class Retrieval(NamedTuple):
    """What the channels search, how many candidates are kept, and the weights of the channels by kind of request."""

    titles: Searchable
    lexical: LexicalIndex
    products: Searchable
    covisited: Covisited
    candidates: int
    weights: Mapping[str, Weights]

    def channels(self, context: Context, behaviour: Behaviour, mask: Mask | None = None) -> list[Channel]:
        """What each channel proposes for one request."""
        [near] = self._near([context], [mask], [None])
        return self._channels(context, behaviour, mask, near)

    def recall(self, context: Context, behaviour: Behaviour, mask: Mask | None = None) -> Candidates:
        """The fused candidates of one request."""
        [found] = self.recall_each([context], behaviour, [mask])
        return found

    def recall_each(
        self,
        contexts: Sequence[Context],
        behaviour: Behaviour,
        masks: Sequence[Mask | None],
        listed: Sequence[Mask | None] = (),
    ) -> list[Candidates]:
        """The fused candidates of each request of a batch: one search for the vectors of all.

        Where a request has no mask, only rows that are `listed` for it, which are nearly all; the masks keep none but
        such themselves.
        """
        listed = listed or [None] * len(contexts)
        made = zip(contexts, masks, listed, self._near(contexts, masks, listed), strict=True)
        return [
            fuse(
                self._channels(context, behaviour, shown if mask is None else mask, near),
                self.candidates,
                self.weights.get(kind_of(context)),
                kind_of(context),
            )
            for context, mask, shown, near in made
        ]

    def _near(
        self, contexts: Sequence[Context], masks: Sequence[Mask | None], listed: Sequence[Mask | None]
    ) -> list[Channel | None]:
        """What is near each request's vector: titles near a query's, products near a user's; None without a vector."""
        near: list[Channel | None] = [None] * len(contexts)
        queries = {place: each.query_vector for place, each in enumerate(contexts) if each.query_vector is not None}
        users = {
            place: each.user_vector
            for place, each in enumerate(contexts)
            if each.user_vector is not None and place not in queries
        }
        for name, index, vectors in (("dense", self.titles, queries), ("user", self.products, users)):
            mine, shown = ([each[place] for place in vectors] for each in (masks, listed))
            found = for_vectors(index, list(vectors.values()), self.candidates, mine, name, shown)
            for place, channel in zip(vectors, found, strict=True):
                near[place] = channel
        return near

    def _channels(
        self, context: Context, behaviour: Behaviour, mask: Mask | None, near: Channel | None
    ) -> list[Channel]:
        first = [] if near is None else [near]
        if context.query_vector is None:
            return first + for_user(self.covisited, behaviour, context, self.candidates, mask)
        return first + for_query(self.lexical, behaviour, context, self.candidates, mask)


def kind_of(context: Context) -> str:
    """What a request asks by: `query` or `user`."""
    return "user" if context.query_vector is None else "query"


def for_query(
    lexical: LexicalIndex, behaviour: Behaviour, context: Context, k: int, mask: Mask | None
) -> list[Channel]:
    """The channels of a query beside its vector's: titles that share its words, and what it led to before.

    A query without text (only a vector was given) has none.
    """
    channels = []
    if context.query:
        matches = lexical.search(context.query, k, mask)
        channels.append(Channel("lexical", matches.rows, matches.scores))
    if after := behaviour.after_query(context.query_key):
        rows = np.fromiter(after, np.int64, len(after))
        channels.append(_best("engaged", rows, np.fromiter(after.values(), np.float64, len(after)), k, mask))
    return channels


def for_user(covisited: Covisited, behaviour: Behaviour, context: Context, k: int, mask: Mask | None) -> list[Channel]:
    """The channels of a user beside its vector's: visited together with the history, the history itself, and for all.

    For a stranger only what is popular and what is trending is left.
    """
    channels = []
    if context.history.rows:
        channels.append(for_neighbours(covisited, context.history, k, mask))
        channels.append(for_history(context.history, k, mask))
    popular = for_everyone(behaviour, context.now, k, mask, "popular", MONTH)
    return [*channels, popular, for_everyone(behaviour, context.now, k, mask, "trending", LATELY)]


def for_vectors(
    index: Searchable,
    vectors: Sequence[Floats],
    k: int,
    masks: Sequence[Mask | None],
    name: str,
    listed: Sequence[Mask | None] = (),
) -> list[Channel]:
    """For each of `vectors` [dimensions], the k products of `index` nearest to it, by one search.

    What is not `listed` is left out where there is no mask. That is done afterwards, since a search under a mask that
    keeps nearly all takes longer than one without: only for those that lose much by it there is a second search.
    """
    if not vectors:
        return []
    found = _nearest(index, vectors, k, masks, name)
    poor = {}
    for place, (mask, shown) in enumerate(zip(masks, listed, strict=False)):
        if mask is not None or shown is None:
            continue
        before = found[place]
        kept = shown[before.rows]
        found[place] = Channel(name, before.rows[kept], before.scores[kept])
        if len(found[place].rows) < (1 - MOST_LOST) * len(before.rows):
            poor[place] = shown
    again = _nearest(index, [vectors[place] for place in poor], k, list(poor.values()), name) if poor else []
    for place, channel in zip(poor, again, strict=True):
        found[place] = channel
    return found


def _nearest(
    index: Searchable, vectors: Sequence[Floats], k: int, masks: Sequence[Mask | None], name: str
) -> list[Channel]:
    found = index.search_each(np.array(vectors, np.float32), k, masks)
    kept = found.rows != NOTHING
    return [
        Channel(name, rows[there], scores[there].astype(np.float64))
        for rows, scores, there in zip(found.rows, found.scores, kept, strict=True)
    ]


def for_neighbours(covisited: Covisited, history: History, k: int, mask: Mask | None) -> Channel:
    """The products most visited together with the newest of a history, itself left out."""
    found, weights = covisited.spread(history)
    rows, where = np.unique(found, return_inverse=True)
    scores = np.bincount(where, weights, minlength=len(rows)).astype(np.float64)
    fresh = ~np.isin(rows, history.rows)
    return _best("covisited", rows[fresh], scores[fresh], k, mask)


def for_history(history: History, k: int, mask: Mask | None) -> Channel:
    """The products a user engaged with, most often first and, among equals, latest first."""
    rows, where, counts = np.unique(np.array(history.rows, np.int64), return_inverse=True, return_counts=True)
    last = np.zeros(len(rows))
    np.maximum.at(last, where, np.array(history.times))
    order = np.lexsort((rows, -last, -counts))
    if mask is not None:
        order = order[mask[rows[order]]]
    return Channel("history", rows[order][:k], counts[order][:k].astype(np.float64))


def for_everyone(behaviour: Behaviour, now: float, k: int, mask: Mask | None, name: str, lifetime: int) -> Channel:
    """The most popular products, by the counts of one of `behaviour.LIFETIMES`."""
    rows = behaviour.most_popular(k, mask, lifetime)
    return Channel(name, rows, behaviour.popularity(rows, now)[lifetime])


def fuse(channels: Sequence[Channel], k: int, weights: Weights | None = None, kind: str = "user") -> Candidates:
    """At most k distinct rows by weighted reciprocal-rank fusion: the sum of w / (c + rank) over the channels.

    c is 10 for a request by query, 60 for one by user. Equal sums, above all those of a channel that weighs 0, are in
    the order of the unweighted ones.
    """
    weights = weights or {}
    rows = np.concatenate([channel.rows for channel in channels]) if channels else np.empty(0, np.int64)
    ranks = [1.0 / (_RRF[kind] + np.arange(1, len(c.rows) + 1)) for c in channels]
    parts = [weights.get(c.name, 1.0) * rank for c, rank in zip(channels, ranks, strict=True)]
    distinct, where = np.unique(rows, return_inverse=True)
    scores, plain = (
        np.bincount(where, np.concatenate(shares) if shares else [], minlength=len(distinct)).astype(np.float64)
        for shares in (parts, ranks)
    )
    order = np.lexsort((distinct, -plain, -scores))[:k]
    return Candidates(distinct[order], scores[order], channels)


def _best(name: str, rows: Ints, scores: Doubles, k: int, mask: Mask | None) -> Channel:
    if mask is not None:
        rows, scores = rows[mask[rows]], scores[mask[rows]]
    order = np.lexsort((rows, -scores))[:k]
    return Channel(name, rows[order], scores[order])
