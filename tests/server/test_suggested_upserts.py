"""Suggestions of a shop whose products are upserted: what they are now is suggested with the next answer."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from harness import Running, SearchRequest, ids
from shops import Shop
from upserting import Product, product, upsert
from vitrine.v1 import catalog_service_pb2, search_service_pb2

from indexer.arrays import Mask
from ranker.behaviour import Behaviour
from server import amendments
from server import suggestions as module
from server.live import Live
from server.suggestions import Said, Suggestions, Value

LAMP = Product(id="new", title="zephyrix lamp", brand="Zephyr Works", category="Zeppelin lights", price=12.5)


@pytest.fixture
def server(start: Callable[..., Running], shop: Shop) -> Running:
    return start(shop.made)


def suggested(server: Running, typed: str = "") -> list[Value]:
    answer = server.suggest(search_service_pb2.SuggestRequest(query=typed, max_suggestions=100))
    return [Value(each.column, each.value, each.products) for each in answer.values]


def every(server: Running) -> dict[tuple[str, str], int]:
    """The numbers of products of all values that are suggested for one letter: of more than a hundred some are not."""
    products = server.live.state.snapshot.products
    letters = {value[0].lower() for name in ("brand", "category") for value in products[name].drop_null().to_pylist()}
    return {(each.column, each.value): each.products for typed in letters | {"z"} for each in suggested(server, typed)}


def brands(server: Running) -> dict[str, int]:
    return {value: count for (column, value), count in every(server).items() if column == "brand"}


def delete(server: Running, *names: str) -> None:
    server.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=names))


def test_a_new_brand_is_suggested_at_once_everywhere(
    server: Running, second: Live, start: Callable[..., Running], shop: Shop
) -> None:
    before = every(server)
    assert suggested(server, "zep") == second.state.suggested("zep", 10).values == []
    upsert(server, LAMP)
    new = [Value("brand", "Zephyr Works", 1), Value("category", "Zeppelin lights", 1)]
    # By each of its words, and by nearly one.
    assert suggested(server, "zep") == new
    assert suggested(server, "works") == suggested(server, "zephry") == new[:1]
    second.refresh()
    assert second.state.suggested("zep", 10).values == new
    assert every(server) == before | {(each.column, each.value): 1 for each in new}
    server.stop()
    again = start(shop.made)
    assert suggested(again, "zep") == new
    released, _ = shop.refresh()
    again.swap(released)
    assert suggested(again, "zep") == new


def test_a_new_product_of_a_known_brand_counts(server: Running) -> None:
    name, count = next(iter(brands(server).items()))
    upsert(server, Product(id="new", title="zephyrix lamp", brand=name), Product(id="other", title="zephyrix shade"))
    assert brands(server)[name] == count + 1
    # Said once more, or with another price, it is the same product.
    upsert(server, Product(id="new", title="zephyrix lamp", brand=name, price=3.0))
    item = catalog_service_pb2.SetInventoryRequest.Item(product_id="new", price=9.0)
    server.set(catalog_service_pb2.SetInventoryRequest(items=[item]))
    assert brands(server)[name] == count + 1
    upsert(server, Product(id="new", title="zephyrix lamp", brand="Zephyr"))
    assert (brands(server)[name], brands(server)["Zephyr"]) == (count, 1)
    upsert(server, Product(id="new", title="zephyrix lamp"))
    assert (brands(server)[name], "Zephyr" in brands(server)) == (count, False)


def test_what_the_release_holds_counts_as_released_whatever_was_changed_or_deleted_since(
    server: Running, second: Live, shop: Shop
) -> None:
    before = brands(server)
    changed, deleted = (product(server, name) for name in server.live.state.snapshot.ids[:2])
    was = changed.brand
    changed.brand, changed.category = "Zephyr", "Zeppelin lights"
    upsert(server, changed)
    delete(server, deleted.id)
    assert brands(server) == before | {"Zephyr": 1}
    second.refresh()
    assert second.state.suggested("zep", 10).values == suggested(server, "zep")
    changed.brand = was
    upsert(server, changed)
    assert brands(server) == before
    changed.brand = "Zephyr"
    upsert(server, changed)
    released, _ = shop.refresh()
    server.swap(released)
    # Here the old one is gone; what is deleted stays in the release, as long as the file has it.
    assert brands(server)["Zephyr"] == 1
    assert brands(server).get(was, 0) == before[was] - 1


def test_what_came_and_is_deleted_is_not_suggested(
    server: Running, second: Live, start: Callable[..., Running], shop: Shop
) -> None:
    before = every(server)
    changed = product(server, server.live.state.snapshot.ids[0])
    changed.brand = "Zephyr"
    upsert(server, LAMP, changed)
    second.refresh()
    assert len(suggested(server, "zep")) == len(second.state.suggested("zep", 10).values) == 3
    delete(server, "new", changed.id)
    second.refresh()
    assert every(server) == before
    assert second.state.suggested("", 100).values == suggested(server)
    upsert(server, LAMP)
    assert [each.value for each in suggested(server, "zep")] == ["Zephyr Works", "Zeppelin lights"]
    delete(server, "new")
    server.stop()
    assert every(start(shop.made)) == before


def test_what_waits_for_the_next_release_is_suggested_with_it(
    server: Running, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amendments, "MOST_NEW", 0)
    assert list(upsert(server, LAMP).pending_product_ids) == ["new"]
    assert suggested(server, "zep") == []
    released, _ = shop.refresh()
    server.swap(released)
    assert len(suggested(server, "zep")) == 2
    assert ids(server.search(SearchRequest(query="zephyrix")))[0] == "new"


RELEASED = pa.table({"brand": ["Oak", "Oak", "Elm", None, "Fir"], "category": ["a", "b", "a", "a", " "]})
BRANDS = ["brand", "category"]


def said(rows: dict[int, tuple[str | None, str | None]], listed: Mask | None = None) -> Said:
    """Brands and categories of rows that were said; those from the release's on are new."""
    table = RELEASED.to_pylist()
    for row, (brand, category) in sorted(rows.items()):
        table[row : row + 1] = [{"brand": brand, "category": category}]
    return Said(pa.Table.from_pylist(table, RELEASED.schema), np.array(sorted(rows), np.int64), listed)


def test_only_values_that_differ_from_the_release_are_added() -> None:
    suggestions = Suggestions(RELEASED, BRANDS)
    found = suggestions.find(
        "", 10, Behaviour(6), said({0: ("Oak", "b"), 3: ("Elm", None), 5: (" ", "a"), 6: (None, "c")})
    )
    assert found.values == [
        Value("category", "a", 4),
        Value("brand", "Elm", 2),
        Value("brand", "Oak", 2),
        Value("category", "b", 2),
        Value("brand", "Fir", 1),
        Value("category", "c", 1),
    ]


STEPS = [
    said({5: ("Ash", "c")}),
    said({5: ("Ash", "c"), 6: ("Ash tree", "c")}),
    said({1: ("Ash", "a"), 5: ("Oak", "d"), 6: ("Ash tree", "c")}),
    said({1: ("Ash", "a"), 5: ("Oak", "d"), 6: ("Ash tree", "c")}, np.array([True] * 6 + [False])),
    said({1: ("Ash", "a"), 5: ("Oak", "d"), 6: ("Ash tree", "c")}, np.array([True, False] * 3 + [True])),
    said({}),
    said({5: (None, None)}),
]


def test_what_is_followed_in_many_steps_is_what_is_said_last() -> None:
    step_by_step = Suggestions(RELEASED, BRANDS)
    told = []
    for each in STEPS:
        for typed in ("", "a", "tree", "ash t", "asj tree"):
            found = step_by_step.find(typed, 10, Behaviour(6), each)
            assert found == Suggestions(RELEASED, BRANDS).find(typed, 10, Behaviour(6), each), typed
            told.append([value.value for value in found.values])
    assert told[8] == told[9] == ["Ash tree"]
    assert told[25:30] == [["a", "Oak", "Elm", "Fir", "b"], ["a"], [], [], []]


def test_a_broad_answer_has_new_values_at_once_and_keeps_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BROAD", 2)
    monkeypatch.setattr(module.time, "monotonic", lambda: 100.0)
    suggestions, behaviour = Suggestions(RELEASED, BRANDS), Behaviour(6)
    behaviour.shared.update({"ash chair": 4.0, "ash table": 3.0})
    step = STEPS[0]
    assert suggestions.find("a", 10, behaviour, step) == (
        ["ash chair", "ash table"],
        [Value("category", "a", 3), Value("brand", "Ash", 1)],
    )
    behaviour.shared["ash bed"] = 9.0
    found = suggestions.find("a", 10, behaviour, STEPS[1])
    assert found.queries == ["ash chair", "ash table"]
    assert found.values == [Value("category", "a", 3), Value("brand", "Ash", 1), Value("brand", "Ash tree", 1)]
    deleted = step._replace(listed=np.array([True] * 5 + [False]))
    assert suggestions.find("a", 10, behaviour, deleted).values == [Value("category", "a", 3)]
