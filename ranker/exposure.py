"""What was shown, how often it was looked at, and what was clicked of it: by product, and by query and product."""

import copy
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import polars as pl
from numba.extending import register_jitable

from indexer.arrays import Array, Doubles, Ints
from indexer.machine_code import machine_code
from indexer.text import query_key
from ranker import log

NAMES = ("shown", "click_rate", "query_shown", "query_click_rate")
# How many looks weigh as much as what is known without them: of a product the rate of all, after a query its own.
_LOOKS, _QUERY_LOOKS = 10.0, 5.0
# Looks are multiples of this, so that their sums are exact: training and serving read the same bits, however many are
# folded in at once.
_UNIT = 1 / 4096
# Places of the table of queries and products at first, and at most: 24 bytes each, half of them in use.
_FIRST, _MOST = 1 << 10, 1 << 22
# Pairs that are added at a time.
_PART = 1 << 14
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class Shown(NamedTuple):
    """Products that were shown or clicked, in time order: [n] each.

    `queries` are `_query_hash`es, 0 without a query; `looks` how often the place is looked at, 0 of a click; `times` in
    Unix seconds.
    """

    rows: Ints
    queries: Array
    looks: Doubles
    clicks: Doubles
    times: Doubles

    def part(self, start: int, stop: int) -> "Shown":
        """Those from one place to before another."""
        return Shown(*(each[start:stop] for each in self))  # type: ignore[arg-type]


NOTHING = Shown(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0), np.empty(0), np.empty(0))
# Every place is looked at as often as the first.
EQUALLY: Doubles = np.ones(1)


def shown_of(events: pl.DataFrame, row_of: Mapping[str, int], shares: Doubles) -> Shown:
    """Impressions of answered requests in canonical events, and clicks on them.

    `shares` [places] is how often a place is looked at, as a share of the first; deeper ones as the last, an impression
    without a place as the first.
    """
    answered = pl.col("event_type").is_in(["impression", "click"]) & pl.col("request_id").is_not_null()
    # What is wanted of it first: the rest is text, and takes longest to be moved about.
    kept = events.filter(answered).select(
        "product_id",
        "query",
        pl.col("position").fill_null(1).clip(1, len(shares)).cast(pl.Int64),
        (pl.col("event_type") == "click").cast(pl.Float64).alias("click"),
        log.seconds(pl.col("event_time")).alias("time"),
    )
    if kept.is_empty():
        return NOTHING
    hashes = {query: _query_hash(query) for query in kept["query"].unique().drop_nulls().to_list()}
    table = (
        log.with_rows(kept, row_of)
        .select(
            "row",
            pl.col("query").replace_strict(hashes, default=0, return_dtype=pl.UInt64).fill_null(0),
            *("click", "position", "time"),
        )
        .sort("time", maintain_order=True)
    )
    clicks, places = table["click"].to_numpy(), table["position"].to_numpy()
    looks = np.where(clicks > 0, 0.0, np.round(shares[places - 1] / _UNIT) * _UNIT)
    return Shown(table["row"].to_numpy(), table["query"].to_numpy(), looks, clicks, table["time"].to_numpy())


class Exposure:
    """Looks and clicks by product row, and for each query by product row; training and serving fold them alike.

    A look is an impression times how often its place is looked at (`ranker.examination`), so that clicks over looks is
    what a product gets where it is seen: clicks over expected clicks (Zhang and Jones, WWW 2007), but for a factor.
    """

    def __init__(self, products: int, shares: Doubles = EQUALLY, log: Shown = NOTHING) -> None:
        """`log` is folded in as far as `advance` says."""
        self._shares = shares
        self._log, self._reached = log, 0
        self._looks: Doubles = np.zeros(products)
        self._clicks: Doubles = np.zeros(products)
        self._total = (0.0, 0.0)
        self._pairs = _Pairs()

    def advance(self, time: float) -> None:
        """Fold in what of the log is strictly before a time, in Unix seconds."""
        stop = int(np.searchsorted(self._log.times, time))
        if stop > self._reached:
            self._add(self._log.part(self._reached, stop))
            self._reached = stop

    def fold(self, events: pl.DataFrame, row_of: Mapping[str, int]) -> None:
        """Fold canonical events in."""
        self._add(shown_of(events, row_of, self._shares))

    def columns(self, query: str, rows: Ints) -> dict[str, Doubles]:
        """A column for each of NAMES, float64 [rows]; `query` is a query's key, or empty.

        Rates are logarithms of their ratio to the rate of all, 0 of a product that was never shown. NaN after no query.
        """
        looks, clicks = self._total
        usual = (clicks + 1.0) / (looks + 10.0)
        after = self._pairs.of(_query_hash(query, known=True), rows) if query else np.full((len(rows), 2), np.nan)
        seen, rate, then, query_rate = _rates(self._looks, self._clicks, rows, after, usual)
        # NumPy's logarithms take several numbers at a time, those of machine code one.
        return dict(zip(NAMES, (np.log1p(seen), np.log(rate), np.log1p(then), np.log(query_rate)), strict=True))

    def grown(self, products: int) -> "Exposure":
        """The same with rows for `products` products; what is folded in from now on is to be folded into this one."""
        made = copy.copy(self)
        room = np.zeros(products - len(self._looks))
        made._looks, made._clicks = (np.concatenate([each, room]) for each in (self._looks, self._clicks))
        return made

    def _add(self, new: Shown) -> None:
        if not len(new.rows):
            return
        np.add.at(self._looks, new.rows, new.looks)
        np.add.at(self._clicks, new.rows, new.clicks)
        self._total = (self._total[0] + float(new.looks.sum()), self._total[1] + float(new.clicks.sum()))
        asked = new.queries != 0
        self._pairs.add(new.queries[asked], new.rows[asked], np.column_stack([new.looks, new.clicks])[asked])


def make_ready() -> None:
    """Have what counts looks after queries compiled: else the first event of a shop without a log waits for that."""
    _Pairs().add(np.ones(1, np.uint64), np.zeros(1, np.int64), np.zeros((1, 2)))


class _Pairs:
    """Looks and clicks of each query and product: a hash table with open addressing, since there may be millions.

    At most half of its places are used. Once it is as large as it may be, what is new is not kept.
    """

    def __init__(self) -> None:
        # Keys, 0 where a place is free, and looks and clicks [places, 2]. Who reads takes both of one size.
        self._table = _empty(_FIRST)
        self._used = 0

    def add(self, queries: Array, rows: Ints, counts: Doubles) -> None:
        """Add [n, 2] looks and clicks to those of n pairs."""
        added = _keys(queries, rows)
        # In parts: there must be places as if no pair came twice, and of a whole log most do.
        for start in range(0, len(added), _PART):
            part = slice(start, start + _PART)
            self._make_room(len(added[part]))
            keys, held = self._table
            self._used += _put(keys, held, added[part], counts[part], len(keys) // 2 - self._used)

    def _make_room(self, more: int) -> None:
        while 2 * (self._used + more) > len(self._table[0]) < _MOST:
            grown = _empty(2 * len(self._table[0]))
            keys, held = self._table
            taken = keys != 0
            _put(*grown, keys[taken], held[taken], len(grown[0]))
            self._table = grown

    def of(self, query: int, rows: Ints) -> Doubles:
        """Looks and clicks of a query's products, float64 [rows, 2]."""
        keys, held = self._table
        return _found(keys, held, np.uint64(query), rows)


def _empty(places: int) -> tuple[Array, Doubles]:
    return np.zeros(places, np.uint64), np.zeros((places, 2))


def _query_hash(query: str, *, known: bool = False) -> int:
    """64 bits of a query, never 0; `known` says that it is a query's key already."""
    key = query if known else query_key(query)
    return max(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little"), 1)


@machine_code
def _keys(queries: Array, rows: Ints) -> Array:
    out = np.empty(len(rows), np.uint64)
    for i in range(len(rows)):
        out[i] = _key(queries[i], rows[i])
    return out


def _key(query: np.uint64, row: np.int64) -> np.uint64:
    """A number for a pair, never 0; two pairs have the same one once in 2^64."""
    mixed = query ^ (np.uint64(row) * _SPREAD)
    mixed = (mixed ^ (mixed >> np.uint64(31))) * _SPREAD
    return max(mixed ^ (mixed >> np.uint64(29)), np.uint64(1))


# Called rather than put above the function, whose types it would hide from the type checker.
register_jitable(_key)


@machine_code
def _put(keys: Array, held: Doubles, added: Array, counts: Doubles, room: int) -> int:
    """Add counts to those of keys; at most `room` new ones find a place. Returns how many did."""
    last = np.uint64(len(keys) - 1)
    new = 0
    for i in range(len(added)):
        place = added[i] & last
        while keys[place] != 0 and keys[place] != added[i]:
            place = (place + np.uint64(1)) & last
        if keys[place] == 0:
            if new == room:
                continue
            new += 1
            keys[place] = added[i]
        held[place, 0] += counts[i, 0]
        held[place, 1] += counts[i, 1]
    return new


@machine_code
def _found(keys: Array, held: Doubles, query: np.uint64, rows: Ints) -> Doubles:
    """Counts of a query's products, 0 of those that are not there."""
    last = np.uint64(len(keys) - 1)
    out = np.zeros((len(rows), 2))
    for i in range(len(rows)):
        wanted = _key(query, rows[i])
        place = wanted & last
        while keys[place] != 0 and keys[place] != wanted:
            place = (place + np.uint64(1)) & last
        if keys[place] != 0:
            out[i, 0] = held[place, 0]
            out[i, 1] = held[place, 1]
    return out


@machine_code
def _rates(looks: Doubles, clicks: Doubles, rows: Ints, after: Doubles, usual: float) -> Doubles:
    """Looks, click rate, looks after the query and click rate after it, [4, rows]; rates as shares of `usual`.

    `after` [rows, 2] are the looks and clicks after the query, NaN without one.
    """
    out = np.empty((4, len(rows)))
    for i in range(len(rows)):
        seen, then = looks[rows[i]], after[i, 0]
        # Clicks where no impression was ever logged say nothing of a rate.
        rate = ((clicks[rows[i]] if seen > 0 else 0.0) + _LOOKS * usual) / (seen + _LOOKS)
        query_rate = ((after[i, 1] if then > 0 else 0.0) + _QUERY_LOOKS * rate) / (then + _QUERY_LOOKS)
        out[0, i], out[1, i], out[2, i], out[3, i] = seen, rate / usual, then, query_rate / usual
    return out
