"""What all users have done up to now: histories and product popularity. Training and serving fold it alike."""

import math
from collections.abc import Iterable

import numpy as np

from indexer.arrays import Doubles, Ints, Mask
from ranker.history import ADD_TO_CART, CLICK, EMPTY, PURCHASE, RATING, VIEW, Engagement, History, fold

_DAY = 86_400.0
# Mean lifetimes of an engagement in the two popularity counters, in days.
LIFETIMES = (7.0, 30.0)
_WEIGHTS = {VIEW: 0.2, CLICK: 1.0, ADD_TO_CART: 2.0, PURCHASE: 4.0, RATING: 4.0}


class Behaviour:
    """Histories by user, and exponentially decayed counts by product row.

    A count is kept as the logarithm of its value at the epoch, L = log(sum of w exp(t / lifetime)): its value at any
    later `now` is exp(L - now / lifetime), folding is commutative, and the order of products does not change with time.
    """

    def __init__(self, products: int) -> None:
        self.users: dict[str, History] = {}
        self.counts: Doubles = np.full((len(LIFETIMES), products), -np.inf)
        self.last_time = -math.inf

    def apply(self, event: Engagement) -> None:
        """Fold one engagement in."""
        if event.user is not None:
            self.users[event.user] = fold(self.users.get(event.user, EMPTY), event)
        self.last_time = max(self.last_time, event.time)
        weight = _WEIGHTS.get(event.kind)
        if weight is None:
            return
        for i, lifetime in enumerate(LIFETIMES):
            stamp = math.log(weight) + event.time / (lifetime * _DAY)
            self.counts[i, event.row] = np.logaddexp(self.counts[i, event.row], stamp)

    def apply_all(self, events: Iterable[Engagement]) -> None:
        """Fold engagements in, one after the other."""
        for event in events:
            self.apply(event)

    def history(self, user: str | None) -> History:
        """The history of a user; empty where nothing is known."""
        return self.users.get(user, EMPTY) if user is not None else EMPTY

    def popularity(self, rows: Ints, now: float) -> Doubles:
        """log(1 + decayed count) at `now` (Unix seconds), float64 [lifetimes, rows]."""
        ages = np.array([[now / (lifetime * _DAY)] for lifetime in LIFETIMES])
        return np.asarray(np.logaddexp(0.0, self.counts[:, rows] - ages), np.float64)

    def most_popular(self, k: int, mask: Mask | None = None) -> Ints:
        """At most k rows that were engaged with at all, most popular over the longer lifetime first."""
        counts = self.counts[-1]
        rows = np.flatnonzero(np.isfinite(counts) if mask is None else np.isfinite(counts) & mask)
        if len(rows) > k:
            rows = rows[np.argpartition(-counts[rows], k - 1)[:k]]
        return rows[np.lexsort((rows, -counts[rows]))]
