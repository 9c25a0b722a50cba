"""What was shown and clicked: rates by hand, places weighed, and a table of pairs against a plain dictionary."""

import math
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from indexer.canonical import EVENTS
from ranker import exposure
from ranker.exposure import NAMES, NOTHING, Exposure, shown_of

ROW_OF = {"a": 0, "b": 1, "c": 2}
SHARES = np.array([1.0, 0.5, 0.25])
BEGIN = datetime(2026, 5, 1, tzinfo=UTC)


def events(*rows: tuple[Any, ...]) -> pl.DataFrame:
    """Rows of (second, type, product, query, position, request)."""
    columns: dict[str, list[Any]] = {name: [] for name in EVENTS}
    for i, (second, kind, product, query, position, request) in enumerate(rows):
        known = {
            "event_id": f"e{i}",
            "event_time": BEGIN + timedelta(seconds=second),
            "event_type": kind,
            "product_id": product,
            "query": query,
            "position": position,
            "request_id": request,
        }
        for name in EVENTS:
            columns[name].append(known.get(name))
    return pl.DataFrame(columns, schema=EVENTS)


PAGE = events(
    (0, "impression", "a", "Red  Boots", 1, "r1"),
    (0, "impression", "b", "Red  Boots", 2, "r1"),
    (5, "click", "b", "Red  Boots", 2, "r1"),
    (9, "impression", "a", None, 3, "r2"),
    (9, "impression", "b", None, 7, "r2"),
)


def columns(made: Exposure, query: str, rows: list[int]) -> dict[str, list[float]]:
    told = made.columns(query, np.array(rows))
    assert tuple(told) == NAMES
    return {name: np.broadcast_to(np.asarray(told[name]), len(rows)).tolist() for name in NAMES}


def test_rates_by_hand() -> None:
    made = Exposure(3, SHARES)
    made.fold(PAGE, ROW_OF)
    # Looks: a 1 + 0.25, b 0.5 + 0.25 (a place deeper than the last known counts as that). One click, on b.
    usual = (1 + 1) / (2.0 + 10)
    rates = [(0 + 10 * usual) / (1.25 + 10), (1 + 10 * usual) / (0.75 + 10), usual]
    plain = columns(made, "", [0, 1, 2])
    assert plain["shown"] == pytest.approx([math.log1p(1.25), math.log1p(0.75), 0.0])
    assert plain["click_rate"] == pytest.approx([math.log(rate / usual) for rate in rates])
    assert all(math.isnan(value) for name in ("query_shown", "query_click_rate") for value in plain[name])
    after = columns(made, "red boots", [0, 1, 2])
    assert after["query_shown"] == pytest.approx([math.log1p(1.0), math.log1p(0.5), 0.0])
    # After a query that a product was not shown for, what is known of the product.
    by_query = [5 * rates[0] / (1 + 5), (1 + 5 * rates[1]) / (0.5 + 5), rates[2]]
    assert after["query_click_rate"] == pytest.approx([math.log(rate / usual) for rate in by_query])
    other = columns(made, "hat", [0, 1, 2])
    assert other["query_shown"] == [0.0, 0.0, 0.0]
    assert other["click_rate"] == plain["click_rate"]
    assert other["query_click_rate"] == pytest.approx(plain["click_rate"])


def test_what_was_shown_to_nobody_is_as_usual() -> None:
    assert columns(Exposure(3, SHARES), "boots", [0, 2]) == {name: [0.0, 0.0] for name in NAMES}


def test_clicks_alone_say_nothing_of_a_rate() -> None:
    made = Exposure(3)
    made.fold(events((0, "click", "a", "boots", 1, "r1")), ROW_OF)
    assert columns(made, "boots", [0]) == {name: [0.0] for name in NAMES}


@pytest.mark.parametrize(
    "row",
    [
        (0, "impression", "a", "boots", 1, None),
        (0, "purchase", "a", "boots", 1, "r1"),
        (0, "impression", "gone", "boots", 1, "r1"),
    ],
)
def test_what_does_not_count(row: tuple[Any, ...]) -> None:
    assert not len(shown_of(events(row), ROW_OF, SHARES).rows)


def test_an_impression_without_a_place_is_looked_at() -> None:
    frame = events((0, "impression", "a", None, None, "r1"), (0, "impression", "a", None, 0, "r1"))
    assert shown_of(frame, ROW_OF, SHARES).looks.tolist() == [1.0, 1.0]


def test_a_log_is_folded_in_up_to_a_time_and_not_at_it() -> None:
    second = BEGIN.timestamp()
    # In no order.
    shuffled = PAGE[[3, 2, 0, 4, 1]]
    made = Exposure(3, SHARES, shown_of(shuffled, ROW_OF, SHARES))
    for time, part in ((second, 0), (second + 5, 2), (second + 9, 3), (math.inf, 5)):
        made.advance(time)
        by_hand = Exposure(3, SHARES)
        by_hand.fold(PAGE[:part], ROW_OF)
        assert columns(made, "red boots", [0, 1, 2]) == columns(by_hand, "red boots", [0, 1, 2])
    made.advance(second)
    assert columns(made, "red boots", [0, 1, 2]) == columns(by_hand, "red boots", [0, 1, 2])


def test_many_at_once_are_each_after_the_other() -> None:
    one, other = Exposure(3, SHARES), Exposure(3, SHARES)
    one.fold(pl.concat([PAGE] * 3), ROW_OF)
    for frame in [PAGE] * 3:
        for i in range(len(frame)):
            other.fold(frame[i : i + 1], ROW_OF)
    assert columns(one, "red boots", [0, 1]) == columns(other, "red boots", [0, 1])


def test_further_products_have_not_been_shown_and_nothing_is_lost() -> None:
    made = Exposure(3, SHARES)
    made.fold(PAGE, ROW_OF)
    before = columns(made, "red boots", [0, 1, 2])
    grown = made.grown(5)
    assert columns(grown, "red boots", [0, 1, 2]) == before
    assert columns(grown, "red boots", [3, 4])["shown"] == [0.0, 0.0]
    grown.fold(events((0, "impression", "new", "boots", 1, "r9")), ROW_OF | {"new": 4})
    assert columns(grown, "boots", [4])["query_shown"] == pytest.approx([math.log(2)])
    assert columns(made, "red boots", [0, 1, 2]) == before


def test_pairs_are_those_of_a_dictionary() -> None:
    rng = np.random.default_rng(0)
    pairs, known = exposure._Pairs(), defaultdict(lambda: np.zeros(2))
    queries = rng.integers(1, 2**63, 40).astype(np.uint64)
    # From the first table of 1,024 places to one for 8,000 pairs.
    for size in (1, 5, 300, 5_000, 20_000):
        asked, rows = rng.integers(0, 40, size), rng.integers(0, 200, size)
        counts = rng.integers(0, 3, (size, 2)).astype(np.float64)
        pairs.add(queries[asked], rows, counts)
        for query, row, count in zip(asked.tolist(), rows.tolist(), counts, strict=True):
            known[query, row] += count
        for query in range(40):
            expected = [known.get((query, row), np.zeros(2)) for row in range(250)]
            np.testing.assert_array_equal(pairs.of(int(queries[query]), np.arange(250)), expected)
    assert pairs._used == len(known)
    assert 2 * len(known) <= len(pairs._table[0])


def test_a_full_table_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "_MOST", 1 << 11)
    pairs = exposure._Pairs()
    pairs.add(np.full(1_000, 7, np.uint64), np.arange(1_000), np.ones((1_000, 2)))
    for _ in range(2):
        pairs.add(np.full(5_000, 7, np.uint64), np.arange(5_000), np.ones((5_000, 2)))
    assert len(pairs._table[0]) == 1 << 11
    assert pairs._used == 1 << 10
    counts = pairs.of(7, np.arange(5_000))
    assert (counts[:1_000] == 3).all()
    assert (counts[:, 0] > 0).sum() == 1 << 10


def test_nothing_is_nothing() -> None:
    made = Exposure(2, SHARES, NOTHING)
    made.advance(math.inf)
    made.fold(pl.DataFrame(schema=EVENTS), {})
    assert columns(made, "q", [0, 1])["shown"] == [0.0, 0.0]
