"""Candidates for a request: recall channels, fused by reciprocal rank. Training and serving draw lists from here."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexer.arrays import Doubles, Floats, Ints, Mask
from indexer.index import NOTHING, Index
from ranker.behaviour import Behaviour
from ranker.history import History

# The constant of reciprocal-rank fusion (Cormack et al., SIGIR 2009).
_RRF = 60.0


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


def for_vector(index: Index, vector: Floats, k: int, mask: Mask | None, name: str = "dense") -> Channel:
    """The k products of `index` nearest to `vector` [dimensions]."""
    found = index.search(np.asarray(vector, np.float32)[None], k, mask)
    kept = found.rows[0] != NOTHING
    return Channel(name, found.rows[0][kept], found.scores[0][kept].astype(np.float64))


def for_history(history: History, k: int, mask: Mask | None) -> Channel:
    """The products a user engaged with, most often first and, among equals, latest first."""
    rows, counts = np.unique(np.array(history.rows, np.int64), return_counts=True)
    last = dict(zip(history.rows, history.times, strict=True))
    order = sorted(range(len(rows)), key=lambda i: (-counts[i], -last[int(rows[i])]))
    ranked, scores = rows[order], counts[order].astype(np.float64)
    if mask is not None:
        ranked, scores = ranked[mask[ranked]], scores[mask[ranked]]
    return Channel("history", ranked[:k], scores[:k])


def for_everyone(behaviour: Behaviour, now: float, k: int, mask: Mask | None) -> Channel:
    """The most popular products."""
    rows = behaviour.most_popular(k, mask)
    return Channel("popular", rows, behaviour.popularity(rows, now)[-1])


def for_user(
    products: Index,
    behaviour: Behaviour,
    history: History,
    user_vector: Floats | None,
    now: float,
    k: int,
    mask: Mask | None,
) -> Candidates:
    """At most k candidates: near the user vector, engaged with before, and popular; for a stranger all are popular."""
    if user_vector is None and not history.rows:
        return fuse([for_everyone(behaviour, now, k, mask)], k)
    channels = [for_history(history, k // 2, mask), for_everyone(behaviour, now, k // 2, mask)]
    if user_vector is not None:
        channels.insert(0, for_vector(products, user_vector, k, mask, "user"))
    return fuse(channels, k)


def fuse(channels: Sequence[Channel], k: int) -> Candidates:
    """At most k distinct rows by reciprocal-rank fusion: the sum of 1 / (60 + rank) over the channels."""
    rows = np.concatenate([channel.rows for channel in channels]) if channels else np.empty(0, np.int64)
    ranks = np.concatenate([np.arange(1, len(channel.rows) + 1) for channel in channels]) if channels else rows
    distinct, where = np.unique(rows, return_inverse=True)
    scores = np.bincount(where, 1.0 / (_RRF + ranks), minlength=len(distinct)).astype(np.float64)
    order = np.lexsort((distinct, -scores))[:k]
    return Candidates(distinct[order], scores[order], channels)
