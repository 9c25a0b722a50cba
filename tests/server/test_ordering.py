"""A customer's own order: the best by score, and no others, from the least or the greatest value of a column."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from harness import RecommendRequest, Running, SearchRequest, ids, refusal
from vitrine.v1.diversity_pb2 import Diversity
from vitrine.v1.facet_pb2 import FacetSpec
from vitrine.v1.order_pb2 import OrderBy
from vitrine.v1.search_service_pb2 import SearchResponse

from server.ordering import Ordering, ordered

# Rows 0 to 6.
PRODUCTS = pa.table(
    {
        "price": pa.chunked_array([[3.0, None, 1.0], [3.0, -2.0, None, 9.0]]),
        "year": pa.array([2001, 2003, None, 1999, 2**53, 2000, 2002]),
        "empty": pa.array([None] * 7, pa.float64()),
    }
)
EVERY = np.arange(7)


@pytest.mark.parametrize(
    ("column", "descending", "expected"),
    [
        ("price", False, [4, 2, 0, 3, 6, 1, 5]),
        ("price", True, [6, 0, 3, 2, 4, 1, 5]),
        ("year", False, [3, 5, 0, 6, 1, 4, 2]),
        ("year", True, [4, 1, 6, 0, 5, 3, 2]),
        ("empty", True, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_equal_values_stay_in_order_and_those_without_come_last(
    column: str, descending: bool, expected: list[int]
) -> None:
    assert ordered(Ordering(column, descending, 7), PRODUCTS, EVERY).tolist() == expected


@pytest.mark.parametrize(("among", "expected"), [(1, [6]), (3, [4, 6, 5]), (100, [4, 2, 3, 0, 6, 5, 1])])
def test_the_best_are_ordered_and_no_others_are_left(among: int, expected: list[int]) -> None:
    rows = EVERY[::-1]
    assert rows[ordered(Ordering("price", False, among), PRODUCTS, rows)].tolist() == expected


def test_nothing_is_in_any_order() -> None:
    assert ordered(Ordering("price", True, 5), PRODUCTS, EVERY[:0]).tolist() == []


def pages(server: Running, size: int = 100, **more: Any) -> tuple[list[Any], SearchResponse]:
    """The hits of all pages, and the first page."""
    first = answer = server.search(SearchRequest(query="boots", page_size=size, **more))
    hits = list(answer.hits)
    while answer.next_page_token:
        request = SearchRequest(query="boots", page_size=size, page_token=answer.next_page_token, **more)
        answer = server.search(request)
        hits += answer.hits
    return hits, first


def price(hit: Any) -> float:
    return hit.product.price if hit.product.HasField("price") else math.inf


@pytest.mark.parametrize("descending", [False, True])
def test_pages_hold_the_best_in_the_order_asked_for(server: Running, descending: bool) -> None:
    plain, _ = pages(server)
    found, first = pages(server, 7, order_by=OrderBy(column="price", descending=descending, among=20))
    assert {hit.product.id for hit in found} == {hit.product.id for hit in plain[:20]}
    expected = sorted(plain[:20], key=lambda hit: -price(hit) if descending else price(hit))
    assert [price(hit) for hit in found] == [price(hit) for hit in expected]
    assert [hit.rank for hit in found] == list(range(1, 21))
    assert (len(first.hits), first.info.candidates) == (7, 20)
    # The scores are the ranking's, in whatever order.
    assert sorted((hit.score for hit in found), reverse=True) == pytest.approx([hit.score for hit in plain[:20]])


def test_fifty_are_ordered_where_nothing_is_said(server: Running) -> None:
    plain, _ = pages(server)
    found, first = pages(server, order_by=OrderBy(column="price"))
    assert first.info.candidates == 50 < len(plain)
    assert {hit.product.id for hit in found} == {hit.product.id for hit in plain[:50]}


def test_facets_count_what_the_pages_hold(server: Running) -> None:
    specs = [FacetSpec(column="category", limit=100)]
    found, first = pages(server, order_by=OrderBy(column="price", among=10), facets=specs)
    counts = {each.value.string_value: each.count for each in first.facets[0].counts}
    held = [hit.product.category for hit in found if hit.product.HasField("category")]
    assert len(found) == 10
    assert counts == {name: held.count(name) for name in held}


def test_explanations_follow_their_hits(server: Running) -> None:
    found = server.search(
        SearchRequest(query="boots", page_size=5, explain=True, order_by=OrderBy(column="price", among=8))
    )
    plain = server.search(SearchRequest(query="boots", page_size=8, explain=True))
    totals = {hit.product.id: hit.explanation.total for hit in plain.hits}
    assert [hit.explanation.total for hit in found.hits] == pytest.approx([totals[each] for each in ids(found)])


def test_recommendations_are_ordered_too(server: Running) -> None:
    plain = server.recommend(RecommendRequest(page_size=12))
    found = server.recommend(RecommendRequest(page_size=24, order_by=OrderBy(column="price", among=12)))
    assert sorted(ids(found)) == sorted(ids(plain))
    assert [price(hit) for hit in found.hits] == sorted(price(hit) for hit in plain.hits)


def test_a_page_token_is_good_for_its_own_order_alone(server: Running) -> None:
    request = SearchRequest(query="boots", page_size=5, order_by=OrderBy(column="price"))
    token = server.search(request).next_page_token
    request.page_token = token
    assert server.search(request).hits[0].rank == 6
    request.order_by.descending = True
    assert "belongs to another request" in refusal(server.search, request).fields["page_token"]


@pytest.mark.parametrize(
    ("wanted", "field", "words"),
    [
        (OrderBy(column="shade"), "order_by.column", "there is no column 'shade'; there are: brand"),
        (OrderBy(column="brand"), "order_by.column", "'brand' is a string; an order needs a number"),
        (OrderBy(column="in_stock"), "order_by.column", "'in_stock' is a bool; an order needs a number"),
        (OrderBy(), "order_by.column", "there is no column ''"),
        (OrderBy(column="price", among=-1), "order_by.among", "must be from 0, which means 50, to 10,000"),
        (OrderBy(column="price", among=10_001), "order_by.among", "must be from 0, which means 50, to 10,000"),
    ],
)
def test_what_cannot_be_done_is_named(server: Running, wanted: OrderBy, field: str, words: str) -> None:
    for refused in (
        refusal(server.search, SearchRequest(query="boots", order_by=wanted)),
        refusal(server.recommend, RecommendRequest(order_by=wanted)),
    ):
        assert words in refused.fields[field]


def test_an_order_and_diversity_are_one_too_many(server: Running) -> None:
    asked = {"order_by": OrderBy(column="price"), "diversity": Diversity(column="brand", most=1)}
    for refused in (
        refusal(server.search, SearchRequest(query="boots", **asked)),
        refusal(server.recommend, RecommendRequest(**asked)),
    ):
        assert "cannot go with diversity" in refused.fields["order_by"]
