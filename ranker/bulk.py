"""A long log folded user by user and query by query: to the last bit what it makes event by event, in far less time."""

from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl

from indexer.arrays import Ints, Mask
from ranker.history import EMPTY, LONGEST, RETURN, History, fold_all

T = TypeVar("T")


class Engaged(NamedTuple):
    """Histories after a log, in the order in which their users first appear in it, and the rows of what it engages
    with, returns aside: where the product was not in the user's history by then, and where it was.
    """

    histories: dict[str, History]
    first: Ints
    repeated: Ints


class Asked(NamedTuple):
    """What `ranker.behaviour` remembers of queries: the weight of what was engaged with, by row; who asked, while they
    are few; and the whole weight of those that are shared.
    """

    queries: dict[str, dict[int, float]]
    askers: dict[str, set[str]]
    shared: dict[str, float]


class _Groups(NamedTuple):
    """Events put together by what they have in common, in the order of first appearance, those of a group in their own.

    Group i is named `names[i]` and lies at `spans[i]` of each of the columns.
    """

    names: list[str]
    spans: list[slice]
    columns: list[pl.Series]


def by_user(found: pl.DataFrame, known: Mapping[str, History]) -> Engaged:
    """Fold engagements (columns user_id, row, kind, time; in time order) into the histories of their users."""
    found = found.filter(pl.col("user_id").is_not_null())
    users = _grouped(found, "user_id", "row", "kind", "time")
    rows, kinds, times = (column.to_numpy() for column in users.columns)
    engaged = kinds != RETURN
    returning = set(found.filter(pl.col("kind") == RETURN)["user_id"])
    repeated = _repeated(users.spans, rows)
    histories = {}
    for user, span in zip(users.names, users.spans, strict=True):
        if user in known or user in returning:
            events = rows[span].tolist(), kinds[span].tolist(), times[span].tolist()
            histories[user], repeated[span] = fold_all(known.get(user, EMPTY), *events)
        else:
            last = slice(max(span.start, span.stop - LONGEST), span.stop)
            kept = rows[last].tolist(), kinds[last].tolist(), times[last].tolist()
            histories[user] = History(*map(tuple, kept))
    return Engaged(histories, rows[engaged & ~repeated], rows[engaged & repeated])


def by_query(found: pl.DataFrame, known: Asked, enough: int) -> Asked:
    """Fold engagements (columns user_id, row, query, weight; each after a query) into what is known of their queries.

    A query is shared as soon as `enough` users asked it. Returned is what changes: what is shared now has no askers any
    longer.
    """
    groups = _grouped(found.with_row_index("place"), "query", "place", "user_id", "row", "weight")
    columns = [column.to_list() for column in groups.columns]
    never = len(found)
    queries: dict[str, dict[int, float]] = {}
    # With the places in the log at which they came.
    askers: dict[str, tuple[int, set[str]]] = {}
    shared: dict[str, tuple[int, float]] = {}
    for query, span in zip(groups.names, groups.spans, strict=True):
        after = dict(known.queries.get(query, {}))
        users, total = set(known.askers.get(query, ())), known.shared.get(query)
        asked = told = never
        for place, user, row, weight in zip(*(column[span] for column in columns), strict=True):
            after[row] = after.get(row, 0.0) + weight
            if total is not None:
                total += weight
            elif user is not None:
                asked = min(asked, place)
                users.add(user)
                if len(users) == enough:
                    told, total = place, sum(after.values())
        queries[query] = after
        if total is not None:
            shared[query] = told, total
        elif asked < never:
            askers[query] = asked, users
    return Asked(queries, _in_order(askers), _in_order(shared))


def _grouped(found: pl.DataFrame, name: str, *columns: str) -> _Groups:
    groups = found.group_by(name, maintain_order=True).agg(*columns)
    ends = list(accumulate(groups[columns[0]].list.len().to_list()))
    # `map` stops with the shorter one.
    spans = list(map(slice, [0, *ends], ends))
    return _Groups(groups[name].to_list(), spans, [groups[column].explode() for column in columns])


def _repeated(spans: list[slice], rows: Ints) -> Mask:
    """Which engagements are with a product that is among the LONGEST before it, of the same user; `rows` [events]."""
    lengths = [span.stop - span.start for span in spans]
    pairs = np.repeat(np.arange(len(spans)), lengths) * (rows.max(initial=0) + 1) + rows
    order = np.argsort(pairs, kind="stable")
    repeated = np.zeros(len(rows), np.bool_)
    repeated[order[1:]] = (np.diff(pairs[order]) == 0) & (np.diff(order) <= LONGEST)
    return repeated


def _in_order(placed: Mapping[str, tuple[int, T]]) -> dict[str, T]:
    return {key: value for key, (_, value) in sorted(placed.items(), key=lambda each: each[1][0])}
