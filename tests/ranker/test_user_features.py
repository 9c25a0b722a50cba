"""What a history says of the candidates, as arithmetic."""

from collections.abc import Callable
from math import log, log1p

import numpy as np
import polars as pl
import pytest

from ranker import user_features
from ranker.covisited import fit_covisited
from ranker.ease import Ease
from ranker.features import Catalogue
from ranker.history import ADD_TO_CART, CLICK, PURCHASE, VIEW, History
from ranker.user_features import NAMES

DAY = 86_400.0
NOW = 1_700_000_000.0


@pytest.fixture
def boots(catalogue: Callable[..., Catalogue], engaged: Callable[..., pl.DataFrame]) -> Catalogue:
    """Three products; users who engaged with 0 went on to 2."""
    return catalogue(
        "red red hiking boot",
        "red dress",
        "boot polish 42",
        covisited=fit_covisited(engaged(("v", 0, 1.0), ("v", 2, 2.0)), 3),
        ease=Ease(
            places=np.array([0, -1, 1]),
            targets=np.array([[1, 0], [1, 0]]),
            weights=np.array([[0.25, 0.0], [0.0, 0.5]], np.float32),
        ),
        price=[100.0, None, 10.0],
        brand=["Nord", "Nord", None],
        category=["Shoes", None, "Care"],
    )


def columns(history: History, catalogue: Catalogue, *rows: int, now: float = NOW) -> dict[str, list[float]]:
    tables = catalogue.table, catalogue.covisited, catalogue.ease
    found = user_features.columns(now, history, np.array(rows, np.int64), *tables)
    assert set(found) == set(NAMES)
    return {name: np.broadcast_to(np.asarray(values, float), len(rows)).tolist() for name, values in found.items()}


def days_ago(*events: tuple[int, int, float]) -> History:
    """A history of (row, kind, days before now)."""
    rows, kinds, days = zip(*events, strict=True)
    return History(rows, kinds, tuple(NOW - DAY * day for day in days))


# Three visits: product 1, then 0 twice and 2 in one moment, then 0 again.
HISTORY = days_ago((1, VIEW, 9), (0, PURCHASE, 3), (0, ADD_TO_CART, 3), (2, CLICK, 3), (0, PURCHASE, 1))


def test_a_stranger_has_no_history(boots: Catalogue) -> None:
    found = columns(History(), boots, 0, 1)
    assert found.pop("history_length") == [0.0, 0.0]
    assert all(np.isnan(values).all() for values in found.values())


def test_the_user(boots: Catalogue) -> None:
    found = columns(HISTORY, boots, 0, 1)
    assert found["history_length"] == pytest.approx([log1p(5)] * 2)
    assert found["days_since_last"] == pytest.approx([log1p(1)] * 2)
    assert found["visits"] == pytest.approx([log1p(3)] * 2)
    assert found["visit_size"] == pytest.approx([log1p(5 / 3)] * 2)
    assert found["user_repeat_rate"] == pytest.approx([1 - 3 / 5] * 2)


def test_what_was_done_with_the_product(boots: Catalogue) -> None:
    found = columns(HISTORY, boots, 0, 1, 2)
    assert found["engaged_before"] == pytest.approx([log1p(3), log1p(1), log1p(1)])
    assert found["bought_before"] == pytest.approx([log1p(2), 0.0, 0.0])
    assert found["bought_share"] == pytest.approx([2 / 2, 0.0, 0.0])
    assert found["days_since_product"] == pytest.approx([log1p(1), log1p(9), log1p(3)])
    assert found["days_since_first"] == pytest.approx([log1p(3), log1p(9), log1p(3)])


def test_what_nothing_was_done_with(boots: Catalogue) -> None:
    found = columns(days_ago((1, VIEW, 9)), boots, 0)
    zero = ("engaged_before", "bought_before", "bought_share", "recent_visits_70", "recent_visits_90")
    assert [found[name] for name in zero] == [[0.0]] * 5
    assert np.isnan([found[name] for name in ("days_since_product", "days_since_first", "rhythm")]).all()


@pytest.mark.parametrize(("decay", "name"), [(0.7, "recent_visits_70"), (0.9, "recent_visits_90")])
def test_recent_visits_count_more(decay: float, name: str, boots: Catalogue) -> None:
    """Visits 0, 1 and 2 steps back count 1, d and d^2, as a share of all three."""
    whole = 1 + decay + decay**2
    assert columns(HISTORY, boots, 0, 1, 2)[name] == pytest.approx(
        [(1 + 2 * decay) / whole, decay**2 / whole, decay / whole]
    )


def test_rhythm_is_lateness_by_the_usual_interval(boots: Catalogue) -> None:
    history = days_ago(
        (0, PURCHASE, 21), (0, PURCHASE, 14), (2, CLICK, 8), (0, PURCHASE, 7), (1, VIEW, 1), (1, VIEW, 1)
    )
    found = columns(history, boots, 0, 1, 2)["rhythm"]
    # Every 7 days, and 7 have gone by; two at one moment are half a day apart; one alone has no rhythm.
    assert found == pytest.approx([log1p(7 / 7), log1p(1 / 0.5), np.nan], nan_ok=True)


def test_shares_of_brand_category_and_price(boots: Catalogue) -> None:
    found = columns(HISTORY, boots, 0, 1, 2)
    assert found["brand_share"] == pytest.approx([4 / 5, 4 / 5, np.nan], nan_ok=True)
    assert found["category_share"] == pytest.approx([3 / 5, np.nan, 1 / 5], nan_ok=True)
    # Two prices are two bands.
    assert boots.table.price_band[0] != boots.table.price_band[2]
    assert found["price_band_share"] == pytest.approx([3 / 5, np.nan, 1 / 5], nan_ok=True)


def test_price_against_the_mean_of_the_known_prices(boots: Catalogue) -> None:
    usual = (3 * log(101) + log(11)) / 4
    found = columns(HISTORY, boots, 0, 1, 2)["price_against_user"]
    assert found == pytest.approx([log(101) - usual, np.nan, log(11) - usual], nan_ok=True)
    assert np.isnan(columns(days_ago((1, VIEW, 9)), boots, 0)["price_against_user"]).all()


def test_cosines_look_at_the_newest_twenty(boots: Catalogue) -> None:
    history = days_ago(*((2, VIEW, 90.0),) * 5, *((0, VIEW, 80.0),) * 19, (1, VIEW, 1.0))
    cosines = boots.table.vectors[0] @ boots.table.vectors.T
    found = columns(history, boots, 0)
    assert found["history_cosine_max"] == pytest.approx([1.0])
    assert found["history_cosine_mean"] == pytest.approx([(19 * 1.0 + cosines[1]) / 20], abs=1e-6)
    assert found["history_cosine_last"] == pytest.approx([cosines[1]], abs=1e-6)


def test_covisited_is_the_tables(boots: Catalogue) -> None:
    history = days_ago((0, VIEW, 9), (1, VIEW, 3))
    found = columns(history, boots, 0, 1, 2)
    # 0 leads to 2 by 1 / (1 + 10); it lies one step back.
    assert found["covisited"] == pytest.approx([0.0, 0.0, 0.8 / 11])
    assert found["covisited_last"] == [0.0, 0.0, 0.0]
    assert columns(days_ago((1, VIEW, 9), (0, VIEW, 3)), boots, 2)["covisited_last"] == pytest.approx([1 / 11])


def test_ease_adds_up_the_distinct_products_of_the_history(boots: Catalogue) -> None:
    """Product 0 counts once, however often it was bought. Product 1 is not modelled: it says and is told nothing."""
    assert columns(HISTORY, boots, 0, 1, 2)["ease"] == [0.5, 0.0, 0.25]
    assert columns(days_ago((1, VIEW, 4), (2, VIEW, 3)), boots, 2, 0)["ease"] == [0.0, 0.5]


def test_a_history_in_the_future_has_no_negative_age(boots: Catalogue) -> None:
    """Clocks differ: an event may bear a later time than the request."""
    found = columns(HISTORY, boots, 0, now=NOW - 100 * DAY)
    assert [found[name] for name in ("days_since_last", "days_since_product", "days_since_first", "rhythm")] == [
        [0.0]
    ] * 4


def test_no_candidates(boots: Catalogue) -> None:
    found = user_features.columns(NOW, HISTORY, np.empty(0, np.int64), boots.table, boots.covisited, boots.ease)
    assert {np.size(found[name]) for name in NAMES[5:]} == {0}
