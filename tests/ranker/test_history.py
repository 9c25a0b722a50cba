"""Folding: pure, bounded, and indifferent to the order of arrival."""

import numpy as np
import pytest

from ranker.history import (
    CLICK,
    EMPTY,
    LONGEST,
    PURCHASE,
    RETURN,
    VIEW,
    Engagement,
    History,
    fold,
    viewed,
)


def folded(*events: Engagement) -> History:
    history = EMPTY
    for event in events:
        history = fold(history, event)
    return history


def test_newest_comes_last() -> None:
    history = folded(Engagement("u", 3, VIEW, 10.0), Engagement("u", 5, PURCHASE, 20.0))
    assert history == History((3, 5), (VIEW, PURCHASE), (10.0, 20.0))


def test_late_event_takes_its_place() -> None:
    history = folded(Engagement("u", 1, VIEW, 10.0), Engagement("u", 3, VIEW, 30.0), Engagement("u", 2, CLICK, 20.0))
    assert history == History((1, 2, 3), (VIEW, CLICK, VIEW), (10.0, 20.0, 30.0))


def test_equal_times_stay_in_order_of_arrival() -> None:
    assert folded(*(Engagement("u", row, VIEW, 10.0) for row in (4, 2, 3))).rows == (4, 2, 3)


def test_fold_leaves_its_arguments_alone() -> None:
    before = History((1, 2), (PURCHASE, VIEW), (1.0, 2.0))
    for event in (Engagement("u", 9, VIEW, 1.5), Engagement("u", 1, RETURN, 3.0)):
        fold(before, event)
    assert before == History((1, 2), (PURCHASE, VIEW), (1.0, 2.0))
    assert History((), (), ()) == EMPTY


@pytest.mark.parametrize("seed", range(20))
def test_order_of_arrival_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    times = rng.choice(1_000, count, replace=False)
    events = [Engagement("u", int(rng.integers(9)), int(rng.integers(VIEW, RETURN)), float(t)) for t in times]
    in_time = folded(*sorted(events, key=lambda event: event.time))
    assert folded(*(events[i] for i in rng.permutation(count))) == in_time


@pytest.mark.parametrize("seed", range(3))
def test_the_newest_are_kept_whatever_the_order(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(LONGEST + 100)
    history = folded(*(Engagement("u", int(i), VIEW, float(i)) for i in order))
    assert history.rows == tuple(range(100, LONGEST + 100))
    assert len(history.rows) == len(history.kinds) == len(history.times) == LONGEST


def test_event_older_than_a_full_history_is_forgotten() -> None:
    full = folded(*(Engagement("u", i, VIEW, 100.0 + i) for i in range(LONGEST)))
    assert fold(full, Engagement("u", 7, VIEW, 1.0)) == full


def test_return_takes_out_the_latest_purchase_of_its_product_only() -> None:
    bought = (
        Engagement("u", 1, PURCHASE, 10.0),
        Engagement("u", 1, PURCHASE, 20.0),
        Engagement("u", 2, PURCHASE, 30.0),
        Engagement("u", 1, VIEW, 40.0),
    )
    history = folded(*bought, Engagement("u", 1, RETURN, 50.0))
    assert history == History((1, 2, 1), (PURCHASE, PURCHASE, VIEW), (10.0, 30.0, 40.0))


def test_return_of_what_was_not_bought_changes_nothing() -> None:
    history = folded(Engagement("u", 1, VIEW, 10.0), Engagement("u", 2, PURCHASE, 20.0))
    assert fold(history, Engagement("u", 1, RETURN, 30.0)) == history


def test_viewed_products_are_the_newest_in_turn() -> None:
    history = folded(Engagement("u", 1, PURCHASE, 10.0))
    assert viewed(history, [7, 8], 60.0) == History((1, 7, 8), (PURCHASE, VIEW, VIEW), (10.0, 60.0, 60.0))
    assert viewed(history, [], 60.0) == history
    assert history.rows == (1,)
