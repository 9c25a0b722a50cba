"""Live prices, stock and deletions in what is answered: filters, features, pages, recall, releases, other processes."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from harness import (
    RecommendRequest,
    Running,
    SearchRequest,
    SimilarRequest,
    Trained,
    at_most,
    content,
    copied,
    equals,
    ids,
    refusal,
)
from vitrine.v1 import admin_service_pb2, catalog_service_pb2, event_pb2, event_service_pb2, filter_pb2

from indexer.store import write_json
from ranker import features
from ranker.changes import Change
from ranker.sqlite_journal import FILE, SqliteJournal
from server import live as live_module
from server import pipeline
from server.live import Live
from server.pipeline import Ask
from server.release import Releases
from server.state import State

QUERY = "waterproof boots"
GetProduct = catalog_service_pb2.GetProductRequest
Item = catalog_service_pb2.SetInventoryRequest.Item


@pytest.fixture
def mine(trained: Trained, tmp_path: Path) -> Trained:
    """The live release twice over, as numbers 1 and 2; 1 is live."""
    made = copied(trained, tmp_path)
    Releases(made.store).create(trained.release.index, trained.release.model, "again", made.settings.indexer)
    return made


@pytest.fixture
def server(start: Callable[..., Running], mine: Trained) -> Running:
    return start(mine)


@pytest.fixture
def live(mine: Trained) -> Any:
    made = Live(mine.store, mine.settings, lambda _: mine.encoder, mine.release)
    yield made
    made.journal.close()


def put(server: Running, product: str, **values: Any) -> None:
    request = catalog_service_pb2.SetInventoryRequest(items=[Item(product_id=product, **values)])
    assert server.set(request).written == 1


def delete(server: Running, *products: str) -> None:
    assert server.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=products)).deleted == len(products)


def every_answer(server: Running, **options: Any) -> list[Any]:
    """Answers of every kind, pages as large as may be."""
    state, size = server.live.state, {"page_size": 100, **options}
    user, first = next(iter(state.behaviour.users)), state.snapshot.ids[0]
    query = next(iter(state.behaviour.queries))
    return [
        server.search(SearchRequest(query=QUERY, **size)),
        server.search(SearchRequest(query=query, user_id=user, **size)),
        server.recommend(RecommendRequest(user_id=user, **size)),
        server.recommend(RecommendRequest(**size)),
        server.recommend(RecommendRequest(recent_product_ids=[first], **size)),
        server.similar(SimilarRequest(product_id=first, **size)),
    ]


def test_filters_go_by_live_prices_and_stock(server: Running) -> None:
    found = server.search(SearchRequest(query=QUERY, page_size=3)).hits
    cheap, gone, other = (hit.product.id for hit in found)
    # Cheaper than anything, and the only one out of stock but for those of the catalogue.
    put(server, cheap, price=0.001)
    put(server, gone, in_stock=False)
    assert ids(server.search(SearchRequest(query=QUERY, filter=at_most("price", 0.001)))) == [cheap]
    assert ids(server.recommend(RecommendRequest(filter=at_most("price", 0.001), recent_product_ids=[other]))) == [
        cheap
    ]
    assert ids(server.similar(SimilarRequest(product_id=other, filter=at_most("price", 0.001)))) == [cheap]
    in_stock = ids(server.search(SearchRequest(query=QUERY, filter=equals("in_stock", True), page_size=100)))
    assert gone not in in_stock
    away = filter_pb2.Filter(none=equals("in_stock", True))
    assert gone in ids(server.search(SearchRequest(query=QUERY, filter=away, page_size=100)))
    put(server, gone, in_stock=True)
    assert gone in ids(server.search(SearchRequest(query=QUERY, filter=equals("in_stock", True), page_size=100)))


def test_features_and_pages_go_by_live_prices_and_stock(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = features.matrix

    def noted(context: Any, rows: Any, *others: Any) -> Any:
        seen.append((rows, real(context, rows, *others)))
        return seen[-1][1]

    monkeypatch.setattr(features, "matrix", noted)
    state = server.live.state
    monkeypatch.setattr(State, "now", lambda _: 1.8e9)
    before = server.search(SearchRequest(query=QUERY, page_size=100))
    product = before.hits[0].product
    put(server, product.id, price=product.price + 1_000.0, in_stock=not product.in_stock)
    after = server.search(SearchRequest(query=QUERY, page_size=100))
    (rows, old), (again, new) = seen
    assert rows.tolist() == again.tolist()
    place = rows.tolist().index(state.snapshot.row_of[product.id])
    changed = np.flatnonzero((old[place] != new[place]) & ~(np.isnan(old[place]) & np.isnan(new[place])))
    assert {"log_price", "in_stock"} <= {features.NAMES[column] for column in changed}
    assert new[place][features.NAMES.index("log_price")] == np.float32(np.log1p(product.price + 1_000.0))
    assert new[place][features.NAMES.index("in_stock")] == (not product.in_stock)
    # Of all other products every feature is the same to the last bit.
    others = np.arange(len(rows)) != place
    assert old[others].tobytes() == new[others].tobytes()
    (shown,) = [hit.product for hit in after.hits if hit.product.id == product.id]
    assert (shown.price, shown.in_stock) == (product.price + 1_000.0, not product.in_stock)
    shown.price, shown.in_stock = product.price, product.in_stock
    assert shown == product
    unchanged = {hit.product.id: hit.product for hit in before.hits}
    assert all(hit.product == unchanged[hit.product.id] for hit in after.hits)


def test_a_deleted_product_is_in_no_answer(server: Running) -> None:
    """Deleted is what each answer has most of, its first half."""
    before = every_answer(server)
    assert all(len(answer.hits) > 50 for answer in before)
    gone = {product for answer in before for product in ids(answer)[:50]}
    delete(server, *gone)
    for answer, earlier in zip(every_answer(server), before, strict=True):
        assert not gone & set(ids(answer))
        left = len(server.live.state.snapshot) - len(gone)
        # Recommend is of what others bought, and may run out of it.
        if answer.DESCRIPTOR.name != "RecommendResponse":
            assert len(answer.hits) == min(100, left)
        assert len(answer.hits) >= len(set(ids(earlier)) - gone)
    for filtered in every_answer(server, filter=at_most("price", 60.0)):
        assert filtered.hits
        assert not gone & set(ids(filtered))


def test_a_query_whose_neighbours_are_deleted_still_fills_its_page(server: Running) -> None:
    state = server.live.state
    (vector,) = server.trained.encoder.encode([QUERY])
    order = np.argsort(-(np.asarray(state.snapshot.vectors) @ vector))
    gone = [state.snapshot.ids[row] for row in order[:200]]
    delete(server, *gone)
    answer = server.search(SearchRequest(query=QUERY, page_size=100))
    assert len(answer.hits) == 100
    assert not set(gone) & set(ids(answer))
    target = SearchRequest(query_vector={"values": vector}, page_size=100)
    found = ids(server.search(target))
    target.page_token = server.search(target).next_page_token
    found += ids(server.search(target))
    assert set(found) == {state.snapshot.ids[row] for row in order[200 : 200 + state.model.retrieval.candidates]}


def test_what_is_like_a_deleted_product_is_still_told(server: Running) -> None:
    product = server.live.state.snapshot.ids[0]
    before = ids(server.similar(SimilarRequest(product_id=product)))
    delete(server, product)
    assert refusal(server.product, GetProduct(product_id=product)).code is grpc.StatusCode.NOT_FOUND
    assert ids(server.similar(SimilarRequest(product_id=product))) == before
    delete(server, before[0])
    assert ids(server.similar(SimilarRequest(product_id=product)))[:23] == before[1:]


def test_histories_and_events_keep_a_deleted_product(server: Running) -> None:
    state = server.live.state
    product = state.snapshot.ids[0]
    delete(server, product)
    event = event_pb2.Event(
        type=event_pb2.Event.PURCHASE, user_id="u", items=[event_pb2.Event.Item(product_id=product)]
    )
    assert server.write(event_service_pb2.WriteEventsRequest(events=[event])).written == 1
    assert state.behaviour.history("u").rows == (0,)
    answer = server.recommend(RecommendRequest(user_id="u", page_size=100))
    assert answer.hits
    assert product not in ids(answer)


def test_without_changes_nothing_is_made_anew(server: Running) -> None:
    state = server.live.state
    offer = state.assortment.offer
    assert offer.table is state.model.catalogue.table
    assert offer.products is state.snapshot.products
    assert (offer.rendered is state.snapshot.rendered, offer.listed) == (True, None)
    # Nor by changes to what the release does not hold.
    put(server, "elsewhere", price=1.0)
    delete(server, "nowhere")
    assert state.assortment.offer is offer


def test_the_status_counts_changed_and_deleted_products(server: Running) -> None:
    p, q, r = server.live.state.snapshot.ids[:3]
    put(server, p, price=1.0)
    put(server, p, in_stock=True)
    put(server, "elsewhere", in_stock=True)
    with closing(SqliteJournal(server.trained.store.root / FILE)) as other:
        now = round(time.time() * 1e6)
        other.change([Change(q, in_stock=False, stock_time=now), Change(r, deleted_time=now)])
    told = server.status(admin_service_pb2.GetStatusRequest())
    assert (told.products, told.products_with_live_inventory, told.products_deleted) == (600, 2, 1)


def test_changes_survive_a_restart(server: Running, start: Callable[..., Running], monkeypatch: Any) -> None:
    monkeypatch.setattr(State, "now", lambda _: 1.8e9)
    products = server.live.state.snapshot.ids
    for number, product in enumerate(products[:100]):
        put(server, product, price=number / 7, in_stock=number % 2 == 0)
    delete(server, *products[50:150])
    before = every_answer(server)
    again = start(server.trained)
    assert [content(answer) for answer in every_answer(again)] == [content(answer) for answer in before]


def warm(_: Any) -> None:
    """Nothing to warm."""


def told(live: Live, row: int) -> tuple[float | None, bool]:
    """The price that is shown of a product, and whether it is listed."""
    offer = live.state.assortment.offer
    message = offer.rendered.product(row)
    return message.price if message.HasField("price") else None, offer.lists(row)


def change(product: str, **values: Any) -> Change:
    now = round(time.time() * 1e6)
    times = {"price": "price_time", "in_stock": "stock_time"}
    return Change(product, **values, **{times[name]: now for name in values})


def gone(product: str) -> Change:
    return Change(product, deleted_time=round(time.time() * 1e6))


def test_a_change_that_another_process_took_is_in_the_next_answer(mine: Trained, live: Live) -> None:
    p, q = live.state.snapshot.ids[:2]
    with closing(SqliteJournal(mine.store.root / FILE)) as other:
        other.change([change(p, price=1.25), gone(q)])
        assert (told(live, 0)[0] == 1.25, told(live, 1)[1]) == (False, True)
        live.refresh()
        assert (told(live, 0)[0], told(live, 1)[1]) == (1.25, False)
        assert live.change([[change(p, price=2.5)], [gone(p)]])[0][0] is not None
        other.change([change(p, price=3.5)])
        live.refresh()
    assert told(live, 0) == (3.5, False)


def test_a_batch_sees_one_moment(live: Live) -> None:
    """What a filter passed by its price is shown at that price, whatever was written meanwhile."""
    p = live.state.snapshot.ids[0]
    live.change([[change(p, price=1.25)]])
    (answer,) = pipeline.recommend(live.state, [Ask(recent=[p])])
    live.change([[change(p, price=2.5), gone(p)]])
    assert (answer.offer.rendered.product(0).price, answer.offer.lists(0)) == (1.25, True)
    assert told(live, 0) == (2.5, False)


def test_changes_go_over_to_the_next_release(mine: Trained, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those from before it was loaded, those written meanwhile, and those written while it was warmed."""
    products = live.state.snapshot.ids
    live.change([[change(products[0], price=1.25), gone(products[4])]])
    real = live_module.load_state

    def load_while_writing(*arguments: Any) -> Any:
        live.change([[change(products[1], price=2.5), gone(products[5])]])
        return real(*arguments)

    monkeypatch.setattr(live_module, "load_state", load_while_writing)
    warming = [change(products[2], price=3.5), change(products[0], price=7.5), gone(products[6])]
    live.swap(Releases(mine.store).get(2), lambda _: live.change([warming]) and None)
    assert live.state.release.number == 2
    live.change([[change(products[3], price=4.5), gone(products[7])]])
    assert [told(live, row)[0] for row in range(4)] == [7.5, 2.5, 3.5, 4.5]
    assert [told(live, row)[1] for row in range(9)] == [True] * 4 + [False] * 4 + [True]


def built_of(mine: Trained, modified: float | None) -> None:
    """Let the index be of a catalogue file of this time, or of an earlier program."""
    path = mine.store.path("indexes", mine.release.index) / "manifest.json"
    manifest = mine.store.manifest("indexes", mine.release.index)
    assert manifest["catalogue"]["modified"] < time.time()
    manifest["catalogue"] = {"modified": modified}
    if modified is None:
        del manifest["catalogue"]
    write_json(path, manifest)


def test_a_catalogue_that_is_newer_than_a_change_knows_better(mine: Trained, live: Live) -> None:
    """The file is of a second after the first changes and before the last."""
    products, noon = live.state.snapshot.ids, 1.7e9
    early, late = round((noon - 1) * 1e6), round((noon + 1) * 1e6)
    prices = [told(live, row)[0] for row in range(5)]
    built_of(mine, noon)
    live.change(
        [
            [Change(products[0], 1.25, early, deleted_time=early), Change(products[1], 2.5, late)],
            [Change(products[2], 3.5, early, True, late, late), Change(products[3], 4.5, round(noon * 1e6))],
        ]
    )
    live.swap(Releases(mine.store).get(2), warm)
    assert [told(live, row) for row in range(5)] == [
        (prices[0], True),
        (2.5, True),
        (prices[2], False),
        (prices[3], True),
        (prices[4], True),
    ]
    # What was in the file may be deleted anew.
    live.change([[gone(products[0])]])
    assert told(live, 0) == (prices[0], False)


def test_all_changes_count_where_the_index_does_not_say_of_when_its_catalogue_is(mine: Trained, live: Live) -> None:
    p, q = live.state.snapshot.ids[:2]
    built_of(mine, None)
    live.change([[Change(p, 1.25, 0), Change(q, deleted_time=1)]])
    live.swap(Releases(mine.store).get(2), warm)
    assert (told(live, 0), told(live, 1)[1]) == ((1.25, True), False)
