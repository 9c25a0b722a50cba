"""Diversity: no value of a column crowds out the others, and nothing is lost."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from harness import RecommendRequest, Running, SearchRequest, ids, refusal
from vitrine.v1.diversity_pb2 import Diversity as Wanted

from server.diversity import Diversity, spread

# Rows 0 to 6.
PRODUCTS = pa.table(
    {
        "brand": pa.chunked_array([["ash", "ash", "ash"], ["oak", None, "ash", None]]),
        "in_stock": pa.array([True, True, False, True, True, False, True]),
    }
)
EVERY = np.arange(7)


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (1, [0, 3, 4, 6, 1, 2, 5]),
        (2, [0, 1, 3, 4, 6, 2, 5]),
        (4, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_the_best_of_each_value_come_first(most: int, expected: list[int]) -> None:
    assert spread(Diversity("brand", most), PRODUCTS, EVERY).tolist() == expected


def test_the_order_is_that_of_the_rows_given() -> None:
    rows = EVERY[::-1]
    order = spread(Diversity("brand", 1), PRODUCTS, rows)
    assert rows[order].tolist() == [6, 5, 4, 3, 2, 1, 0]


def test_truth_values_and_nothing_at_all() -> None:
    assert spread(Diversity("in_stock", 2), PRODUCTS, EVERY).tolist() == [0, 1, 2, 5, 3, 4, 6]
    assert spread(Diversity("brand", 1), PRODUCTS, EVERY[:0]).tolist() == []


@pytest.mark.parametrize("kind", ["search", "recommend"])
def test_a_page_shows_no_more_of_a_brand_than_asked(server: Running, kind: str) -> None:
    ask: Any = {
        "search": lambda **more: server.search(SearchRequest(query="boots", page_size=24, **more)),
        "recommend": lambda **more: server.recommend(RecommendRequest(page_size=24, **more)),
    }[kind]
    plain, diverse = ask(), ask(diversity=Wanted(column="brand", most=1))
    assert max(Counter(hit.product.brand for hit in plain.hits).values()) > 1
    assert max(Counter(hit.product.brand for hit in diverse.hits).values()) == 1
    assert diverse.hits[0].product.id == plain.hits[0].product.id
    assert [hit.rank for hit in diverse.hits] == list(range(1, 25))


def test_all_pages_together_hold_what_they_held(server: Running) -> None:
    def pages(**more: Any) -> list[str]:
        found: list[str] = []
        token = ""
        while not found or token:
            answer = server.search(SearchRequest(query="boots", page_size=50, page_token=token, **more))
            found, token = [*found, *ids(answer)], answer.next_page_token
        return found

    plain, diverse = pages(), pages(diversity=Wanted(column="brand", most=1))
    assert plain != diverse
    assert sorted(plain) == sorted(diverse)


@pytest.mark.parametrize(
    ("wanted", "field", "words"),
    [
        (Wanted(column="shade", most=1), "diversity.column", "there is no column 'shade'; there are: brand"),
        (Wanted(column="brand"), "diversity.most", "must be 1 or more"),
    ],
)
def test_what_cannot_be_done_is_named(server: Running, wanted: Wanted, field: str, words: str) -> None:
    for refused in (
        refusal(server.search, SearchRequest(query="boots", diversity=wanted)),
        refusal(server.recommend, RecommendRequest(diversity=wanted)),
    ):
        assert words in refused.fields[field]
