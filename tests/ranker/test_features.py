"""The feature matrix: its rules, and the columns that are made here."""

from collections.abc import Callable
from math import exp, log, log1p

import numpy as np
import pytest

from indexer.encoder import Encoder
from ranker import features, match_features, rating_features, user_features
from ranker.behaviour import Behaviour
from ranker.features import NAMES, QUERY, Catalogue, Context
from ranker.history import CLICK, DISLIKE, EMPTY, PURCHASE, RATING, RETURN, VIEW, Engagement, History

DAY = 86_400.0
NOW = 1_700_000_000.0

Make = Callable[..., Catalogue]


def made(
    context: Context, catalogue: Catalogue, *rows: int, behaviour: Behaviour | None = None
) -> dict[str, list[float]]:
    """The matrix by column."""
    known = behaviour or Behaviour(len(catalogue.table))
    out = features.matrix(context, np.array(rows, np.int64), catalogue, known)
    return {name: out[:, i].tolist() for i, name in enumerate(NAMES)}


@pytest.fixture
def boots(catalogue: Make) -> Catalogue:
    """Three titles of 4, 2 and 3 tokens."""
    return catalogue(
        "red red hiking boot",
        "red dress",
        "boot polish 42",
        price=[100.0, None, 10.0],
        brand=["Nord", "Nord", None],
        category=["Shoes", None, "Care"],
        in_stock=[True, False, None],
    )


def test_shape_and_type(boots: Catalogue) -> None:
    history = History((1, 0), (CLICK, PURCHASE), (NOW - DAY, NOW - 60))
    out = features.matrix(Context(NOW, history, "red boot"), np.array([2, 0]), boots, Behaviour(3))
    assert out.shape == (2, len(NAMES))
    assert out.dtype == np.float32
    assert not np.isinf(out).any()
    empty = features.matrix(Context(NOW, history, "red boot"), np.empty(0, np.int64), boots, Behaviour(3))
    assert empty.shape == (0, len(NAMES))


def test_names_are_distinct() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_every_name_has_a_column(boots: Catalogue, encoder: Encoder) -> None:
    """Where everything is known, every feature is a number."""
    vector = encoder.encode(["red boot 42"])[0]
    behaviour = Behaviour(3)
    behaviour.apply(Engagement("u", 0, PURCHASE, NOW - DAY, "red boot 42"))
    behaviour.apply(Engagement("u", 0, RATING, NOW - 60))
    behaviour.apply(Engagement("u", 2, DISLIKE, NOW - 60))
    context = Context(
        NOW, behaviour.history("u"), "red boot 42", "red boot 42", vector, vector, vector, behaviour.disliked("u")
    )
    out = features.matrix(context, np.array([0]), boots, behaviour)
    assert np.isfinite(out).all(), [name for name, value in zip(NAMES, out[0], strict=True) if not np.isfinite(value)]


def test_cosines_are_inner_products(boots: Catalogue, encoder: Encoder) -> None:
    vector = encoder.encode(["red dress"])[0]
    found = made(Context(NOW, EMPTY, "red dress", "red dress", vector, -vector, 0.5 * vector), boots, 1)
    assert found["title_cosine"] == pytest.approx([1.0])
    assert found["space_cosine"] == pytest.approx([-1.0])
    assert found["user_dot"] == pytest.approx([0.5])


def test_without_a_query(boots: Catalogue, encoder: Encoder) -> None:
    """A query may be a vector alone: then its cosines are all there is."""
    found = made(Context(NOW, EMPTY), boots, 0, 1)
    assert all(np.isnan(found[name]).all() for name in QUERY)
    vector = encoder.encode(["red boot"])[0]
    found = made(Context(NOW, EMPTY, query_vector=vector, query_in_space=vector), boots, 0, 1)
    told = {name for name in QUERY if np.isfinite(found[name]).all()}
    assert told == {"title_cosine", "space_cosine"}


def test_the_words_of_a_query_are_matched(boots: Catalogue) -> None:
    rows = np.array([0, 1, 2])
    expected = match_features.columns("red boot 42", rows, boots.table, boots.lexical)
    found = made(Context(NOW, EMPTY, "red boot 42"), boots, 0, 1, 2)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], np.broadcast_to(values, 3), rtol=1e-6, err_msg=name)


def test_what_a_query_led_to_before(boots: Catalogue) -> None:
    """A click weighs 1, a purchase 4; what led nowhere is not remembered."""
    behaviour = Behaviour(3)
    for user, row, kind in (("u", 0, CLICK), ("v", 0, PURCHASE), (None, 2, CLICK), ("u", 1, RETURN), ("u", 1, DISLIKE)):
        behaviour.apply(Engagement(user, row, kind, NOW - DAY, "red boot"))
    found = made(Context(NOW, EMPTY, "Red boot", "red boot"), boots, 0, 1, 2, behaviour=behaviour)
    assert found["query_frequency"] == pytest.approx([log1p(1 + 4 + 1)] * 3)
    assert found["query_engaged"] == pytest.approx([log1p(5), 0.0, log1p(1)])
    assert found["query_share"] == pytest.approx([5 / 6, 0.0, 1 / 6])
    unheard = made(Context(NOW, EMPTY, "Red boots", "red boots"), boots, 0, behaviour=behaviour)
    assert (unheard["query_frequency"], unheard["query_engaged"]) == ([0.0], [0.0])
    assert np.isnan(unheard["query_share"][0])


def test_product_features(boots: Catalogue) -> None:
    found = made(Context(NOW, EMPTY), boots, 0, 1, 2)
    assert found["log_price"] == pytest.approx([log(101), np.nan, log(11)], nan_ok=True)
    assert found["in_stock"] == pytest.approx([1.0, 0.0, np.nan], nan_ok=True)
    assert found["title_tokens"] == [4.0, 2.0, 3.0]


def test_popularity_is_the_behaviours(boots: Catalogue) -> None:
    behaviour = Behaviour(3)
    behaviour.apply(Engagement(None, 2, CLICK, NOW - 7 * DAY))
    found = made(Context(NOW, EMPTY), boots, 0, 2, behaviour=behaviour)
    for name, lifetime in (("3d", 3), ("10d", 10), ("30d", 30), ("120d", 120)):
        assert found[f"popularity_{name}"] == pytest.approx([0.0, log(1 + exp(-7 / lifetime))])


@pytest.mark.parametrize(("recent", "longer"), [("3d", "30d"), ("10d", "120d")])
def test_trend_is_popularity_of_late_against_before(boots: Catalogue, recent: str, longer: str) -> None:
    """A product engaged with once a day of late rises; one that was so long ago and no more falls."""
    behaviour = Behaviour(3)
    behaviour.apply_all(Engagement(None, 0, CLICK, NOW - day * DAY) for day in range(5))
    behaviour.apply_all(Engagement(None, 1, CLICK, NOW - day * DAY) for day in range(40, 60))
    found = made(Context(NOW, EMPTY), boots, 0, 1, 2, behaviour=behaviour)
    trend = found[f"trend_{longer}"]
    expected = np.subtract(found[f"popularity_{recent}"], found[f"popularity_{longer}"])
    assert trend == pytest.approx(expected.tolist(), abs=1e-5)
    assert trend[1] < trend[0]
    assert trend[1] < trend[2] == 0.0


def test_what_all_did_with_a_product(boots: Catalogue) -> None:
    behaviour = Behaviour(3)
    behaviour.apply_all(
        Engagement(user, 2, kind, NOW - DAY * days)
        for user, kind, days in [
            *(("u", PURCHASE, 9), ("v", CLICK, 8), ("u", PURCHASE, 7), ("u", CLICK, 6), ("v", RETURN, 5)),
            *((None, CLICK, 4), ("v", DISLIKE, 3)),
        ]
    )
    found = made(Context(NOW, EMPTY), boots, 2, 0, behaviour=behaviour)
    assert found["product_age"] == pytest.approx([log1p(9), np.nan], nan_ok=True)
    assert found["product_users"] == pytest.approx([log1p(2), 0.0])
    # Two users, and two engagements more of them: u came back twice.
    assert found["repeat_rate"] == pytest.approx([2 / (2 + 2 + 1), 0.0])
    assert found["return_rate"] == pytest.approx([1 / (2 + 5), 0.0])


def test_a_stranger_is_told_of_nothing_of_the_user(boots: Catalogue) -> None:
    found = made(Context(NOW, EMPTY), boots, 0, 1)
    assert found.pop("history_length") == [0.0, 0.0]
    personal = {*user_features.NAMES, *rating_features.NAMES, "user_dot"} - {"history_length"}
    assert all(np.isnan(found[name]).all() for name in personal)


def test_the_hour_and_the_weekday(boots: Catalogue) -> None:
    """1,700,000,000 was a Tuesday, 22:13 in UTC; Monday is 0."""
    found = made(Context(NOW, EMPTY), boots, 0)
    assert (found["hour"], found["weekday"]) == ([22.0], [1.0])
    monday = made(Context(NOW - 23 * 3_600, EMPTY), boots, 0)
    assert (monday["hour"], monday["weekday"]) == ([23.0], [0.0])


def test_position_is_the_log_of_the_place(boots: Catalogue) -> None:
    place = NAMES.index("position")
    served = features.matrix(Context(NOW, EMPTY), np.array([0, 1, 2]), boots, Behaviour(3))
    assert served[:, place].tolist() == [0.0, 0.0, 0.0]
    logged = features.placed(served, np.array([1, 2, 9]))
    assert logged[:, place] == pytest.approx([0.0, log(2), log(9)])
    assert served[:, place].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_array_equal(np.delete(logged, place, 1), np.delete(served, place, 1))
    np.testing.assert_array_equal(features.placed(logged, features.FIRST_PLACE), served)


def test_rows_do_not_see_each_other(boots: Catalogue, encoder: Encoder) -> None:
    vector = encoder.encode(["red boot"])[0]
    history = History((1, 0), (CLICK, PURCHASE), (NOW - DAY, NOW - 60))
    context = Context(NOW, history, "red boot 42", "red boot 42", vector, vector, vector)
    together = features.matrix(context, np.array([2, 0, 1, 0]), boots, Behaviour(3))
    alone = [features.matrix(context, np.array([row]), boots, Behaviour(3))[0] for row in (2, 0, 1, 0)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_arguments_are_not_written_into(boots: Catalogue, encoder: Encoder) -> None:
    vector = encoder.encode(["red boot"])[0]
    rows, before = np.array([2, 0]), vector.copy()
    behaviour = Behaviour(3)
    features.matrix(Context(NOW, History((1,), (VIEW,), (1.0,)), "red", "red", vector, vector), rows, boots, behaviour)
    assert rows.tolist() == [2, 0]
    np.testing.assert_array_equal(vector, before)
    assert behaviour.users == {}


def test_fingerprint_names_the_columns_and_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {features.fingerprint()}
    for names in ((*NAMES, "another"), NAMES[:-1], NAMES[::-1]):
        monkeypatch.setattr(features, "NAMES", names)
        seen.add(features.fingerprint())
    assert len(seen) == 4
    assert all(len(name) == 16 for name in seen)
