"""CatalogService: the product as it is now, and changes to it that are on disk once they are acknowledged."""

import math
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from harness import Running, refusal
from vitrine.v1 import catalog_service_pb2, filter_pb2, product_pb2

from ranker.changes import Change
from server import amendments

Request = catalog_service_pb2.GetProductRequest
Item = catalog_service_pb2.SetInventoryRequest.Item
Added = catalog_service_pb2.UpsertProductsRequest.Item
INVALID = grpc.StatusCode.INVALID_ARGUMENT
FIELDS = ("title", "category", "brand", "price", "in_stock")


@pytest.fixture
def live(start: Callable[..., Running]) -> Running:
    """A server of the test's own."""
    return start()


def setting(*items: Item) -> Any:
    return catalog_service_pb2.SetInventoryRequest(items=items)


def adding(*items: Added) -> Any:
    return catalog_service_pb2.UpsertProductsRequest(items=items)


def added(product: str, title: str = "zirconium teapot", at: float | None = None, **fields: Any) -> Added:
    item = Added(product=product_pb2.Product(id=product, title=title, **fields))
    if at is not None:
        item.set_time.FromMicroseconds(round(at * 1e6))
    return item


def deleting(*products: str) -> Any:
    return catalog_service_pb2.DeleteProductsRequest(product_ids=products)


def at(item: Item, seconds: float) -> Item:
    item.set_time.FromMicroseconds(round(seconds * 1e6))
    return item


def test_every_column_comes_back(server: Running) -> None:
    for row in server.live.state.snapshot.products.slice(0, 50).to_pylist():
        product = server.product(Request(product_id=row["product_id"]))
        assert product.id == row["product_id"]
        for name in FIELDS:
            value = row.pop(name)
            assert (getattr(product, name) if product.HasField(name) else None) == value if name != "title" else value
        del row["product_id"]
        assert set(product.attributes) == {name for name, value in row.items() if value is not None}
        for name, value in product.attributes.items():
            assert getattr(value, value.WhichOneof("kind")) == row[name]


@pytest.mark.parametrize("name", ["no such", "靴" * 40, "a\nb", "[/b]"])
def test_an_unknown_product_is_not_found(server: Running, name: str) -> None:
    refused = refusal(server.product, Request(product_id=name))
    assert refused.code is grpc.StatusCode.NOT_FOUND
    (info,) = refused.details
    assert isinstance(info, error_details_pb2.ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("product", name)


def test_a_price_and_stock_are_set(live: Running) -> None:
    p, q = live.live.state.snapshot.ids[:2]
    before = live.product(Request(product_id=q))
    told = live.set(setting(Item(product_id=p, price=3.5, in_stock=False), Item(product_id=q, price=0.0)))
    assert (told.written, told.outdated, list(told.unknown_product_ids)) == (2, 0, [])
    now = live.product(Request(product_id=p))
    assert (now.price, now.in_stock) == (3.5, False)
    before.price = 0.0
    # All else of it is as it was.
    assert live.product(Request(product_id=q)) == before
    assert all(abs(change.price_time / 1e6 - time.time()) < 60 for change in live.live.journal.changes())


def test_an_older_update_changes_nothing(live: Running) -> None:
    # All of it is later than the catalogue file, which may have been written just now.
    p, now = live.live.state.snapshot.ids[0], time.time() + 100
    assert live.set(setting(at(Item(product_id=p, price=3.0), now - 10))).written == 1
    late = at(Item(product_id=p, price=2.0), now - 20)
    told = live.set(setting(late, at(Item(product_id=p, price=1.0, in_stock=True), now - 15)))
    # The price is older, and the stock the first that is heard of.
    assert (told.written, told.outdated) == (1, 1)
    product = live.product(Request(product_id=p))
    assert (product.price, product.in_stock) == (3.0, True)
    # The same once more is a retry, and no older.
    assert live.set(setting(at(Item(product_id=p, price=3.0), now - 10))).outdated == 0


def test_unknown_products_are_told_and_kept(live: Running) -> None:
    p = live.live.state.snapshot.ids[0]
    items = [Item(product_id=name, in_stock=True) for name in ("new", p, "newer", "new")]
    told = live.set(setting(*items))
    assert (told.written, list(told.unknown_product_ids)) == (4, ["new", "newer"])
    gone = live.delete(deleting("newer", p))
    assert (gone.deleted, gone.already_deleted, list(gone.unknown_product_ids)) == (2, 0, ["newer"])
    kept = {change.product_id: change for change in live.live.journal.changes()}
    assert kept["new"].in_stock is True
    assert kept["newer"].deleted_time > kept["newer"].stock_time


def test_a_deleted_product_is_not_found_and_may_be_deleted_again(live: Running) -> None:
    p, q = live.live.state.snapshot.ids[:2]
    told = live.delete(deleting(p, p))
    assert (told.deleted, told.already_deleted) == (1, 0)
    assert refusal(live.product, Request(product_id=p)).code is grpc.StatusCode.NOT_FOUND
    told = live.delete(deleting(p, q))
    assert (told.deleted, told.already_deleted) == (1, 1)
    # A price does not list it again.
    assert live.set(setting(Item(product_id=p, price=1.0))).written == 1
    assert refusal(live.product, Request(product_id=p)).code is grpc.StatusCode.NOT_FOUND


FINE = Item(product_id="p", price=1.0)


@pytest.mark.parametrize(
    ("items", "field", "says"),
    [
        ([], "items", "has 0 products; 1 to 1,000"),
        ([FINE] * 1_001, "items", "has 1001 products"),
        ([Item(price=1.0)], "items[0].product_id", "must be given"),
        ([FINE, Item(product_id="x" * 129, price=1.0)], "items[1].product_id", "129 bytes"),
        ([FINE, Item(product_id="p")], "items[1]", "says nothing: give a price, in_stock, or both"),
        ([Item(product_id="p", price=-0.01)], "items[0].price", "from 0 up"),
        ([Item(product_id="p", price=math.nan)], "items[0].price", "from 0 up"),
        ([Item(product_id="p", price=math.inf)], "items[0].price", "from 0 up"),
        ([at(Item(product_id="p", price=1.0), -1)], "items[0].set_time", "before 1970"),
        ([at(Item(product_id="p", price=1.0), time.time() + 90_000)], "items[0].set_time", "more than a day ahead"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_named_and_nothing_is_set(server: Running, items: list[Item], field: str, says: str) -> None:
    refused = refusal(server.set, setting(*items))
    assert (refused.code, list(refused.fields)) == (INVALID, [field])
    assert says in refused.fields[field]
    assert server.live.journal.changes() == []


@pytest.mark.parametrize(
    ("products", "field", "says"),
    [
        ([], "product_ids", "has 0 products; 1 to 1,000"),
        (["p"] * 1_001, "product_ids", "has 1001 products"),
        (["p", ""], "product_ids[1]", "must be given"),
        (["x" * 129], "product_ids[0]", "129 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_named_and_nothing_is_deleted(server: Running, products: list[str], field: str, says: str) -> None:
    refused = refusal(server.delete, deleting(*products))
    assert (refused.code, list(refused.fields)) == (INVALID, [field])
    assert says in refused.fields[field]
    assert server.live.journal.changes() == []


def test_all_faults_are_told_at_once(server: Running) -> None:
    bad = at(Item(price=math.nan), -1)
    refused = refusal(server.set, setting(bad, Item(product_id="p")))
    assert set(refused.fields) == {"items[0].product_id", "items[0].price", "items[0].set_time", "items[1]"}


def test_as_much_as_may_be_is_accepted(live: Running) -> None:
    items = [at(Item(product_id=f"{i:0128d}", price=float(i)), time.time() + 80_000) for i in range(1_000)]
    assert live.set(setting(*items)).written == 1_000
    assert live.delete(deleting(*(item.product_id for item in items))).deleted == 1_000


def test_callers_at_once_are_each_told_of_their_own(live: Running) -> None:
    p, now = live.live.state.snapshot.ids[0], time.time()
    calls = [
        live.set.future(
            setting(
                *[at(Item(product_id=f"x{i}", price=1.0), now)] * (i + 1), at(Item(product_id=p, price=1.0), now - i)
            )
        )
        for i in range(20)
    ]
    for i, call in enumerate(calls):
        told = call.result(20)
        assert told.written + told.outdated == i + 2
        assert list(told.unknown_product_ids) == [f"x{i}"]
    (newest,) = [change for change in live.live.journal.changes() if change.product_id == p]
    assert newest == Change(p, 1.0, round(now * 1e6))


def test_a_new_product_is_there_and_an_older_one_changes_nothing(live: Running) -> None:
    now, colour = time.time() + 100, {"colour": filter_pb2.Value(string_value="Olive")}
    item = added("new", " zirconium  teapot ", now, brand="Acme", price=12.5, in_stock=True, attributes=colour)
    told = live.upsert(adding(item))
    assert (told.written, told.outdated, list(told.pending_product_ids)) == (1, 0, [])
    item.product.title = "zirconium teapot"
    assert live.product(Request(product_id="new")) == item.product
    told = live.upsert(adding(added("new", "iron kettle", now - 1, price=1.0), added("newer")))
    assert (told.written, told.outdated, list(told.pending_product_ids)) == (1, 1, [])
    assert live.product(Request(product_id="new")) == item.product
    # The same once more is a retry, and no older.
    assert live.upsert(adding(item)).written == 1
    kept = {each.product_id: each for each in live.live.journal.upserts()}
    assert set(kept) == {"new", "newer"}
    assert (kept["new"].time, kept["new"].values["title"]) == (round(now * 1e6), "zirconium teapot")


def test_beyond_the_most_changed_products_price_and_stock_count_and_the_rest_is_pending(
    live: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amendments, "MOST_CHANGED", 1)
    p, q, first = live.live.state.snapshot.ids[:3]
    before, same = live.product(Request(product_id=p)), live.product(Request(product_id=q))
    items = [added(p, "zirconium teapot", price=4_321.0, in_stock=not before.in_stock), Added(product=same)]
    told = live.upsert(adding(added(first), *items))
    assert (told.written, told.outdated, list(told.pending_product_ids)) == (3, 0, [p])
    before.price, before.in_stock = 4_321.0, not before.in_stock
    assert live.product(Request(product_id=p)) == before
    assert live.product(Request(product_id=q)) == same
    # Of what is older nothing waits.
    assert list(live.upsert(adding(added(p, at=time.time() - 1_000))).pending_product_ids) == []


def test_a_deleted_product_is_listed_again(live: Running) -> None:
    p = live.live.state.snapshot.ids[0]
    live.upsert(adding(added("new")))
    live.delete(deleting(p, "new"))
    for product in (p, "new"):
        assert refusal(live.product, Request(product_id=product)).code is grpc.StatusCode.NOT_FOUND
    assert live.upsert(adding(added("new"), added(p, price=3.5))).written == 2
    assert live.product(Request(product_id="new")).title == "zirconium teapot"
    assert live.product(Request(product_id=p)).price == 3.5


@pytest.mark.parametrize(
    ("items", "field", "says"),
    [
        ([], "items", "has 0 products; 1 to 1,000"),
        ([added(f"p{i}") for i in range(1_001)], "items", "has 1001 products"),
        ([added("p"), added("q", "")], "items[1].product.title", "is empty"),
        ([added("p"), added("p")], "items[1].product.id", "is that of items[0] too"),
        (
            [added("p", attributes={"size": filter_pb2.Value(number_value=1.0)})],
            "items[0].product.attributes[size]",
            "no such column; it has colour, department, language",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_named_and_nothing_is_upserted(server: Running, items: list[Added], field: str, says: str) -> None:
    refused = refusal(server.upsert, adding(*items))
    assert (refused.code, list(refused.fields)) == (INVALID, [field])
    assert says in refused.fields[field]
    assert server.live.journal.upserts() == []


def test_those_who_upsert_at_once_are_each_told_of_their_own(live: Running) -> None:
    now = time.time() + 100
    calls = [
        live.upsert.future(adding(*(added(f"x{i}-{j}", at=now) for j in range(i + 1)), added("all", at=now - i)))
        for i in range(20)
    ]
    for i, call in enumerate(calls):
        told = call.result(20)
        assert told.written + told.outdated == i + 2
        assert list(told.pending_product_ids) == []
    kept = {each.product_id: each.time for each in live.live.journal.upserts()}
    assert len(kept) == sum(range(21)) + 1
    assert kept["all"] == round(now * 1e6)
