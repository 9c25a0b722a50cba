"""A whole shop: its defaults, and judgments that grade what queries name."""

import polars as pl
import pytest

from indexer.canonical import JUDGMENTS, Dump
from indexer.sample.shop import make_judgments, make_shop


@pytest.fixture(scope="module")
def shop() -> Dump:
    return make_shop(1_000, seed=3)


def test_sizes_follow_from_the_count(shop: Dump) -> None:
    assert shop.events is not None
    assert shop.judgments is not None
    assert shop.events["session_id"].n_unique() == 2_000
    assert shop.counts == {
        "products": 1_000,
        "events": len(shop.events),
        "judgments": len(shop.judgments),
    }


def test_sizes_can_be_given() -> None:
    events = make_shop(100, users=5, sessions=60, seed=3).events
    assert events is not None
    assert events["session_id"].n_unique() == 60
    assert events["user_id"].drop_nulls().n_unique() <= 5


def test_seed_decides(shop: Dump) -> None:
    again, other = make_shop(1_000, seed=3), make_shop(1_000, seed=4)
    for name in ("products", "events", "judgments"):
        assert getattr(shop, name).equals(getattr(again, name)), name
        assert not getattr(shop, name).equals(getattr(other, name)), name


def test_judgments_are_canonical(shop: Dump) -> None:
    assert shop.judgments is not None
    assert dict(shop.judgments.schema) == JUDGMENTS
    assert set(shop.judgments["grade"]) == {0.0, 1.0, 2.0, 3.0}
    assert shop.judgments["split"].null_count() == len(shop.judgments)
    assert shop.judgments["product_id"].is_in(shop.products["product_id"].to_list()).all()
    assert not shop.judgments.select("query", "product_id").is_duplicated().any()


def test_about_300_queries_have_something_good(shop: Dump) -> None:
    assert shop.judgments is not None
    best = shop.judgments.group_by("query").agg(pl.col("grade").max())
    assert 250 <= len(best) <= 300
    assert (best["grade"] >= 2).mean() == 1
    assert (best["grade"] == 3).sum() > 0.9 * len(best)


def test_grades_say_how_much_fits(shop: Dump) -> None:
    judged = make_judgments(shop.products, seed=3).join(shop.products, on="product_id")
    asked = judged.filter(pl.col("query") == pl.col("category").str.to_lowercase())  # a type and nothing else
    assert len(asked) > 0
    assert asked.filter(pl.col("language") == "en")["grade"].unique().to_list() == [3.0]
    assert asked.filter(pl.col("language") == "zh")["grade"].unique().to_list() == [2.0]
