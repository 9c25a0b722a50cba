"""A user's history as a value: a pure function folds one engagement after the other into it."""

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Iterable
from operator import itemgetter
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


def fold_all(
    history: History, rows: Iterable[int], kinds: Iterable[int], times: Iterable[float]
) -> tuple[History, list[bool]]:
    """The history after several events in turn, as `fold` makes it, and which of them met their product in it."""
    # Events in a list that changes in place: `fold` copies the whole history each time.
    kept = list(zip(*history, strict=True))
    held = Counter(history.rows)
    met = []
    for event in zip(rows, kinds, times, strict=True):
        row, kind, time = event
        count = held.get(row, 0)
        met.append(count > 0)
        if kind == RETURN:
            places = range(len(kept) - 1, -1, -1) if count else ()
            gone = next((place for place in places if kept[place][0] == row and kept[place][1] == PURCHASE), None)
            if gone is None:
                continue
        else:
            if kept and time < kept[-1][2]:
                insort(kept, event, key=itemgetter(2))
            else:
                kept.append(event)
            held[row] = count + 1
            if len(kept) <= LONGEST:
                continue
            gone = 0
        held[kept.pop(gone)[0]] -= 1
    return History(*zip(*kept, strict=True)) if kept else EMPTY, met


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
