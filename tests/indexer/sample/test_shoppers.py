"""Events: canonical, consistent, the same for a seed, with position bias, tastes and quality to be learnt."""

from datetime import UTC, datetime

import polars as pl
import pytest

from indexer.canonical import EVENTS
from indexer.errors import InputError
from indexer.sample.products import make_products
from indexer.sample.shoppers import make_events

SESSIONS = 10_000
MIDDLE = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def products() -> pl.DataFrame:
    return make_products(3_000, seed=7)


@pytest.fixture(scope="module")
def events(products: pl.DataFrame) -> pl.DataFrame:
    return make_events(products, 600, SESSIONS, seed=7)


def of(events: pl.DataFrame, event_type: str) -> pl.DataFrame:
    return events.filter(pl.col("event_type") == event_type)


def test_schema_is_canonical(events: pl.DataFrame) -> None:
    assert dict(events.schema) == EVENTS
    assert set(events["event_type"]) == {"impression", "click", "add_to_cart", "purchase"}
    assert events["event_id"].is_unique().all()


def test_seed_decides(products: pl.DataFrame) -> None:
    made = make_events(products, 100, 500, seed=1)
    assert made.equals(make_events(products, 100, 500, seed=1))
    assert not made.equals(make_events(products, 100, 500, seed=2))


def test_events_are_in_order_and_in_the_period(events: pl.DataFrame) -> None:
    assert events["event_time"].is_sorted()
    assert events["event_time"][0] >= datetime(2026, 5, 2, tzinfo=UTC)
    assert events["event_time"][-1] < datetime(2026, 7, 1, tzinfo=UTC)


def test_a_page_shows_20_different_products(events: pl.DataFrame) -> None:
    pages = of(events, "impression").group_by("request_id").agg(pl.col("position", "product_id").n_unique())
    assert pages.select(pl.col("position", "product_id").unique()).rows() == [(20, 20)]
    assert len(pages) == SESSIONS


def test_even_a_tiny_shop_fills_its_pages() -> None:
    events = make_events(make_products(20, seed=1), 10, 50, seed=1)
    assert (
        of(events, "impression").group_by("request_id").agg(pl.col("product_id").n_unique())["product_id"].min() == 20
    )


def test_too_few_products_are_refused() -> None:
    with pytest.raises(InputError, match="at least 20 products"):
        make_events(make_products(19, seed=1), 10, 10, seed=1)


@pytest.mark.parametrize(
    ("later", "earlier"), [("click", "impression"), ("add_to_cart", "click"), ("purchase", "add_to_cart")]
)
def test_each_step_follows_the_one_before(events: pl.DataFrame, later: str, earlier: str) -> None:
    page = ["request_id", "product_id", "position", "session_id", "user_id", "query"]
    steps = of(events, later).join(of(events, earlier), on=page, how="left", nulls_equal=True)
    assert len(steps) == len(of(events, later))
    assert (steps["event_time"] > steps["event_time_right"]).all()


def test_purchases_have_a_value(events: pl.DataFrame) -> None:
    bought = of(events, "purchase")
    assert (bought["value"] - bought["price"] * bought["quantity"]).abs().max() < 0.01
    assert of(events, "impression")["price"].null_count() == 20 * SESSIONS


def test_rates_are_those_of_a_shop(events: pl.DataFrame) -> None:
    sessions = events.group_by("session_id").agg(
        searched=pl.col("query").is_not_null().any(),
        known=pl.col("user_id").is_not_null().any(),
        clicks=(pl.col("event_type") == "click").sum(),
        bought=(pl.col("event_type") == "purchase").any(),
    )
    rates = sessions.select(pl.col("searched", "known", "clicks", "bought").cast(pl.Float64).mean()).row(0, named=True)
    assert rates["searched"] == pytest.approx(0.75, abs=0.02)
    assert rates["known"] == pytest.approx(0.85, abs=0.02)
    assert rates["clicks"] == pytest.approx(1.2, abs=0.25)
    assert rates["bought"] == pytest.approx(0.08, abs=0.025)


def test_both_languages_are_searched(events: pl.DataFrame) -> None:
    chinese = events["query"].drop_nulls().str.contains(r"\p{Han}").mean()
    assert isinstance(chinese, float)
    assert 0.1 < chinese < 0.4


def test_evenings_are_busy(events: pl.DataFrame) -> None:
    hour = of(events, "impression")["event_time"].dt.hour()
    assert hour.is_between(18, 21).sum() > 2 * hour.is_between(8, 11).sum()


def test_the_first_position_is_clicked_most(events: pl.DataFrame) -> None:
    rate = of(events, "click")["position"].value_counts().sort("position")["count"] / SESSIONS
    assert rate[0] > 5 * rate[14]
    assert rate[0] > 1.5 * rate[1]


@pytest.mark.parametrize(("taste", "margin"), [("brand", 1.3), ("category", 1.1)])
def test_tastes_last(products: pl.DataFrame, events: pl.DataFrame, taste: str, margin: float) -> None:
    """A user's favourite of the first month is clicked more in the second than it is shown to them, and to all."""
    known = events.filter(pl.col("user_id").is_not_null()).join(products, on="product_id")
    before, after = known.filter(pl.col("event_time") < MIDDLE), known.filter(pl.col("event_time") >= MIDDLE)
    counts = of(before, "click").group_by("user_id", taste).len().filter(pl.col("len") >= 2)
    first = counts.sort("len", "user_id", taste, descending=[True, False, False])
    favourite = first.unique("user_id", keep="first", maintain_order=True).select("user_id", favourite=taste)
    share = {
        kind: of(after, kind).join(favourite, on="user_id").select(pl.col("favourite") == pl.col(taste)).mean().item()
        for kind in ("click", "impression")
    }
    overall = of(after, "impression")[taste].value_counts(normalize=True)["proportion"].max()
    assert isinstance(overall, float)
    assert share["click"] > margin * share["impression"]
    assert share["click"] > 2 * overall


def test_quality_lasts(events: pl.DataFrame) -> None:
    """Products clicked often for their positions in the first month are so in the second."""
    shown = events.filter(pl.col("position") <= 10, pl.col("event_type").is_in(["impression", "click"]))
    clicked = pl.col("event_type") == "click"
    usual = shown.group_by("position").agg(usual=clicked.sum() / (~clicked).sum())
    halves = (
        shown.join(usual, on="position")
        .group_by("product_id", late=pl.col("event_time") >= MIDDLE)
        .agg(lift=clicked.sum() / pl.col("usual").filter(~clicked).sum(), pages=(~clicked).sum())
        .filter(pl.col("pages") >= 20)
    )
    both = halves.filter("late").join(halves.filter(~pl.col("late")), on="product_id")
    assert len(both) > 100
    assert both.select(pl.corr("lift", "lift_right")).item() > 0.2
