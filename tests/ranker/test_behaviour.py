"""Popularity as the sum it stands for, and the folding of everybody's events."""

from math import exp, log
from typing import Any

import numpy as np
import pytest

from ranker import behaviour as module
from ranker.behaviour import LATELY, LIFETIMES, MONTH, Behaviour
from ranker.history import ADD_TO_CART, CLICK, DISLIKE, EMPTY, PURCHASE, RATING, RETURN, VIEW, Engagement

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
    assert LIFETIMES == (3.0, 10.0, 30.0, 120.0)
    sums = [
        0.2 * exp(-10 / lifetime) + 1.0 * exp(-3 / lifetime) + 2.0 * exp(-1 / lifetime) + 4.0 * exp(-0 / lifetime)
        for lifetime in LIFETIMES
    ]
    np.testing.assert_allclose(
        behaviour.popularity(np.array([2, 0]), NOW), [[log(1 + each), 0.0] for each in sums], rtol=1e-9
    )


def test_popularity_decays_with_now() -> None:
    behaviour = heard(Engagement("u", 1, CLICK, NOW))
    later = behaviour.popularity(np.array([1]), NOW + 14 * DAY)
    np.testing.assert_allclose(later[:, 0], [log(1 + exp(-14 / lifetime)) for lifetime in LIFETIMES], rtol=1e-9)


@pytest.mark.parametrize("kind", [RETURN, DISLIKE])
def test_what_went_wrong_is_not_popular(kind: int) -> None:
    behaviour = heard(Engagement("u", 1, kind, NOW, "boot"))
    assert (behaviour.popularity(np.arange(5), NOW) == 0).all()
    assert behaviour.most_popular(5).tolist() == []
    assert behaviour.after_query("boot") == {}
    assert behaviour.first_time[1] == np.inf
    assert behaviour.last_time == NOW


@pytest.mark.parametrize("seed", range(5))
def test_late_events_commute(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, kinds = ["u", "v", None], (VIEW, CLICK, ADD_TO_CART, PURCHASE, RATING, DISLIKE)
    events = [
        Engagement(
            *(users[rng.integers(3)], int(rng.integers(5)), kinds[rng.integers(6)], NOW + float(t)),
            ("", "boot", "hat")[rng.integers(3)],
        )
        for t in rng.choice(int(40 * DAY), 200, replace=False)
    ]
    one, other = heard(*events), heard(*(events[i] for i in rng.permutation(200)))
    np.testing.assert_allclose(one.counts, other.counts, rtol=1e-12)
    for name in ("first_time", "users_of", "repeats", "purchases", "likes", "dislikes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        assert getattr(one, name).sum() > 0, name
    assert (one.users, one.dislikers) == (other.users, other.dislikers)
    assert (one.total_likes, one.total_dislikes) == (other.total_likes, other.total_dislikes)
    for query in ("boot", "hat"):
        assert one.after_query(query) == pytest.approx(other.after_query(query))
    assert one.last_time == other.last_time == max(event.time for event in events)


def test_most_popular_first() -> None:
    behaviour = heard(Engagement("u", 3, CLICK, NOW), Engagement("u", 1, PURCHASE, NOW), Engagement("u", 4, VIEW, NOW))
    assert behaviour.most_popular(5).tolist() == [1, 3, 4]
    assert behaviour.most_popular(2).tolist() == [1, 3]
    assert behaviour.most_popular(0).tolist() == []


def test_most_popular_goes_by_the_month() -> None:
    old = [Engagement("u", 0, CLICK, NOW - 20 * DAY)] * 3
    behaviour = heard(*old, Engagement("u", 1, CLICK, NOW))
    assert LIFETIMES[MONTH] == 30.0
    # 3 exp(-20 / 10) < 1, but 3 exp(-20 / 30) > 1.
    assert np.argmax(behaviour.popularity(np.arange(5), NOW)[MONTH - 1]) == 1
    assert behaviour.most_popular(1).tolist() == [0]


def test_an_event_changes_the_next_order() -> None:
    behaviour = heard(Engagement("u", 1, CLICK, NOW))
    orders = [behaviour.most_popular(5).tolist()]
    assert behaviour.most_popular(5).tolist() == orders[0]
    behaviour.apply(Engagement("u", 3, PURCHASE, NOW))
    orders.append(behaviour.most_popular(5).tolist())
    behaviour.apply_all([Engagement("u", 2, PURCHASE, NOW)] * 2)
    orders += [behaviour.most_popular(5).tolist(), behaviour.most_popular(1).tolist()]
    assert orders == [[1], [3, 1], [2, 3, 1], [2]]


def test_an_order_read_while_an_event_is_folded_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    behaviour = heard(Engagement("u", 1, CLICK, NOW))
    ordered = Behaviour._ordered

    def overtaken(self: Behaviour, *given: Any) -> Any:
        rows = ordered(self, *given)
        monkeypatch.setattr(Behaviour, "_ordered", ordered)
        self.apply(Engagement("u", 3, PURCHASE, NOW))
        return rows

    monkeypatch.setattr(Behaviour, "_ordered", overtaken)
    assert behaviour.most_popular(5).tolist() == [1]
    assert behaviour.most_popular(5).tolist() == [3, 1]


def test_trending_goes_by_days() -> None:
    behaviour = heard(*[Engagement("u", 0, CLICK, NOW - 10 * DAY)] * 3, Engagement("u", 1, CLICK, NOW))
    assert LIFETIMES[LATELY] == 3.0
    assert behaviour.most_popular(2).tolist() == [0, 1]
    assert behaviour.most_popular(2, lifetime=LATELY).tolist() == [1, 0]


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


def test_dislikes_stand_beside_the_history() -> None:
    behaviour = heard(
        Engagement("u", 1, RATING, 1.0), Engagement("u", 2, DISLIKE, 2.0), Engagement(None, 2, DISLIKE, 3.0)
    )
    assert behaviour.history("u").rows == (1,)
    assert behaviour.disliked("u").rows == (2,)
    assert behaviour.disliked("stranger") is behaviour.disliked(None) is EMPTY
    assert (behaviour.likes.tolist(), behaviour.dislikes.tolist()) == ([0, 1, 0, 0, 0], [0, 0, 2, 0, 0])
    assert (behaviour.total_likes, behaviour.total_dislikes) == (1, 2)
    assert behaviour.users_of.tolist() == [0, 1, 0, 0, 0]


def test_counters_by_product() -> None:
    behaviour = heard(
        *(Engagement(user, 3, PURCHASE, float(t)) for t, user in enumerate(["u", "v", "u", "u", None])),
        Engagement("v", 3, RETURN, 9.0),
    )
    assert behaviour.users_of[3] == 2
    assert behaviour.repeats[3] == 2
    assert behaviour.purchases[3] == 5
    assert behaviour.returns[3] == 1
    assert behaviour.first_time[3] == 0.0
    assert behaviour.history("v").rows == ()


def test_a_query_leads_to_the_weight_of_what_followed() -> None:
    behaviour = heard(
        Engagement("u", 1, CLICK, 1.0, "boot"),
        Engagement("v", 1, PURCHASE, 2.0, "boot"),
        Engagement(None, 2, VIEW, 3.0, "boot"),
        Engagement("u", 3, CLICK, 4.0, "hat"),
        Engagement("u", 4, CLICK, 5.0),
    )
    assert behaviour.after_query("boot") == pytest.approx({1: 1.0 + 4.0, 2: 0.2})
    assert behaviour.after_query("hat") == {3: 1.0}
    assert behaviour.after_query("") == behaviour.after_query("Boot") == {}


def test_only_so_many_queries_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_QUERIES", 2)
    behaviour = heard(*(Engagement("u", 1, CLICK, float(t), query) for t, query in enumerate(["a", "b", "a", "c"])))
    # The one that led nowhere for longest made room.
    assert {query: behaviour.after_query(query) for query in "abc"} == {"a": {1: 2.0}, "b": {}, "c": {1: 1.0}}
    behaviour.apply(Engagement("u", 2, CLICK, 5.0, "b"))
    assert {query: behaviour.after_query(query) for query in "abc"} == {"a": {}, "b": {2: 1.0}, "c": {1: 1.0}}


def test_who_asked_is_forgotten_with_a_query_and_not_that_it_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_QUERIES", 2)
    asked = [*(("boot", user) for user in "uvw"), ("hat", "u"), ("hat", "v"), ("cap", "u"), ("bag", "u"), ("hat", "w")]
    behaviour = heard(*(Engagement(user, 1, CLICK, float(t), query) for t, (query, user) in enumerate(asked)))
    assert list(behaviour.queries) == ["bag", "hat"]
    assert behaviour.askers == {"bag": {"u"}, "hat": {"w"}}
    assert behaviour.shared == {"boot": 3.0}
    behaviour.apply(Engagement("x", 2, CLICK, 9.0, "boot"))
    assert behaviour.shared == {"boot": 4.0}


def test_only_so_many_queries_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_QUERIES", 1)
    behaviour = heard(*(Engagement(user, 1, CLICK, 1.0, query) for query in ("boot", "hat") for user in "uvw"))
    assert (behaviour.shared, behaviour.askers) == ({"boot": 3.0}, {})


def test_forgotten_users_have_no_history_and_count_for_all() -> None:
    behaviour = heard(
        Engagement("u", 1, CLICK, 1.0, "boot"), Engagement("v", 1, CLICK, 2.0), Engagement("u", 2, DISLIKE, 3.0)
    )
    popular = behaviour.popularity(np.array([1]), NOW)
    behaviour.forget(lambda user: user == "u")
    assert behaviour.history("u") == behaviour.disliked("u") == EMPTY
    assert behaviour.history("v").rows == (1,)
    np.testing.assert_array_equal(behaviour.popularity(np.array([1]), NOW), popular)
    assert behaviour.after_query("boot") == {1: 1.0}
    behaviour.apply(Engagement("u", 3, CLICK, 4.0))
    assert behaviour.history("u").rows == (3,)


def test_a_query_is_shared_when_three_users_were_led_somewhere_by_it() -> None:
    behaviour = heard(
        Engagement("u", 1, CLICK, 1.0, "boot"),
        Engagement("u", 2, PURCHASE, 2.0, "boot"),
        Engagement("v", 1, CLICK, 3.0, "boot"),
        Engagement(None, 1, CLICK, 4.0, "boot"),
        Engagement("w", 1, RETURN, 5.0, "boot"),
        Engagement("x", 1, CLICK, 6.0, "mug"),
    )
    assert behaviour.shared == {}
    assert behaviour.askers == {"boot": {"u", "v"}, "mug": {"x"}}
    behaviour.apply(Engagement("x", 3, CLICK, 7.0, "boot"))
    assert behaviour.shared == {"boot": pytest.approx(1.0 + 4.0 + 1.0 + 1.0 + 1.0)}
    # Who asked it is not kept any longer.
    assert behaviour.askers == {"mug": {"x"}}
    behaviour.apply(Engagement("u", 3, PURCHASE, 8.0, "boot"))
    assert behaviour.shared == {"boot": pytest.approx(12.0)}


def test_who_is_forgotten_no_longer_counts_among_those_who_asked() -> None:
    behaviour = heard(*(Engagement(user, 1, CLICK, 1.0, "boot") for user in "uv"))
    behaviour.forget(lambda user: user == "u")
    behaviour.apply(Engagement("w", 1, CLICK, 2.0, "boot"))
    assert behaviour.shared == {}
    assert behaviour.askers == {"boot": {"v", "w"}}


@pytest.mark.parametrize("seed", range(3))
def test_folding_many_is_folding_each_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, queries = ["u", "v", "w", None], ["boot", "", "mug"]
    kinds = (VIEW, CLICK, ADD_TO_CART, PURCHASE, RATING, DISLIKE, RETURN)
    events = [
        Engagement(
            users[rng.integers(4)],
            int(rng.integers(5)),
            kinds[rng.integers(len(kinds))],
            NOW - float(rng.random()) * 300 * DAY,
            queries[rng.integers(3)],
        )
        for _ in range(400)
    ]
    together, one_by_one = Behaviour(5), Behaviour(5)
    together.apply_all(events)
    for event in events:
        one_by_one.apply(event)
    for name, value in vars(one_by_one).items():
        # How often it was told something, not what; and what was shown is told apart.
        if name in ("_folded", "exposure"):
            continue
        np.testing.assert_array_equal(getattr(together, name), value, err_msg=name)


def test_rows_that_come_later_have_seen_nothing() -> None:
    old = heard(Engagement("u", 1, PURCHASE, NOW, "boot"), Engagement("u", 2, DISLIKE, NOW))
    grown = old.grown(7)
    blank = Behaviour(2)
    for name in ("counts", "first_time", "users_of", "repeats", "purchases", "returns", "likes", "dislikes"):
        array = getattr(grown, name)
        np.testing.assert_array_equal(array[..., :5], getattr(old, name))
        np.testing.assert_array_equal(array[..., 5:], getattr(blank, name))
    assert grown.history("u").rows == (1,)
    assert grown.disliked("u").rows == (2,)
    assert grown.after_query("boot") == {1: 4.0}
    assert old.grown(5) is old


def test_who_reads_the_shorter_one_meets_no_row_of_the_longer() -> None:
    old = heard(Engagement("u", 1, CLICK, NOW, "boot"), Engagement("v", 0, CLICK, NOW))
    assert old.most_popular(5).tolist() == [0, 1]
    grown = old.grown(7)
    grown.apply_all(
        [
            Engagement("u", 6, PURCHASE, NOW + 1, "boot"),
            Engagement("w", 5, CLICK, NOW + 1, "hat"),
            Engagement("w", 5, DISLIKE, NOW + 1),
        ]
    )
    assert grown.most_popular(5).tolist() == [6, 5, 0, 1]
    assert old.most_popular(5).tolist() == [0, 1]
    assert (grown.history("u").rows, old.history("u").rows) == ((1, 6), (1,))
    assert (grown.history("w").rows, old.history("w")) == ((5,), EMPTY)
    assert (grown.disliked("w").rows, old.disliked("w")) == ((5,), EMPTY)
    assert (dict(grown.after_query("boot")), old.after_query("boot")) == ({1: 1.0, 6: 4.0}, {1: 1.0})
    assert old.after_query("hat") == {}
    # A user who is forgotten is forgotten by both.
    grown.forget(lambda user: user == "u")
    assert old.history("u") == grown.history("u") == EMPTY
