"""A user's history as a value: a pure function folds one engagement after the other into it."""

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

# Engagements kept of one user. A wholesale customer buys hundreds of products and buys them again.
LONGEST = 1_000

# A rating below the positive ones is a dislike; it is no part of the history, but kept beside it.
VIEW, CLICK, ADD_TO_CART, PURCHASE, RATING, RETURN, DISLIKE = range(1, 8)
KINDS = {
    "view": VIEW,
    "click": CLICK,
    "add_to_cart": ADD_TO_CART,
    "purchase": PURCHASE,
    "rating": RATING,
    "return": RETURN,
}


class Engagement(NamedTuple):
    """What one user did with one product (its row) at a time (Unix seconds), after a query (its key) or none."""

    user: str | None
    row: int
    kind: int
    time: float
    query: str = ""


class History(NamedTuple):
    """Engagements in time order, newest last; three tuples of one length."""

    rows: tuple[int, ...] = ()
    kinds: tuple[int, ...] = ()
    times: tuple[float, ...] = ()


EMPTY = History()


def fold(history: History, event: Engagement) -> History:
    """The history after `event`.

    An engagement that arrives late takes its place by time, so the order of arrival does not matter; those of one time
    stay in the order of arrival. A return takes out the latest purchase of its product, if it is there by then.
    """
    if event.kind == RETURN:
        return _without_purchase(history, event.row)
    place = bisect_right(history.times, event.time)
    rows, kinds, times = history
    return History(
        (*rows[:place], event.row, *rows[place:])[-LONGEST:],
        (*kinds[:place], event.kind, *kinds[place:])[-LONGEST:],
        (*times[:place], event.time, *times[place:])[-LONGEST:],
    )


def viewed(history: History, rows: Iterable[int], now: float) -> History:
    """The history after looking at `rows` in turn, just now: the products a request brings along."""
    for row in rows:
        history = fold(history, Engagement(None, row, VIEW, now))
    return history


def _without_purchase(history: History, row: int) -> History:
    for place in range(len(history.rows) - 1, -1, -1):
        if history.rows[place] == row and history.kinds[place] == PURCHASE:
            rows, kinds, times = history
            after = place + 1
            return History(rows[:place] + rows[after:], kinds[:place] + kinds[after:], times[:place] + times[after:])
    return history
