"""Products that came after the release: found by the next answer, as any product that nobody engaged with."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harness import (
    RecommendRequest,
    Running,
    SearchRequest,
    SimilarRequest,
    Trained,
    at_most,
    channels,
    copied,
    equals,
    hash_encoder,
    ids,
    refusal,
)
from shops import Shop
from upserting import Product, buys, product, same_features, status, upsert
from vitrine.v1 import (
    catalog_service_pb2,
    facet_pb2,
)

from ranker.changes import Change
from ranker.upserts import Upsert
from server import amendments
from server.amendments import embedded
from server.live import Live
from server.release import Releases

LAMP = Product(id="new", title="zephyrix lamp", brand="Zephyr", category="Lighting", price=12.5, in_stock=True)


@pytest.fixture
def server(start: Callable[..., Running], shop: Shop) -> Running:
    return start(shop.made)


def test_a_new_product_is_in_every_kind_of_answer(server: Running) -> None:
    query = SearchRequest(query="zephyrix lamp", page_size=5)
    assert "new" not in ids(server.search(query))
    products = status(server).products
    answer = upsert(server, LAMP)
    assert (answer.written, answer.outdated, list(answer.pending_product_ids)) == (1, 0, [])
    found = server.search(query)
    assert list(found.info.degraded) == []
    [hit] = [hit for hit in found.hits if hit.product.id == "new"]
    assert hit.product == LAMP
    assert {"DENSE", "LEXICAL"} <= channels(hit)
    assert hit.member_scores.HasField("network")
    assert hit.member_scores.HasField("trees")
    zephyr = {"filter": equals("brand", "Zephyr")}
    assert ids(server.search(SearchRequest(query="lamp", **zephyr))) == ["new"]
    assert (
        ids(server.search(SearchRequest(query="lamp", filter=at_most("price", 12.5), page_size=100))).count("new") == 1
    )
    other = server.live.state.snapshot.ids[0]
    assert ids(server.recommend(RecommendRequest(recent_product_ids=[other], **zephyr))) == ["new"]
    assert ids(server.similar(SimilarRequest(product_id=other, **zephyr))) == ["new"]
    assert "new" not in ids(server.similar(SimilarRequest(product_id="new")))
    recent = server.recommend(RecommendRequest(recent_product_ids=["new", "nobody's"]))
    assert (list(recent.unknown_product_ids), bool(recent.hits)) == (["nobody's"], True)
    assert product(server, "new") == LAMP
    assert status(server).products == products + 1


def test_a_misspelt_word_that_only_a_new_product_has(server: Running) -> None:
    upsert(server, LAMP)
    assert ids(server.search(SearchRequest(query="zephirix")))[0] == "new"
    assert ids(server.search(SearchRequest(query="zephyrix")))[0] == "new"


def test_facets_read_masks_and_explanations_of_a_new_product(server: Running) -> None:
    upsert(server, LAMP)
    asked = SearchRequest(query="zephyrix", facets=[facet_pb2.FacetSpec(column="brand", limit=100)], page_size=100)
    (brands,) = server.search(asked).facets
    assert {count.value.string_value: count.count for count in brands.counts}["Zephyr"] == 1
    for paths, expected in (
        (["product.id"], Product(id="new")),
        (["product.id", "product.price"], Product(id="new", price=12.5)),
        (["product"], LAMP),
    ):
        asked = SearchRequest(query="zephyrix", filter=equals("brand", "Zephyr"))
        asked.read_mask.paths.extend(paths)
        assert [hit.product for hit in server.search(asked).hits] == [expected]
    why = server.search(SearchRequest(query="zephyrix", filter=equals("brand", "Zephyr"), explain=True)).hits[0]
    told = {each.name: each for each in why.explanation.contributions}
    assert "query_coverage" in told


def test_it_is_ranked_as_the_next_release_ranks_it(server: Running, shop: Shop) -> None:
    server.live.journal.change(
        [Change(server.live.state.snapshot.ids[9], price=77.0, price_time=int(time.time() * 1e6))]
    )
    held = server.live.state.snapshot.ids[0]
    upsert(server, LAMP, Product(id="other", title="zephyrix shade 3/4", price=1e6))
    buys(server, "ann", "new", "zephyrix lamp")
    buys(server, "ann", held)
    buys(server, "bob", "other")
    before = server.live.state
    names = ["new", "other", held, *before.snapshot.ids[1:30]]

    live, found = shop.refresh()
    assert found.new == 2
    server.swap(live)
    after = server.live.state
    assert after.release == live
    assert {"new", "other"} <= set(after.snapshot.row_of)
    assert len(before.row_of) == len(after.row_of) == len(after.snapshot)
    same_features(before, after, names, "ann", "zephyrix lamp")
    assert product(server, "new") == LAMP
    assert status(server).products_pending == 0


def test_events_of_a_new_product_count_at_once_and_after_a_restart(
    server: Running, start: Callable[..., Running], shop: Shop
) -> None:
    upsert(server, LAMP)
    buys(server, "ann", "new", "odd query")
    assert "new" in ids(server.recommend(RecommendRequest(user_id="ann", page_size=100)))
    assert "new" in ids(server.search(SearchRequest(query="odd query", page_size=100)))
    popular = ids(server.recommend(RecommendRequest(page_size=100)))
    assert "new" in popular
    state = server.live.state
    assert state.behaviour.history("ann").rows == (state.row_of["new"],)
    server.stop()
    again = start(shop.made)
    assert product(again, "new") == LAMP
    assert again.live.state.behaviour.history("ann").rows == (again.live.state.row_of["new"],)
    assert "new" in ids(again.recommend(RecommendRequest(user_id="ann", page_size=100)))
    assert ids(again.recommend(RecommendRequest(page_size=100))) == popular


def test_every_process_answers_with_it(server: Running, second: Live) -> None:
    encoded = server.trained.encoder.encoded  # type: ignore[attr-defined]
    del encoded[:]
    upsert(server, LAMP)
    second.refresh()
    assert second.state.row_of["new"] == len(second.state.snapshot)
    # The vector came with it.
    assert encoded == ["zephyrix lamp"]
    second.upsert([[Upsert("theirs", int(time.time() * 1e6), {"title": "zephyrix shade"})]])
    # Known to the process that is asked before it looked at the journal.
    assert server.similar(SimilarRequest(product_id="theirs")).hits
    assert ids(server.search(SearchRequest(query="shade zephyrix")))[0] == "theirs"
    assert refusal(server.similar, SimilarRequest(product_id="nobody's")).code.name == "NOT_FOUND"


def test_a_new_product_that_is_said_anew_keeps_its_row_and_what_was_done_with_it(server: Running) -> None:
    upsert(server, LAMP)
    buys(server, "ann", "new")
    server.set(
        catalog_service_pb2.SetInventoryRequest(
            items=[catalog_service_pb2.SetInventoryRequest.Item(product_id="new", price=9.0)]
        )
    )
    row = server.live.state.row_of["new"]
    renamed = Product(id="new", title="quixotic shelf", brand="Other")
    assert list(upsert(server, renamed).pending_product_ids) == []
    assert server.live.state.row_of["new"] == row
    # What is not said of price and stock stays.
    assert product(server, "new") == Product(id="new", title="quixotic shelf", brand="Other", price=9.0, in_stock=True)
    assert ids(server.search(SearchRequest(query="quixotic")))[0] == "new"
    assert ids(server.search(SearchRequest(query="quixotic", filter=equals("brand", "Zephyr")))) == []
    assert ids(server.search(SearchRequest(query="quixotic", filter=at_most("price", 9.0), page_size=100))).count("new")
    assert "new" in ids(server.recommend(RecommendRequest(user_id="ann", page_size=100)))
    # What is older changes nothing.
    old = upsert(server, LAMP, at=time.time() - 3_600)
    assert (old.written, old.outdated) == (0, 1)
    assert product(server, "new").title == "quixotic shelf"


def test_a_deleted_product_is_listed_again_and_a_new_one_can_be_deleted(server: Running) -> None:
    name = server.live.state.snapshot.ids[0]
    was = product(server, name)
    upsert(server, LAMP)
    server.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=[name, "new"]))
    for gone in (name, "new"):
        assert refusal(product, server, gone).code.name == "NOT_FOUND"
    assert "new" not in ids(server.search(SearchRequest(query="zephyrix", page_size=100)))
    assert status(server).products_deleted == 2
    assert list(upsert(server, was, LAMP).pending_product_ids) == []
    assert (product(server, name), product(server, "new")) == (was, LAMP)
    assert ids(server.search(SearchRequest(query="zephyrix")))[0] == "new"
    assert (status(server).products_deleted, server.live.state.assortment.offer.listed) == (0, None)


def test_what_came_and_went_takes_no_room_after_a_restart(
    server: Running, start: Callable[..., Running], shop: Shop
) -> None:
    upsert(server, LAMP, Product(id="other", title="zephyrix shade"))
    server.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=["new"]))
    assert (status(server).products_added, status(server).products_deleted) == (2, 1)
    server.stop()
    again = start(shop.made)
    assert (status(again).products_added, status(again).products_deleted) == (1, 0)
    assert refusal(product, again, "new").code.name == "NOT_FOUND"
    assert list(upsert(again, LAMP).pending_product_ids) == []
    assert product(again, "new") == LAMP


def test_prices_and_deletions_from_before_stay(server: Running) -> None:
    first, second = server.live.state.snapshot.ids[:2]
    item = catalog_service_pb2.SetInventoryRequest.Item(product_id=first, price=4_321.0)
    server.set(catalog_service_pb2.SetInventoryRequest(items=[item]))
    server.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=[second]))
    upsert(server, LAMP)
    assert product(server, first).price == 4_321.0
    assert refusal(product, server, second).code.name == "NOT_FOUND"
    assert ids(server.search(SearchRequest(query="zephyrix", filter=at_most("price", 12.5))))[0] == "new"


def test_what_the_catalogue_file_knows_better_is_not_added(server: Running, start: Callable[..., Running]) -> None:
    since = server.live.state.assortment.since / 1e6
    answer = upsert(server, LAMP, at=since - 1)
    assert (answer.written, list(answer.pending_product_ids)) == (1, [])
    assert refusal(product, server, "new").code.name == "NOT_FOUND"


def test_beyond_the_most_new_products_wait_for_the_release(
    server: Running, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amendments, "MOST_NEW", 2)
    three = [Product(id=f"n{i}", title=f"zephyrix lamp {i}") for i in range(3)]
    assert list(upsert(server, *three).pending_product_ids) == ["n2"]
    assert {"n0", "n1"} == set(ids(server.search(SearchRequest(query="zephyrix", page_size=2))))
    assert status(server).products_pending == 1
    live, found = shop.refresh()
    assert found.new == 3
    server.swap(live)
    assert product(server, "n2").title == "zephyrix lamp 2"
    # There is room again.
    assert list(upsert(server, Product(id="n3", title="zephyrix lamp 3")).pending_product_ids) == []


def test_what_is_deleted_waits_no_longer(
    server: Running, second: Live, start: Callable[..., Running], shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amendments, "MOST_NEW", 1)
    monkeypatch.setattr(amendments, "MOST_CHANGED", 0)
    (held, early), before = server.live.state.snapshot.ids[:2], time.time()
    upsert(server, LAMP, *(Product(id=name, title="zephyrix shade") for name in (held, early, "n1", "n2")))
    second.refresh()
    assert status(server).products_pending == len(second.state.pending) == 4
    server.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=[held, "n1", "n3", "new"]))
    assert status(server).products_pending == 2
    # What is said of a product as it was before its deletion does not wait either.
    answer = upsert(server, Product(id="n3", title="zephyrix cord"), at=before)
    assert (answer.written, list(answer.pending_product_ids), status(server).products_pending) == (1, [], 2)
    second.refresh()
    assert second.state.pending == {early, "n2"}
    # A price does not list it again, an upsert does.
    server.set(
        catalog_service_pb2.SetInventoryRequest(
            items=[catalog_service_pb2.SetInventoryRequest.Item(product_id=held, price=9.0)]
        )
    )
    assert status(server).products_pending == 2
    assert list(upsert(server, Product(id=held, title="zephyrix shade")).pending_product_ids) == [held]
    second.refresh()
    assert status(server).products_pending == len(second.state.pending) == 3
    server.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=[held, early]))
    server.stop()
    # The room of the one that came and went is free again.
    again = start(shop.made)
    assert (product(again, "n2").id, status(again).products_pending) == ("n2", 0)


def test_a_swap_to_a_release_of_the_same_index_keeps_them(server: Running, shop: Shop) -> None:
    upsert(server, LAMP)
    again = Releases(shop.made.store).create(
        shop.made.release.index, shop.made.release.model, "again", shop.made.settings.indexer
    )
    server.swap(again)
    assert server.live.state.release == again
    assert product(server, "new") == LAMP


def test_a_shop_without_a_log_has_them_too(unlogged: Trained, start: Callable[..., Running], tmp_path: Path) -> None:
    server = start(copied(unlogged, tmp_path))
    upsert(server, LAMP)
    assert ids(server.search(SearchRequest(query="zephyrix lamp")))[0] == "new"


def test_vectors_are_made_where_there_are_none_of_this_encoder() -> None:
    encoder, other = hash_encoder(), hash_encoder("other")
    there = np.full(encoder.dimensions, 0.5, np.float32)
    said = [
        Upsert("a", 1, {"title": "red"}, encoder.fingerprint, there),
        Upsert("b", 1, {"title": "blue"}),
        Upsert("b", 2, {"title": "green"}, other.fingerprint, there),
    ]
    made = embedded(said, encoder)
    assert made[0] is said[0]
    assert [each.encoder for each in made] == [encoder.fingerprint] * 3
    np.testing.assert_array_equal([each.vector for each in made[1:]], encoder.encode(["blue", "green"]))
    assert embedded([], encoder) == []


def test_only_titles_that_get_a_row_are_embedded(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = server.trained.encoder.encoded  # type: ignore[attr-defined]
    held = [product(server, name) for name in server.live.state.snapshot.ids[:3]]
    monkeypatch.setattr(amendments, "MOST_NEW", 2)
    monkeypatch.setattr(amendments, "MOST_CHANGED", 2)
    del encoded[:]
    # Another brand needs no other vector.
    changed = Product(id=held[0].id, title="a"), Product(id=held[1].id, title=held[1].title, brand="Zephyr"), held[2]
    further = Product(id=held[2].id, title="b")
    answer = upsert(server, *changed, *(Product(id=f"n{i}", title=f"t{i}") for i in range(3)))
    assert (encoded, list(answer.pending_product_ids)) == (["a", "t0", "t1"], ["n2"])
    assert list(upsert(server, further).pending_product_ids) == [further.id]
    upsert(server, Product(id="n1", title="t1 anew"), Product(id="n3", title="t3"))
    assert encoded == ["a", "t0", "t1", "t1 anew"]


def test_a_title_is_embedded_once(server: Running) -> None:
    """Whoever said it, and however many come after it: answers wait for further ones."""
    encoded = server.trained.encoder.encoded  # type: ignore[attr-defined]
    state, moment = server.live.state, round(time.time() * 1e6)
    name, vector = state.snapshot.ids[0], np.ones(state.encoder.dimensions, np.float32)
    old = {"title": product(server, name).title}
    del encoded[:]
    server.live.journal.upsert([Upsert("theirs", moment, {"title": "zephyrix lamp"}, "another encoder", vector)])
    changed, outdated = Upsert(name, moment, {"title": "zephyrix shade"}), Upsert(name, moment - 1, old)
    server.live.upsert([[changed], [outdated]])
    assert sorted(encoded) == ["zephyrix lamp", "zephyrix shade"]
    # Other processes find it in the journal.
    assert [each.vector is not None for each in server.live.journal.upserts() if each.product_id == name] == [True]
    upsert(server, LAMP)
    assert sorted(encoded) == ["zephyrix lamp", "zephyrix lamp", "zephyrix shade"]
