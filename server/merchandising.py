"""What rules do to a request's candidates: some move up or down, and some come first whatever the ranking says."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from indexer.arrays import Doubles, Ints, Mask
from ranker.recall import Candidates
from server.filters import rows_matching
from server.rules import Boost, typed

# What all boosts of a product together multiply at most and at least: more moves no candidate further.
_MOST, _LEAST = 1e9, 1e-9


class Drawn(NamedTuple):
    """The candidates of a request in recall's order, and the rows of the products pinned to its first places.

    Those of them that recall did not propose stand behind the others, with a score of 0 and in no channel.
    """

    found: Candidates
    pinned: Mapping[str, int] = {}


def with_pinned(found: Candidates, pins: Mapping[str, str], row_of: Mapping[str, int], kept: Mask | None) -> Drawn:
    """Candidates with the pinned products that are known and that `kept` [rows] keeps; None keeps all."""
    if not pins:
        return Drawn(found)
    rows = {product: row_of[product] for product in pins if product in row_of}
    pinned = {product: row for product, row in rows.items() if kept is None or kept[row]}
    recalled = set(found.rows.tolist())
    added = np.array([row for row in pinned.values() if row not in recalled], np.int64)
    every = np.concatenate([found.rows, added]), np.concatenate([found.scores, np.zeros(len(added))])
    return Drawn(Candidates(*every, found.channels), pinned)


def boosted(boosts: Sequence[Boost], products: pa.Table, rows: Ints) -> Ints:
    """The order of `rows`, best first, as places in them: place p counts as p / times, and equal ones stay in order."""
    times = np.ones(len(rows))
    for boost in boosts:
        times[_passing(boost, products, rows)] *= boost.times
        np.clip(times, _LEAST, _MOST, out=times)
    places: Doubles = np.arange(1, len(rows) + 1) / times
    return np.argsort(places, kind="stable")


def in_front(pinned: Sequence[int], rows: Ints) -> Ints:
    """The order of `rows`, which hold those that are `pinned`, as places in them: these come first."""
    place_of = {row: place for place, row in enumerate(rows.tolist())}
    first = [place_of[row] for row in pinned]
    rest = np.delete(np.arange(len(rows)), first)
    return np.concatenate([np.array(first, np.int64), rest])


def _passing(boost: Boost, products: pa.Table, rows: Ints) -> Mask:
    """bool [rows]: looked up in these alone, which are few."""
    columns = list({column: None for column, _ in typed(boost.where)})
    return rows_matching(boost.where, products.select(columns).take(pa.array(rows)))
