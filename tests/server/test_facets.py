"""Facets: what the candidates of an answer have in a column."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from harness import Running, SearchRequest, equals, refusal
from vitrine.v1 import facet_pb2

from server.facets import Facet, facets

PRODUCTS = pa.table(
    {
        "brand": pa.chunked_array([["ash", "oak", None], ["oak", "elm", "ash"]]),
        "price": pa.array([3.0, None, 5.0, 9.0, 4.0, 2.0]),
        "year": pa.array([1999, 2001, 2000, None, 2003, 2002]),
        "in_stock": pa.array([True, None, False, True, True, False]),
        "empty": pa.array([None] * 6, pa.float64()),
    }
)
EVERY = np.arange(6)


def test_values_come_by_how_often_they_are_there_then_by_themselves() -> None:
    [facet] = facets([("brand", 20)], PRODUCTS, EVERY)
    assert facet == Facet("brand", [("ash", 2), ("oak", 2), ("elm", 1)], missing=1)


def test_no_more_values_are_told_than_were_asked_for() -> None:
    [facet] = facets([("brand", 1)], PRODUCTS, EVERY)
    assert facet.counts == [("ash", 2)]


def test_only_the_candidates_count() -> None:
    assert facets([("brand", 20)], PRODUCTS, np.array([3, 4])) == [Facet("brand", [("elm", 1), ("oak", 1)])]


def test_numbers_have_a_least_and_a_greatest() -> None:
    assert facets([("price", 1), ("year", 1)], PRODUCTS, EVERY) == [
        Facet("price", extent=(2.0, 9.0), missing=1),
        Facet("year", extent=(1999.0, 2003.0), missing=1),
    ]


def test_truth_values_stay_what_they_are() -> None:
    [facet] = facets([("in_stock", 20)], PRODUCTS, EVERY)
    assert facet.counts == [(True, 3), (False, 2)]
    assert all(isinstance(value, bool) for value, _ in facet.counts)


@pytest.mark.parametrize("rows", [EVERY, EVERY[:0]])
def test_where_there_is_no_value_there_is_nothing_to_tell(rows: np.ndarray) -> None:
    assert facets([("empty", 20)], PRODUCTS, rows) == [Facet("empty", missing=len(rows))]


def search(server: Running, *specs: facet_pb2.FacetSpec, **options: Any) -> Any:
    return server.search(SearchRequest(query="red boots", facets=specs, **options))


def counted(facet: facet_pb2.Facet) -> dict[str, int]:
    return {each.value.string_value: each.count for each in facet.counts}


def test_all_pages_together_hold_what_is_counted(server: Running) -> None:
    specs = [facet_pb2.FacetSpec(column="category", limit=100), facet_pb2.FacetSpec(column="price")]
    answer = search(server, *specs, page_size=100)
    rest = search(server, page_size=100, page_token=answer.next_page_token)
    products = [hit.product for hit in (*answer.hits, *rest.hits)]
    categories, prices = answer.facets
    assert (categories.column, prices.column) == ("category", "price")
    assert counted(categories) == Counter(product.category for product in products)
    assert sum(counted(categories).values()) + categories.missing == answer.info.candidates == len(products)
    known = [product.price for product in products if product.HasField("price")]
    assert (prices.min, prices.max) == (min(known), max(known))
    assert not prices.counts
    assert not categories.HasField("min")


def test_facets_count_what_the_filter_keeps(server: Running) -> None:
    spec = facet_pb2.FacetSpec(column="category", limit=100)
    [every] = search(server, spec).facets
    category = every.counts[0].value.string_value
    filtered = search(server, spec, filter=equals("category", category))
    assert counted(filtered.facets[0]) == {category: filtered.info.candidates}
    # Candidates of the whole catalogue are not all there is of a category.
    assert filtered.info.candidates >= every.counts[0].count


def test_facets_may_be_left_out_on_later_pages(server: Running) -> None:
    first = search(server, facet_pb2.FacetSpec(column="brand"))
    second = search(server, page_token=first.next_page_token)
    assert len(first.facets) == 1
    assert not second.facets
    assert second.hits[0].rank == 25


@pytest.mark.parametrize(
    ("specs", "field", "words"),
    [
        ([facet_pb2.FacetSpec(column="shade")], "facets[0].column", "there is no column 'shade'; there are: brand"),
        (
            [facet_pb2.FacetSpec(column="brand"), facet_pb2.FacetSpec(column="price", limit=-1)],
            "facets[1].limit",
            "is negative",
        ),
        ([facet_pb2.FacetSpec(column="brand")] * 21, "facets", "has 21 columns; at most 20"),
    ],
)
def test_what_cannot_be_counted_is_named(
    server: Running, specs: list[facet_pb2.FacetSpec], field: str, words: str
) -> None:
    refused = refusal(search, server, *specs)
    assert words in refused.fields[field]


def test_a_limit_is_a_default_or_coerced(server: Running) -> None:
    [few, some, many] = search(
        server, *(facet_pb2.FacetSpec(column="title", limit=limit) for limit in (3, 0, 1_000))
    ).facets
    assert (len(few.counts), len(some.counts)) == (3, 20)
    assert 20 < len(many.counts) <= 100
