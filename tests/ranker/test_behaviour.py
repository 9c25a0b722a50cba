"""Popularity as the sum it stands for, and the folding of everybody's events."""

from math import exp, log

import numpy as np
import pytest

from ranker.behaviour import LIFETIMES, Behaviour
from ranker.history import ADD_TO_CART, CLICK, EMPTY, PURCHASE, RETURN, VIEW, Engagement

DAY = 86_400.0
NOW = 1_700_000_000.0


def heard(*events: Engagement, products: int = 5) -> Behaviour:
    behaviour = Behaviour(products)
    behaviour.apply_all(events)
    return behaviour


def test_popularity_is_the_decayed_sum() -> None:
    behaviour = heard(
        Engagement("u", 2, VIEW, NOW - 10 * DAY),
        Engagement("v", 2, CLICK, NOW - 3 * DAY),
        Engagement(None, 2, ADD_TO_CART, NOW - 1 * DAY),
        Engagement("u", 2, PURCHASE, NOW),
    )
    assert LIFETIMES == (7.0, 30.0)
    week = 0.2 * exp(-10 / 7) + 1.0 * exp(-3 / 7) + 2.0 * exp(-1 / 7) + 4.0 * exp(-0 / 7)
    month = 0.2 * exp(-10 / 30) + 1.0 * exp(-3 / 30) + 2.0 * exp(-1 / 30) + 4.0 * exp(-0 / 30)
    np.testing.assert_allclose(
        behaviour.popularity(np.array([2, 0]), NOW), [[log(1 + week), 0.0], [log(1 + month), 0.0]], rtol=1e-9
    )


def test_popularity_decays_with_now() -> None:
    behaviour = heard(Engagement("u", 1, CLICK, NOW))
    later = behaviour.popularity(np.array([1]), NOW + 14 * DAY)
    np.testing.assert_allclose(later[:, 0], [log(1 + exp(-14 / 7)), log(1 + exp(-14 / 30))], rtol=1e-9)


def test_a_return_is_not_popular() -> None:
    behaviour = heard(Engagement("u", 1, RETURN, NOW))
    assert (behaviour.popularity(np.arange(5), NOW) == 0).all()
    assert behaviour.most_popular(5).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_late_events_commute(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users = ["u", "v", None]
    events = [
        Engagement(users[rng.integers(3)], int(rng.integers(5)), int(rng.integers(VIEW, RETURN)), NOW + float(t))
        for t in rng.choice(int(40 * DAY), 200, replace=False)
    ]
    one, other = heard(*events), heard(*(events[i] for i in rng.permutation(200)))
    np.testing.assert_allclose(one.counts, other.counts, rtol=1e-12)
    assert one.users == other.users
    assert one.last_time == other.last_time == max(event.time for event in events)


def test_most_popular_first() -> None:
    behaviour = heard(Engagement("u", 3, CLICK, NOW), Engagement("u", 1, PURCHASE, NOW), Engagement("u", 4, VIEW, NOW))
    assert behaviour.most_popular(5).tolist() == [1, 3, 4]
    assert behaviour.most_popular(2).tolist() == [1, 3]
    assert behaviour.most_popular(0).tolist() == []


def test_most_popular_goes_by_the_longer_lifetime() -> None:
    old = [Engagement("u", 0, CLICK, NOW - 20 * DAY)] * 3
    behaviour = heard(*old, Engagement("u", 1, CLICK, NOW))
    # 3 exp(-20 / 7) < 1, but 3 exp(-20 / 30) > 1.
    assert np.argmax(behaviour.popularity(np.arange(5), NOW)[0]) == 1
    assert behaviour.most_popular(1).tolist() == [0]


def test_equally_popular_in_order_of_rows() -> None:
    behaviour = heard(*(Engagement("u", row, CLICK, NOW) for row in (4, 0, 2)))
    assert behaviour.most_popular(3).tolist() == [0, 2, 4]


def test_most_popular_among_the_allowed() -> None:
    behaviour = heard(Engagement("u", 1, PURCHASE, NOW), Engagement("u", 3, CLICK, NOW))
    assert behaviour.most_popular(5, np.array([True, False, True, True, True])).tolist() == [3]
    assert behaviour.most_popular(5, np.zeros(5, bool)).tolist() == []


def test_histories_by_user() -> None:
    behaviour = heard(Engagement("u", 1, VIEW, 1.0), Engagement(None, 2, VIEW, 2.0), Engagement("v", 3, VIEW, 3.0))
    assert behaviour.history("u").rows == (1,)
    assert behaviour.history("v").rows == (3,)
    assert behaviour.history("stranger") is behaviour.history(None) is EMPTY
    assert set(behaviour.users) == {"u", "v"}
