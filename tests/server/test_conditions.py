"""The contract's filters: what they become, and which part is named where they cannot be accepted."""

import math
from typing import Any

import pytest
from harness import at_most, equals
from vitrine.v1 import filter_pb2, search_service_pb2

from server.conditions import condition
from server.faults import ViolationError
from server.filters import All, AnyOf, Equals, In, Not, Range

COLUMNS = {"category": "string", "price": "number", "in_stock": "bool"}
Wire = filter_pb2.Filter


def of(part: Wire) -> Any:
    return condition(search_service_pb2.SearchRequest(query="x", filter=part), COLUMNS)


def every(*parts: Wire) -> Wire:
    return Wire(all=filter_pb2.FilterList(filters=parts))


def either(*parts: Wire) -> Wire:
    return Wire(any=filter_pb2.FilterList(filters=parts))


def among(column: str, *values: filter_pb2.Value) -> Wire:
    return Wire(**{"in": filter_pb2.In(column=column, values=values)})


def number(value: float) -> filter_pb2.Value:
    return filter_pb2.Value(number_value=value)


def nested(depth: int) -> Wire:
    part = equals("price", 1.0)
    for _ in range(depth - 1):
        part = Wire(none=part)
    return part


def test_no_filter_is_no_condition() -> None:
    assert condition(search_service_pb2.SearchRequest(query="x"), COLUMNS) is None


def test_each_kind_in_the_domain() -> None:
    assert of(equals("category", "Boots")) == Equals("category", "Boots")
    assert of(equals("in_stock", False)) == Equals("in_stock", False)
    assert of(among("price", number(1), number(2.5))) == In("price", [1.0, 2.5])
    assert of(at_most("price", 5)) == Range("price", None, 5.0)
    assert of(Wire(range=filter_pb2.Range(column="price", min=0, max=0))) == Range("price", 0.0, 0.0)
    part, other = equals("price", 1.0), equals("in_stock", True)
    assert of(every(part, other)) == All([Equals("price", 1.0), Equals("in_stock", True)])
    assert of(either(part, Wire(none=other))) == AnyOf([Equals("price", 1.0), Not(Equals("in_stock", True))])


@pytest.mark.parametrize(
    ("part", "field", "says"),
    [
        (Wire(), "filter", "has no kind"),
        (every(), "filter.all", "is empty"),
        (either(), "filter.any", "is empty"),
        (Wire(none=Wire()), "filter.none", "has no kind"),
        (equals("colour", "red"), "filter.equals.column", "no column 'colour'; there are: category, in_stock, price"),
        (equals("c" * 1_000_000, "red"), "filter.equals.column", "no column"),
        (equals("price", "cheap"), "filter.equals.value", "must be a number_value"),
        (equals("category", 3.0), "filter.equals.value", "must be a string_value"),
        (equals("in_stock", 1.0), "filter.equals.value", "must be a bool_value"),
        (equals("price", math.nan), "filter.equals.value", "is NaN"),
        (Wire(equals=filter_pb2.Equals(column="price")), "filter.equals.value", "must be a number_value"),
        (Wire(equals=filter_pb2.Equals(value=number(1))), "filter.equals.column", "no column ''"),
        (among("price"), "filter.in.values", "is empty"),
        (among("price", number(1), number(math.nan)), "filter.in.values[1]", "is NaN"),
        (among("price", number(1), filter_pb2.Value()), "filter.in.values[1]", "must be a number_value"),
        (among("color", number(1)), "filter.in.column", "no column"),
        (at_most("category", 1), "filter.range.column", "a range needs a number"),
        (at_most("in_stock", 1), "filter.range.column", "a range needs a number"),
        (at_most("price", math.nan), "filter.range", "is NaN"),
        (Wire(range=filter_pb2.Range(column="price")), "filter.range", "neither min nor max"),
        (
            every(equals("price", 1.0), either(equals("x", 1.0))),
            "filter.all.filters[1].any.filters[0].equals.column",
            "no column",
        ),
        (every(Wire(none=at_most("x", 1))), "filter.all.filters[0].none.range.column", "no column"),
        (nested(11), "filter" + 10 * ".none", "over 10 deep"),
        (every(*[equals("price", 1.0)] * 100), "filter.all.filters[99]", "over 100 parts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_faulty_part_is_named(part: Wire, field: str, says: str) -> None:
    with pytest.raises(ViolationError, match=says) as caught:
        of(part)
    assert caught.value.field == field
    assert len(caught.value.description) < 300


def test_the_largest_filters_that_are_accepted() -> None:
    of(nested(10))
    of(every(*[equals("price", 1.0)] * 99))
    # Also where they are wide and deep: parts are counted over the whole tree.
    wide = every(*[every(*[equals("price", 1.0)] * 8) for _ in range(11)])
    assert len(of(wide).parts) == 11
