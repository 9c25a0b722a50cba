"""What all users have done up to now: histories and product popularity. Training and serving fold it alike."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import polars as pl

from indexer.arrays import Doubles, Ints, Mask
from ranker.bulk import Asked, by_query, by_user
from ranker.exposure import Exposure
from ranker.history import (
    ADD_TO_CART,
    CLICK,
    DISLIKE,
    EMPTY,
    PURCHASE,
    RATING,
    RETURN,
    VIEW,
    Engagement,
    History,
    fold,
)

_DAY = 86_400.0
# Mean lifetimes of an engagement in the popularity counters, in days.
LIFETIMES = (3.0, 10.0, 30.0, 120.0)
# The lifetimes by which products are called popular, and trending.
MONTH, LATELY = LIFETIMES.index(30.0), LIFETIMES.index(3.0)
_WEIGHTS = {VIEW: 0.2, CLICK: 1.0, ADD_TO_CART: 2.0, PURCHASE: 4.0, RATING: 4.0}
# By the number of a kind: the same, NaN where it counts nothing, and its logarithm (NumPy's may end in another bit).
_WEIGHT_OF: Doubles = np.array([_WEIGHTS.get(kind, np.nan) for kind in range(DISLIKE + 1)])
_LOG_OF: Doubles = np.array([math.log(weight) for weight in _WEIGHT_OF])
_LIFETIME_SECONDS = np.array(LIFETIMES) * _DAY
# Under a mask so many times as many of the most popular are looked through first.
_WIDER = 4
# Queries whose engagements are remembered: those that led to something last. And so many are shared at most.
_MOST_QUERIES = 200_000
# The arrays by product row, and what stands there of a product that nobody engaged with.
_BY_ROW = {
    "counts": -np.inf,
    "first_time": np.inf,
    **dict.fromkeys(("users_of", "repeats", "purchases", "returns", "likes", "dislikes"), 0.0),
}
# Users that must have been led somewhere by a query before it is told to others: what one person typed may be private.
ASKERS = 3


class Behaviour:
    """Histories by user, counts by product row, and what was engaged with after each query.

    A popularity count is kept as the logarithm of its value at the epoch, L = log(sum of w exp(t / lifetime)): its
    value at any later `now` is exp(L - now / lifetime), folding is commutative, and the order of products does not
    change with time.
    """

    def __init__(self, products: int, exposure: Exposure | None = None) -> None:
        # What was shown to whoever it was, and clicked of it.
        self.exposure = exposure or Exposure(products)
        self.users: dict[str, History] = {}
        # What a user rated low: the engagements of these histories are dislikes.
        self.dislikers: dict[str, History] = {}
        self.counts: Doubles = np.full((len(LIFETIMES), products), -np.inf)
        self.first_time: Doubles = np.full(products, np.inf)
        # By product row: users who engaged with it, engagements of users who had engaged with it before, purchases,
        # returns, and ratings high and low.
        self.users_of: Doubles = np.zeros(products)
        self.repeats: Doubles = np.zeros(products)
        self.purchases: Doubles = np.zeros(products)
        self.returns: Doubles = np.zeros(products)
        self.likes: Doubles = np.zeros(products)
        self.dislikes: Doubles = np.zeros(products)
        self.total_likes = self.total_dislikes = 0
        self.queries: dict[str, dict[int, float]] = {}
        # The same, the one that led to something last at the end. Not the order of `queries`: who reads one while it is
        # put at the end would not find it.
        self._in_turn: dict[str, None] = {}
        # Who asked a query, while they are fewer than ASKERS; then it is shared, and nobody's name is kept with it.
        self.askers: dict[str, set[str]] = {}
        self.shared: dict[str, float] = {}
        self.last_time = -math.inf
        # How often something was folded in, and the orders that were asked for, each with the count it was made at:
        # between two events everybody is told the same.
        self._folded = 0
        # Whether there is one with more rows, to which new engagements go.
        self._outgrown = False
        self._orders: dict[tuple[int, int], tuple[int, Ints]] = {}

    def apply(self, event: Engagement) -> None:
        """Fold one engagement in."""
        if (weight := self._noted(event)) is not None:
            self.first_time[event.row] = min(self.first_time[event.row], event.time)
            stamps = math.log(weight) + event.time / _LIFETIME_SECONDS
            self.counts[:, event.row] = np.logaddexp(self.counts[:, event.row], stamps)
            # Last, so that what is read meanwhile does not count as new.
            self._folded += 1

    def apply_all(self, events: Iterable[Engagement]) -> None:
        """Fold engagements in, one after the other; to the last bit what `apply` makes of them, in half the time."""
        weighed = [(event.row, event.time, weight) for event in events if (weight := self._noted(event)) is not None]
        if not weighed:
            return
        rows = np.array([row for row, _, _ in weighed], np.int64)
        times = np.array([time for _, time, _ in weighed])
        self._count(rows, times, np.array([math.log(weight) for _, _, weight in weighed]))

    def apply_frame(self, found: pl.DataFrame) -> None:
        """Fold `ranker.log.engagements` in; to the last bit what `apply` makes of them.

        Several times as fast as `apply_all` where they are many, and slower where they are few.
        """
        if found.is_empty():
            return
        rows, kinds, times = (found[name].to_numpy() for name in ("row", "kind", "time"))
        self.last_time = max(self.last_time, float(times[-1]))
        self.dislikers.update(by_user(found.filter(kinds == DISLIKE), self.dislikers).histories)
        engaged = by_user(found.filter(kinds != DISLIKE), self.users)
        self.users.update(engaged.histories)
        np.add.at(self.users_of, engaged.first, 1.0)
        np.add.at(self.repeats, engaged.repeated, 1.0)
        counted = {DISLIKE: self.dislikes, RATING: self.likes, PURCHASE: self.purchases, RETURN: self.returns}
        for kind, by_row in counted.items():
            np.add.at(by_row, rows[kinds == kind], 1.0)
        self.total_dislikes += int((kinds == DISLIKE).sum())
        self.total_likes += int((kinds == RATING).sum())
        weights = _WEIGHT_OF[kinds]
        weighed = ~np.isnan(weights)
        self._note_queries(found.with_columns(weight=weights).filter(weighed).filter(pl.col("query") != ""))
        if weighed.any():
            self._count(rows[weighed], times[weighed], _LOG_OF[kinds[weighed]])

    def _note_queries(self, led: pl.DataFrame) -> None:
        """Fold in what engagements that have a query and a `weight` say of their queries."""
        last = led["query"].reverse().unique(maintain_order=True).reverse()
        if max(len(self.queries), len(self.shared)) + len(last) > _MOST_QUERIES:
            # One by one: which query makes room for which depends on the order.
            for each in led.select("query", "user_id", "row", "weight").iter_rows():
                self._note_query(*each)
            return
        asked = by_query(led, Asked(self.queries, self.askers, self.shared), ASKERS)
        self.queries.update(asked.queries)
        self.askers.update(asked.askers)
        self.shared.update(asked.shared)
        for query in asked.shared:
            self.askers.pop(query, None)
        for query in last.to_list():
            self._put_last(query)

    def _count(self, rows: Ints, times: Doubles, logs: Doubles) -> None:
        """Fold engagements, in turn, into the popularity of their products; `logs` of their weights: [events] each."""
        # `at` takes equal rows in turn.
        np.minimum.at(self.first_time, rows, times)
        for counts, lifetime in zip(self.counts, _LIFETIME_SECONDS, strict=True):
            np.logaddexp.at(counts, rows, logs + times / lifetime)
        # Last, so that what is read meanwhile does not count as new.
        self._folded += 1

    def _noted(self, event: Engagement) -> float | None:
        """Fold in all but the popularity of the product; returns what the engagement counts there, None for nothing."""
        row = event.row
        self.last_time = max(self.last_time, event.time)
        if event.kind == DISLIKE:
            self.dislikes[row] += 1.0
            self.total_dislikes += 1
            if event.user is not None:
                disliked = self.dislikers.get(event.user, EMPTY)
                self.dislikers[event.user] = fold(disliked, event)
            return None
        if event.user is not None:
            history = self.users.get(event.user, EMPTY)
            if event.kind != RETURN:
                (self.repeats if row in history.rows else self.users_of)[row] += 1.0
            self.users[event.user] = fold(history, event)
        self.likes[row] += event.kind == RATING
        self.total_likes += event.kind == RATING
        self.purchases[row] += event.kind == PURCHASE
        self.returns[row] += event.kind == RETURN
        weight = _WEIGHTS.get(event.kind)
        if weight is not None and event.query:
            self._note_query(event.query, event.user, row, weight)
        return weight

    def _note_query(self, query: str, user: str | None, row: int, weight: float) -> None:
        if query not in self.queries and len(self.queries) >= _MOST_QUERIES:
            oldest = next(iter(self._in_turn))
            del self._in_turn[oldest], self.queries[oldest]
            self.askers.pop(oldest, None)
        after = self.queries.setdefault(query, {})
        after[row] = after.get(row, 0.0) + weight
        self._put_last(query)
        self._note_asker(query, user, weight)

    def _put_last(self, query: str) -> None:
        self._in_turn.pop(query, None)
        self._in_turn[query] = None

    def _note_asker(self, query: str, user: str | None, weight: float) -> None:
        if query in self.shared:
            self.shared[query] += weight
        elif user is not None and len(self.shared) < _MOST_QUERIES:
            askers = self.askers.setdefault(query, set())
            askers.add(user)
            if len(askers) == ASKERS:
                self.shared[query] = sum(self.queries[query].values())
                del self.askers[query]

    def forget(self, erased: Callable[[str], bool]) -> None:
        """Drop the histories of users of whom `erased` is true.

        What they added to the counts of all stays: nothing in it says whose it was.
        """
        # Copies, since other threads read and fold meanwhile. Whoever asked something engaged with something, too.
        gone = {user for user in {*list(self.users), *list(self.dislikers)} if erased(user)}
        for user in gone:
            self.users.pop(user, None)
            self.dislikers.pop(user, None)
        for askers in list(self.askers.values()):
            askers.difference_update(gone)

    def grown(self, products: int) -> "Behaviour":
        """The same with rows for `products` products, of which the further ones have seen nothing yet.

        Users and queries are shared: what is folded in from now on is to be folded into this one. Who still reads the
        old one is told of no row that it does not have.
        """
        if products == len(self.first_time):
            return self
        made = copy.copy(self)
        for name, blank in _BY_ROW.items():
            array = getattr(self, name)
            room = np.full((*array.shape[:-1], products - array.shape[-1]), blank)
            setattr(made, name, np.concatenate([array, room], axis=-1))
        made.exposure = self.exposure.grown(products)
        made._orders = {}
        self._outgrown = True
        return made

    def history(self, user: str | None) -> History:
        """The history of a user; empty where nothing is known."""
        return self._own(self.users.get(user, EMPTY)) if user is not None else EMPTY

    def disliked(self, user: str | None) -> History:
        """What a user rated low; empty where nothing is known."""
        return self._own(self.dislikers.get(user, EMPTY)) if user is not None else EMPTY

    def _own(self, history: History) -> History:
        """A history as far as its products have a row here."""
        if not self._outgrown or max(history.rows, default=-1) < len(self.first_time):
            return history
        kept = [each for each in zip(*history, strict=True) if each[0] < len(self.first_time)]
        return History(*zip(*kept, strict=True)) if kept else EMPTY

    def after_query(self, query: str) -> Mapping[int, float]:
        """Weight of the engagements that followed this very query (normalised, folded), by product row."""
        after = self.queries.get(query, {})
        if not self._outgrown:
            return after
        # A copy is made at once, while what is walked through may grow meanwhile.
        return {row: weight for row, weight in dict(after).items() if row < len(self.first_time)}

    def popularity(self, rows: Ints, now: float) -> Doubles:
        """log(1 + decayed count) at `now` (Unix seconds), float64 [lifetimes, rows]."""
        ages = now / _LIFETIME_SECONDS[:, None]
        return np.asarray(np.logaddexp(0.0, self.counts[:, rows] - ages), np.float64)

    def most_popular(self, k: int, mask: Mask | None = None, lifetime: int = MONTH) -> Ints:
        """At most k rows that were engaged with at all, most popular first; `lifetime` is a place of LIFETIMES."""
        if mask is None:
            return self._of_all(k, lifetime)
        # Most masks keep enough of these, which are in order between two events; to order what a mask keeps takes long.
        first = self._of_all(k * _WIDER, lifetime)
        kept = first[mask[first]][:k]
        return kept if len(kept) == k or len(first) < k * _WIDER else self._ordered(k, mask, lifetime)

    def _of_all(self, k: int, lifetime: int) -> Ints:
        folded = self._folded
        made_at, rows = self._orders.get((k, lifetime), (-1, None))
        if rows is None or made_at != folded:
            rows = self._ordered(k, None, lifetime)
            rows.setflags(write=False)
            self._orders[k, lifetime] = folded, rows
        return rows

    def _ordered(self, k: int, mask: Mask | None, lifetime: int) -> Ints:
        counts = self.counts[lifetime]
        rows = np.flatnonzero(np.isfinite(counts) if mask is None else np.isfinite(counts) & mask)
        if len(rows) > k:
            rows = rows[np.argpartition(-counts[rows], k - 1)[:k]]
        return rows[np.lexsort((rows, -counts[rows]))]
