"""Visitors: what a page is worth to them is what they do with it, on average."""

import numpy as np
import polars as pl
import pytest

from indexer.canonical import EVENTS
from indexer.sample.products import make_products
from indexer.sample.shoppers import PAGE
from indexer.sample.visitors import Visitors, draw_visitors


@pytest.fixture(scope="module")
def visitors() -> Visitors:
    return draw_visitors(make_products(200, 5), users=30, count=40, seed=5)


@pytest.fixture(scope="module")
def pages(visitors: Visitors) -> np.ndarray:
    return visitors.old_pages(np.random.default_rng(1))


def test_a_page_is_worth_the_clicks_it_gets_on_average(visitors: Visitors, pages: np.ndarray) -> None:
    rng, draws = np.random.default_rng(2), 150
    clicks = np.zeros((draws, len(visitors)))
    for i in range(draws):
        events = visitors.events(pages, rng, "e-").filter(pl.col("event_type") == "click")
        counts = events.group_by("session_id").len()
        clicks[i, counts["session_id"].str.slice(3).cast(pl.Int64).to_numpy() - 1] = counts["len"].to_numpy()
    expected = visitors.expected_clicks(pages)
    error = clicks.std(0) / np.sqrt(draws)
    off = (clicks.mean(0) - expected) / np.maximum(error, 1e-3)
    # Forty means: were one factor left out, as the place or that a find ends the search, they would be far off.
    assert np.sqrt(np.mean(off**2)) < 1.4
    assert clicks.mean() == pytest.approx(expected.mean(), abs=4 * clicks.mean(1).std() / np.sqrt(draws))


def test_worth_by_hand(visitors: Visitors, pages: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    chances = np.zeros(pages.shape)
    chances[:, [0, 2]] = 0.5, 0.8
    monkeypatch.setattr(Visitors, "drawn", lambda *_: chances)
    # The first place is always looked at; a find there ends the search with a chance of 0.15.
    by_hand = 0.5 + 3**-0.7 * 0.8 * (1 - 0.15 * 0.5)
    assert visitors.expected_clicks(pages) == pytest.approx(np.full(len(pages), by_hand))


def test_better_pages_are_worth_more(visitors: Visitors, pages: np.ndarray) -> None:
    assert 0 < visitors.drawn(pages).min() < visitors.drawn(pages).max() < 1
    order = np.argsort(-visitors.drawn(pages), axis=1)
    best, worst = (np.take_along_axis(pages, each, axis=1) for each in (order, order[:, ::-1]))
    assert (visitors.expected_clicks(best) > visitors.expected_clicks(worst)).all()
    assert (visitors.expected_clicks(best) >= visitors.expected_clicks(pages) - 1e-12).all()


def test_events_are_canonical_and_of_the_pages(visitors: Visitors, pages: np.ndarray) -> None:
    events = visitors.events(pages, np.random.default_rng(3), "later-")
    assert dict(events.schema) == EVENTS
    assert events["event_id"].n_unique() == len(events)
    assert events["event_id"].str.starts_with("later-").all()
    assert events["request_id"].str.starts_with("later-").all()
    shown = events.filter(pl.col("event_type") == "impression").sort("session_id", "position")
    products = visitors.products["product_id"]
    assert shown["product_id"].to_list() == products.gather(pages.ravel()).to_list()
    assert shown["position"].to_list() == [*range(1, PAGE + 1)] * len(visitors)
    assert shown["user_id"].to_list() == [user for user in visitors.users for _ in range(PAGE)]
    assert shown["query"].to_list() == [query for query in visitors.queries for _ in range(PAGE)]
    begun = shown["event_time"].dt.epoch("us").to_numpy()[::PAGE] / 1e6
    assert np.allclose(begun, visitors.times)


def test_a_part_is_of_the_same_visits(visitors: Visitors, pages: np.ndarray) -> None:
    part = visitors.part(slice(10, 15))
    assert len(part) == 5
    assert part.users == visitors.users[10:15]
    assert part.queries.to_list() == visitors.queries[10:15].to_list()
    assert np.array_equal(part.times, visitors.times[10:15])
    assert np.array_equal(part.expected_clicks(pages[10:15]), visitors.expected_clicks(pages)[10:15])


def test_visits_come_in_time_order_and_the_seed_decides(visitors: Visitors, pages: np.ndarray) -> None:
    assert (np.diff(visitors.times) >= 0).all()
    again = draw_visitors(visitors.products, users=30, count=40, seed=5)
    assert again.queries.equals(visitors.queries, null_equal=True)
    assert np.array_equal(again.expected_clicks(pages), visitors.expected_clicks(pages))
