"""The products of an UpsertProducts request: what is read of them, and what is told of each fault."""

import math
from typing import Any

import pytest
from vitrine.v1 import filter_pb2, product_pb2

from ranker.upserts import Upsert
from server.checks import Checks
from server.upserts import Columns, Item, checked

NOW = 1.7e9
COLUMNS = {
    "product_id": "string",
    "title": "string",
    "category": "string",
    "brand": "string",
    "price": "number",
    "in_stock": "bool",
    "material": "string",
    "size": "number",
    "weight": "number",
    "vegan": "bool",
}


def item(**fields: Any) -> Item:
    attributes = fields.pop("attributes", {})
    return Item(product=product_pb2.Product(**{"id": "p", "title": "boot", **fields}, attributes=attributes))


def value(given: str | float | bool) -> filter_pb2.Value:
    kind = {str: "string_value", bool: "bool_value"}.get(type(given), "number_value")
    return filter_pb2.Value(**{kind: given})


def read(*items: Item, columns: dict[str, str] = COLUMNS) -> tuple[list[Upsert], dict[str, str]]:
    """The upserts, and the descriptions of faults by field."""
    faults = Checks()
    upserts = checked(items, NOW, Columns(columns, {"size"}), faults)
    return upserts, {fault.field: fault.description for fault in faults.violations}


def test_a_product_is_read_as_a_catalogue_files_is() -> None:
    given = {"material": "  suede ", "size": 42, "weight": 1.5, "vegan": False}
    made = item(
        id=" p ",
        title=" ＲＥＤ\tboot\n",
        category="ﬁne  shoes",
        brand="Acme",
        price=0.0,
        in_stock=False,
        attributes={name: value(each) for name, each in given.items()},
    )
    made.set_time.FromMicroseconds(1_600_000_000_000_001)
    values = {"title": "RED boot", "category": "fine shoes", "brand": "Acme", "price": 0.0, "in_stock": False}
    assert read(made) == ([Upsert(" p ", 1_600_000_000_000_001, values | given)], {})


def test_what_is_not_said_is_no_value() -> None:
    made = item(category=" ", brand="", attributes={"material": value("")})
    assert read(made) == ([Upsert("p", round(NOW * 1e6), {"title": "boot"})], {})


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"id": ""}, "id", "must be given"),
        ({"id": "x" * 129}, "id", "129 bytes"),
        ({"title": ""}, "title", "is empty"),
        ({"title": " \n"}, "title", "is empty"),
        ({"title": "x" * 2_001}, "title", "has 2001 characters; at most 2,000"),
        ({"price": -0.01}, "price", "from 0 up"),
        ({"price": math.nan}, "price", "from 0 up"),
        ({"price": math.inf}, "price", "from 0 up"),
        (
            {"attributes": {"size": value("42")}},
            "attributes[size]",
            "must be a number_value, as the column is a number",
        ),
        ({"attributes": {"size": value(True)}}, "attributes[size]", "must be a number_value"),
        ({"attributes": {"size": value(math.nan)}}, "attributes[size]", "is not a finite number"),
        ({"attributes": {"size": value(math.inf)}}, "attributes[size]", "is not a finite number"),
        ({"attributes": {"size": value(41.5)}}, "attributes[size]", "is 41.5; the column holds whole numbers"),
        ({"attributes": {"size": value(-(2.0**63))}}, "attributes[size]", "whole numbers of 64 bits"),
        ({"attributes": {"material": value(1.0)}}, "attributes[material]", "must be a string_value"),
        ({"attributes": {"vegan": value("true")}}, "attributes[vegan]", "must be a bool_value"),
        ({"attributes": {"vegan": filter_pb2.Value()}}, "attributes[vegan]", "must be a bool_value"),
        ({"attributes": {"price": value(1.0)}}, "attributes[price]", "it has a field of its own"),
        ({"attributes": {"product_id": value("q")}}, "attributes[product_id]", "it has a field of its own"),
        (
            {"attributes": {"colour": value("red")}},
            "attributes[colour]",
            "no such column; it has material, size, vegan, weight",
        ),
        ({"attributes": {"c" * 99: value("red")}}, f"attributes[{'c' * 64}]", "no such column"),
    ],
)
def test_a_fault_is_named(fields: dict[str, Any], field: str, says: str) -> None:
    _, told = read(item(id="other"), item(**fields))
    assert list(told) == [f"items[1].product.{field}"]
    assert says in told[f"items[1].product.{field}"]


def test_as_much_as_may_be_is_accepted() -> None:
    assert read(item(id="x" * 128, title="靴" * 2_000))[1] == {}


@pytest.mark.parametrize(("seconds", "says"), [(-1, "before 1970"), (NOW + 90_000, "more than a day ahead")])
def test_a_time_that_cannot_be_is_named(seconds: float, says: str) -> None:
    made = item()
    made.set_time.FromSeconds(int(seconds))
    _, told = read(made)
    assert list(told) == ["items[0].set_time"]
    assert says in told["items[0].set_time"]


def test_a_product_that_is_there_twice_is_named() -> None:
    _, told = read(item(), item(id="q"), item(title="other"), item())
    assert told == {f"items[{i}].product.id": "is that of items[0] too; give it once" for i in (2, 3)}
    # What has no id is not told of as a double.
    assert read(item(id=""), item(id=""))[1] == {f"items[{i}].product.id": "must be given" for i in (0, 1)}


def test_all_faults_are_told_at_once() -> None:
    bad = item(id="", title="", price=-1.0, attributes={"colour": value("red"), "size": value("42")})
    bad.set_time.FromSeconds(-1)
    _, told = read(bad, Item())
    fields = {"set_time", "product.id", "product.title", "product.price"}
    fields |= {"product.attributes[colour]", "product.attributes[size]"}
    assert set(told) == {f"items[0].{field}" for field in fields} | {"items[1].product.id", "items[1].product.title"}


def test_of_many_columns_some_are_named() -> None:
    made = item(attributes={"colour": value("red")})
    many = {f"c{i:03}": "string" for i in range(500)} | COLUMNS
    (says,) = read(made, columns=many)[1].values()
    assert says.endswith("c018, c019 and 484 more")
    (says,) = read(made, columns={name: COLUMNS[name] for name in ("product_id", "title", "price")})[1].values()
    assert says.startswith("the live release has no further columns")
