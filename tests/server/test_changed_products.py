"""Products of the release that are said anew: the next answer has them so, and what was done with them still counts."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness import (
    RecommendRequest,
    Running,
    SearchRequest,
    SimilarRequest,
    at_most,
    channels,
    equals,
    ids,
)
from shops import Shop
from upserting import Product, buys, product, same_features, status, upsert
from vitrine.v1 import catalog_service_pb2, facet_pb2

from ranker.space import all_in_space
from server import amendments
from server.live import Live


@pytest.fixture
def server(start: Callable[..., Running], shop: Shop) -> Running:
    return start(shop.made)


@pytest.fixture
def popular(server: Running) -> str:
    """A product that many engaged with."""
    state = server.live.state
    return state.snapshot.ids[int(state.behaviour.most_popular(1, None, 0)[0])]


def lamp(name: str) -> Product:
    return Product(id=name, title="zephyrix lamp", brand="Zephyr", category="Lighting", price=0.25, in_stock=True)


def test_a_changed_product_is_so_in_every_kind_of_answer(server: Running, popular: str) -> None:
    was, row = product(server, popular), server.live.state.row_of[popular]
    said = lamp(popular)
    answer = upsert(server, said)
    assert (answer.written, list(answer.pending_product_ids)) == (1, [])
    assert server.live.state.row_of[popular] == row
    assert product(server, popular) == said
    told = status(server)
    assert (told.products, told.products_added, told.products_changed, told.products_pending) == (
        len(server.live.state.snapshot),
        0,
        1,
        0,
    )
    # By its new words and its new meaning, and no longer by its old words.
    found = server.search(SearchRequest(query="zephyrix lamp", page_size=5))
    assert list(found.info.degraded) == []
    [hit] = [hit for hit in found.hits if hit.product.id == popular]
    assert hit.product == said
    assert {"DENSE", "LEXICAL"} <= channels(hit)
    old = server.search(SearchRequest(query=was.title, page_size=100))
    assert all("LEXICAL" not in channels(hit) for hit in old.hits if hit.product.id == popular)
    # By its new brand and price, in filters and facets, and no longer by the old ones.
    zephyr = {"filter": equals("brand", "Zephyr")}
    assert ids(server.search(SearchRequest(query="lamp", **zephyr))) == [popular]
    assert popular not in ids(
        server.search(SearchRequest(query="zephyrix lamp", filter=equals("brand", was.brand), page_size=100))
    )
    assert popular in ids(server.search(SearchRequest(query="lamp", filter=at_most("price", 0.25), page_size=100)))
    asked = SearchRequest(query="zephyrix", facets=[facet_pb2.FacetSpec(column="brand", limit=100)], page_size=100)
    (brands,) = server.search(asked).facets
    assert {count.value.string_value: count.count for count in brands.counts}["Zephyr"] == 1
    # It is as popular as it was.
    assert popular in ids(server.recommend(RecommendRequest(page_size=20)))
    other = next(name for name in server.live.state.snapshot.ids if name != popular)
    assert ids(server.similar(SimilarRequest(product_id=other, **zephyr))) == [popular]
    for paths, expected in ((["product.id"], Product(id=popular)), (["product.title"], Product(title=said.title))):
        masked = SearchRequest(query="zephyrix", **zephyr)
        masked.read_mask.paths.extend(paths)
        assert [hit.product for hit in server.search(masked).hits] == [expected]


def test_it_is_ranked_as_the_next_release_ranks_it(server: Running, shop: Shop, popular: str) -> None:
    names = server.live.state.snapshot.ids
    branded = product(server, names[5])
    branded.brand = "Zephyr"
    upsert(server, lamp(popular), Product(id="new", title="zephyrix shade 3/4", price=1e6), branded)
    buys(server, "ann", popular, "zephyrix lamp")
    buys(server, "ann", "new")
    before = server.live.state
    seen_of = list(dict.fromkeys([popular, "new", *names[:30]]))

    live, found = shop.refresh()
    assert found.new == 1
    server.swap(live)
    after = server.live.state
    assert after.release == live
    assert (after.upserts, status(server).products_changed) == ({}, 0)
    same_features(before, after, seen_of, "ann", "zephyrix lamp")
    assert product(server, popular) == lamp(popular)
    # Said once more it says nothing new.
    assert list(upsert(server, lamp(popular)).pending_product_ids) == []
    assert server.live.state.upserts == {}


def test_its_place_among_products_moves_with_its_title_and_keeps_what_was_learnt(server: Running, popular: str) -> None:
    state = server.live.state
    row, space = state.row_of[popular], state.model.space
    learnt = space.vectors[row] - all_in_space(space.projection, state.snapshot.vectors[row : row + 1])[0]
    was = product(server, popular)
    upsert(server, lamp(popular))
    now = server.live.state.model
    title = state.encoder.encode(["zephyrix lamp"])
    moved = all_in_space(space.projection, title)[0] + learnt
    np.testing.assert_allclose(now.space.all_vectors[row], moved / np.linalg.norm(moved), atol=1e-6)
    np.testing.assert_array_equal(now.catalogue.table.vectors[row], title[0])
    # Under its old title it is where it was, to the last bit.
    was.brand = "Zephyr"
    upsert(server, was)
    now = server.live.state.model
    np.testing.assert_array_equal(now.space.all_vectors[row], space.vectors[row])
    np.testing.assert_array_equal(now.catalogue.table.vectors[row], state.snapshot.vectors[row])


def test_price_and_stock_that_are_not_said_are_unknown_unless_they_were_set(server: Running) -> None:
    first, second = server.live.state.snapshot.ids[:2]
    item = catalog_service_pb2.SetInventoryRequest.Item
    set_items = [item(product_id=first, in_stock=False), item(product_id=second, price=77.0)]
    server.set(catalog_service_pb2.SetInventoryRequest(items=set_items))
    upsert(server, Product(id=first, title="zephyrix lamp"), Product(id=second, title="zephyrix shade"))
    assert product(server, first) == Product(id=first, title="zephyrix lamp", in_stock=False)
    assert product(server, second) == Product(id=second, title="zephyrix shade", price=77.0)
    cheap = SearchRequest(query="zephyrix", filter=at_most("price", 77.0), page_size=100)
    assert set(ids(server.search(cheap))) & {first, second} == {second}
    server.set(catalog_service_pb2.SetInventoryRequest(items=[item(product_id=first, price=5.0)]))
    assert product(server, first) == Product(id=first, title="zephyrix lamp", price=5.0, in_stock=False)
    assert first in ids(server.search(cheap))


def test_a_price_or_stock_that_is_not_said_is_unknown_under_the_old_title_too(server: Running, shop: Shop) -> None:
    known = (product(server, name) for name in server.live.state.snapshot.ids)
    first, second = itertools.islice((each for each in known if each.HasField("price") and each.in_stock), 2)
    first.ClearField("price")
    second.ClearField("in_stock")
    assert list(upsert(server, first, second).pending_product_ids) == []
    assert (product(server, first.id), product(server, second.id)) == (first, second)
    live, _ = shop.refresh()
    server.swap(live)
    assert (product(server, first.id), product(server, second.id)) == (first, second)


def test_every_process_and_a_restart_have_it(
    server: Running, second: Live, start: Callable[..., Running], shop: Shop, popular: str
) -> None:
    encoded = server.trained.encoder.encoded  # type: ignore[attr-defined]
    del encoded[:]
    upsert(server, lamp(popular))
    second.refresh()
    # The vector came with it.
    assert encoded == ["zephyrix lamp"]
    assert second.state.assortment.offer.rendered.product(second.state.row_of[popular]) == lamp(popular)
    answer = ids(server.search(SearchRequest(query="zephyrix")))
    assert answer[0] == popular
    server.stop()
    again = start(shop.made)
    assert product(again, popular) == lamp(popular)
    assert ids(again.search(SearchRequest(query="zephyrix"))) == answer
    assert status(again).products_changed == 1


def test_a_deleted_product_that_is_said_anew_is_listed_so(server: Running, popular: str) -> None:
    server.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=[popular]))
    upsert(server, lamp(popular))
    assert product(server, popular) == lamp(popular)
    assert ids(server.search(SearchRequest(query="zephyrix")))[0] == popular
    server.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=[popular]))
    assert popular not in ids(server.search(SearchRequest(query="zephyrix", page_size=100)))


def test_new_and_changed_products_come_together_and_are_changed_again(server: Running, popular: str) -> None:
    upsert(server, Product(id="new", title="zephyrix shade"), lamp(popular))
    row = server.live.state.row_of["new"]
    first = next(name for name in server.live.state.snapshot.ids if name != popular)
    upsert(server, Product(id=first, title="zephyrix bulb"), Product(id="newer", title="zephyrix cord"))
    assert (server.live.state.row_of["new"], server.live.state.row_of["newer"]) == (row, row + 1)
    assert set(ids(server.search(SearchRequest(query="zephyrix", page_size=4)))) == {popular, first, "new", "newer"}
    upsert(server, Product(id=popular, title="quixotic shelf"))
    assert set(ids(server.search(SearchRequest(query="zephyrix", page_size=3)))) == {first, "new", "newer"}
    assert ids(server.search(SearchRequest(query="quixotic")))[0] == popular
    assert (status(server).products_added, status(server).products_changed) == (2, 2)


def recalled(answer: Any) -> list[Any]:
    """The products of an answer and how they were recalled: scores depend on the moment, in their last bits."""
    return [
        (hit.product, [(each.channel, each.rank, each.score) for each in hit.recall_sources]) for hit in answer.hits
    ]


def test_a_product_that_is_as_in_the_release_again_is_no_changed_one(
    server: Running, popular: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amendments, "MOST_CHANGED", 2)
    names = [name for name in server.live.state.snapshot.ids if name != popular]
    was, other, third = (product(server, name) for name in (popular, *names[:2]))
    words = SearchRequest(query=was.title, page_size=5)
    before = recalled(server.search(words))
    upsert(server, lamp(popular))
    upsert(server, was)
    assert (server.live.state.upserts, status(server).products_changed) == ({}, 0)
    assert recalled(server.search(words)) == before
    # It leaves room to others, and they stay where they are.
    upsert(server, lamp(popular), lamp(other.id), Product(id="new", title="zephyrix shade"))
    row = server.live.state.row_of["new"]
    upsert(server, was)
    assert list(upsert(server, lamp(third.id)).pending_product_ids) == []
    assert product(server, other.id) == lamp(other.id)
    assert (server.live.state.row_of["new"], status(server).products_changed) == (row, 2)


def test_beyond_the_most_the_same_ones_are_found_by_every_process(
    server: Running, start: Callable[..., Running], shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amendments, "MOST_NEW", 1)
    monkeypatch.setattr(amendments, "MOST_CHANGED", 1)
    first, further = server.live.state.snapshot.ids[:2]
    waiting = [further, "newer"]
    for name in (first, "new", *waiting):
        upsert(server, lamp(name))
    # In the journal they are now behind those that wait.
    assert list(upsert(server, lamp(first), lamp("new")).pending_product_ids) == []
    server.stop()
    again = start(shop.made)
    for name in (first, "new"):
        assert product(again, name) == lamp(name)
    assert again.live.state.pending == {*waiting}
