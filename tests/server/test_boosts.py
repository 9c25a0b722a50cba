"""Boosts and pins by themselves: the arithmetic of places."""

import numpy as np
import pyarrow as pa
import pytest

from ranker.recall import Candidates
from server.filters import Equals, Range
from server.merchandising import boosted, in_front, with_pinned
from server.rules import Boost

ROWS = np.arange(6)
PRODUCTS = pa.table({"brand": ["ash", "oak", "ash", None, "oak", "ash"], "price": [1.0, 2.0, 3.0, 4.0, None, 6.0]})


@pytest.mark.parametrize(
    ("boosts", "expected"),
    [
        # Equal places, such as 2 and 4 / 2, stay in order.
        ([Boost(Equals("brand", "oak"), 2.0)], [0, 1, 4, 2, 3, 5]),
        ([Boost(Equals("brand", "ash"), 0.5)], [0, 1, 3, 4, 2, 5]),
        ([Boost(Equals("brand", "oak"), 2.0), Boost(Range("price", None, 2.0), 2.0)], [0, 1, 4, 2, 3, 5]),
        ([Boost(Range("price", 6.0, None), 7.0)], [5, 0, 1, 2, 3, 4]),
        (
            [Boost(Equals("brand", "ash"), 1_000.0)] * 200 + [Boost(Equals("brand", "oak"), 0.001)] * 200,
            [0, 2, 5, 3, 1, 4],
        ),
    ],
)
def test_the_arithmetic_of_boosts(boosts: list[Boost], expected: list[int]) -> None:
    assert boosted(boosts, PRODUCTS, ROWS).tolist() == expected


def test_boosts_look_at_the_rows_given() -> None:
    rows = ROWS[::-1]
    order = boosted([Boost(Equals("brand", "oak"), 9.0)], PRODUCTS, rows)
    assert rows[order].tolist() == [4, 1, 5, 3, 2, 0]
    assert boosted([Boost(Equals("brand", "oak"), 9.0)], PRODUCTS, rows[:0]).tolist() == []


def test_what_is_in_front_is_in_its_own_order() -> None:
    rows = np.array([7, 3, 9, 5])
    assert rows[in_front([5, 3], rows)].tolist() == [5, 3, 7, 9]


def test_nothing_is_made_where_nothing_is_pinned() -> None:
    found = Candidates(ROWS, np.ones(6), [])
    assert with_pinned(found, {}, {}, None).found is found
    drawn = with_pinned(found, {"a": "r", "b": "r", "gone": "r"}, {"a": 2, "b": 8}, None)
    assert drawn.found.rows.tolist() == [0, 1, 2, 3, 4, 5, 8]
    assert drawn.found.scores.tolist() == [1.0] * 6 + [0.0]
    assert drawn.pinned == {"a": 2, "b": 8}
    assert with_pinned(found, {"a": "r"}, {"a": 2}, ROWS != 2).pinned == {}
