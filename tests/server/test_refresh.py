"""The short job: the present catalogue goes live, ranked as before; a failure at any step leaves the live release."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from harness import (
    HashEncoder,
    RecommendRequest,
    Running,
    SearchRequest,
    Trained,
    copied,
    hash_encoder,
    ids,
    make_trained,
    wait_until,
)
from shops import Shop, snapshot, touch, with_catalogue
from vitrine.v1 import catalog_service_pb2, event_pb2, event_service_pb2

from indexer import build, tuned
from indexer.errors import InputError, LockedError, SnapshotError
from indexer.sample.shop import make_shop
from indexer.store import Store
from ranker.changes import Change
from ranker.sqlite_journal import SqliteJournal
from server import refresh as job
from server.assortment import Assortment
from server.rebuild import JobLog
from server.release import GateError, Releases

STEPS = {
    "open live index": (job, "IndexSnapshot"),
    "compare": (job, "read_catalogue"),
    "encoder": (job, "fitting_encoder"),
    "build": (job, "build_index"),
    "carry": (job, "carry"),
    "release": (Releases, "create"),
    "promote": (Releases, "promote"),
}


@pytest.fixture
def shop(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    # Newer catalogue files are some minutes newer than one that was just made.
    monkeypatch.setattr(build, "_AHEAD", 1_000.0)
    return shop


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_the_present_catalogue_goes_live_and_each_step_is_logged(shop: Shop) -> None:
    gone, dear, new = shop.change()
    stream = io.StringIO()
    live, found = shop.refresh(stream)
    assert found == (1, 1, 1)
    assert shop.live == live
    assert (live.number, live.note) == (2, "again")
    products = snapshot(shop, live)
    assert gone not in products.row_of
    assert new in products.row_of
    assert products.products.column("price")[products.row_of[dear]].as_py() == 4_321.0
    told = lines(stream)
    pairs = [(step, state) for step in STEPS for state in ("started", "done")]
    assert [(line["step"], line["state"]) for line in told[:-1] if line["step"] != "open index"] == pairs
    assert (told[-1]["step"], told[-1]["state"]) == ("refresh", "done")
    assert (told[-1]["new"], told[-1]["dropped"], told[-1]["changed"]) == (1, 1, 1)
    # What the report says is of the trained model, and so is the release's figure.
    assert live.gate["ndcg"] == shop.made.release.gate["ndcg"]
    assert live.gate["carried_from"] == shop.made.release.model


def test_only_new_titles_are_embedded(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = cast(HashEncoder, shop.made.encoder)
    monkeypatch.setattr(encoder, "encoded", [])
    shop.change()
    shop.refresh()
    assert encoder.encoded == ["zirconium teapot"]


def test_a_catalogue_without_a_change_is_left_alone(shop: Shop) -> None:
    shop.stock(shop.products.reverse())
    stream = io.StringIO()
    assert shop.refresh(stream) == (shop.made.release, (0, 0, 0))
    assert lines(stream)[-1]["state"] == "unchanged"
    assert "build" not in {line["step"] for line in lines(stream)}
    assert len(shop.made.store.ids("indexes")) == len(Releases(shop.made.store).list()) == 1
    shop.change()
    assert shop.refresh()[0].number == shop.refresh()[0].number == 2


def test_a_running_server_follows_and_knows_its_users(shop: Shop, start: Callable[..., Running]) -> None:
    server = start(shop.made)
    recommended = RecommendRequest(user_id="ann", page_size=20)
    bought = shop.products["product_id"][5]
    event = event_pb2.Event(
        type=event_pb2.Event.PURCHASE, user_id="ann", items=[event_pb2.Event.Item(product_id=bought)]
    )
    server.write(event_service_pb2.WriteEventsRequest(events=[event]))
    asked = SearchRequest(query="zirconium teapot", page_size=20)
    assert "new" not in ids(server.search(asked))
    gone, dear, new = shop.change()
    live, _ = shop.refresh()
    wait_until(lambda: server.live.state.release == live)
    found = server.search(asked)
    assert ids(found)[0] == new
    assert list(found.info.degraded) == []
    assert found.hits[0].member_scores.HasField("network")
    assert server.product(catalog_service_pb2.GetProductRequest(product_id=dear)).price == 4_321.0
    assert gone not in ids(server.recommend(RecommendRequest(page_size=100)))
    history = server.live.state.behaviour.history("ann")
    assert [server.live.state.snapshot.ids[row] for row in history.rows] == [bought]
    assert server.recommend(recommended).hits


@pytest.mark.parametrize("step", STEPS)
def test_a_failure_at_any_step_leaves_the_live_release(shop: Shop, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    shop.change()
    monkeypatch.setattr(*STEPS[step], fails)
    stream = io.StringIO()
    with pytest.raises(RuntimeError):
        shop.refresh(stream)
    assert shop.live == shop.made.release
    assert (lines(stream)[-1]["step"], lines(stream)[-1]["state"]) == (step, "failed")
    with shop.made.store.locked("rebuild"):
        pass


def test_what_cannot_be_read_leaves_the_live_release(shop: Shop) -> None:
    shop.stock(shop.products.with_columns(title=pl.lit("")))
    with pytest.raises(InputError, match="holds no usable row"):
        shop.refresh()
    shop.made.settings.indexer.catalogue.write_bytes(b"half a file")
    with pytest.raises(InputError, match="is damaged"):
        shop.refresh()
    assert shop.live == shop.made.release


def test_a_second_run_is_refused(shop: Shop) -> None:
    with shop.made.store.locked("rebuild"), pytest.raises(LockedError):
        shop.refresh()


def test_a_model_the_gate_refuses_does_not_go_live(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.release.LEAST_RECALL", 1.5)
    shop.change()
    with pytest.raises(GateError):
        shop.refresh()
    assert shop.live == shop.made.release


def test_what_was_rolled_back_meanwhile_stays_back(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    releases, real = Releases(shop.made.store), job.carry
    shop.change()
    second, _ = shop.refresh()

    def slow(*arguments: Any) -> str:
        releases.rollback()
        return real(*arguments)

    monkeypatch.setattr(job, "carry", slow)
    shop.stock(shop.products[:-5])
    with pytest.raises(GateError, match="Release 1 went live meanwhile, where this began with release 2"):
        shop.refresh()
    assert releases.list() == [shop.made.release, second]
    assert shop.live == shop.made.release


def test_without_a_live_release_there_is_nothing_to_carry(shop: Shop, tmp_path: Path) -> None:
    empty = shop.made.settings.model_copy(update={"store": tmp_path / "empty"})
    with pytest.raises(SnapshotError, match=r"has no live release. Make one with `vitrine rebuild`"):
        job.refresh(empty, JobLog(io.StringIO()), lambda *_: None, "again")


def test_a_release_without_a_ranking_is_refreshed_too(
    unlogged: Trained, start: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned, "load_encoder", lambda *_: unlogged.encoder)
    shop = with_catalogue(copied(unlogged, tmp_path), tmp_path)
    server = start(shop.made)
    shop.change()
    live, _ = shop.refresh()
    assert live.gate["ndcg"] is None
    wait_until(lambda: server.live.state.release == live)
    assert ids(server.search(SearchRequest(query="zirconium teapot")))[0] == "new"


def test_the_live_indexs_encoder_is_used_and_not_the_newest(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where an index of a newer one has been built: then the live one's vectors are at hand."""
    encoder = cast(HashEncoder, shop.made.encoder)
    other = hash_encoder("other")
    job.build_index(shop.made.store, shop.made.settings.indexer, other, lambda *_: None)
    monkeypatch.setattr(encoder, "encoded", [])
    shop.change()
    live, _ = shop.refresh()
    assert snapshot(shop, live).encoder_fingerprint == encoder.fingerprint
    assert encoder.encoded == ["zirconium teapot"]


def test_a_table_for_queries_stays_as_it_was_fitted(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = hash_encoder()
    dump = make_shop(300, sessions=300, seed=0)
    made = make_trained(dump, tmp_path_factory.mktemp("distilled"), encoder, query_encoder="distilled")
    monkeypatch.setattr(tuned, "load_encoder", lambda *_: encoder)
    shop = with_catalogue(copied(made, tmp_path), tmp_path)
    monkeypatch.setattr("indexer.build.distilled", lambda *_: pytest.fail("fitted anew"))
    for _ in range(2):
        shop.stock(shop.products[:-5])
        live, _ = shop.refresh()
    was, now = snapshot(shop, made.release), snapshot(shop, live)
    assert now.manifest["queries"] == {"fitted_for": was.id, **was.manifest["queries"]}
    asked = encoder.tokeniser(["hiking boots", "red"])
    for tokens in asked:
        np.testing.assert_array_equal(
            cast(Any, now.query_table).embed(tokens), cast(Any, was.query_table).embed(tokens)
        )


def test_a_store_of_the_live_release_alone_is_enough(shop: Shop) -> None:
    """Where somebody has cleared away what the trained model was."""
    shop.change()
    live, _ = shop.refresh()
    store = Store(shop.made.settings.store)
    shutil.rmtree(store.path("models", shop.made.release.model))
    shop.stock(shop.products[:-3])
    again, _ = shop.refresh()
    assert again.number == 3
    told = store.manifest("models", again.model)
    assert (told["carried_from"], told["carried"]["model"]) == (shop.made.release.model, live.model)


def test_what_earlier_refreshes_made_can_be_removed(shop: Shop, start: Callable[..., Running]) -> None:
    """Never what was trained, nor what a model is of that somebody trained on a refresh's index."""
    store, releases = shop.made.store, Releases(shop.made.store)
    server = start(shop.made)
    made = [shop.made.release]
    for keep in (None, None, None, 2):
        shop.stock(shop.products[:-1])
        made.append(shop.refresh(keep=keep)[0])
        if len(made) == 2:
            # Trained on the index of the first refresh, and not released.
            told = store.told("models", made[0].model) | {"index": made[1].index}
            mine = store.publish("models", lambda _, told=told: told)
        if len(made) == 3:
            wait_until(lambda: server.live.state.release == made[2])
    assert releases.list() == [made[0], *made[3:]]
    assert store.ids("models") == sorted({mine, *(each.model for each in releases.list())})
    assert store.ids("indexes") == sorted({made[1].index, *(each.index for each in releases.list())})
    assert list((store.root / "indexes").glob(".aside*")) == []
    assert releases.rollback() == made[3]
    assert ids(server.search(SearchRequest(query="hiking boots")))


def test_a_live_release_is_not_removed(shop: Shop) -> None:
    releases = Releases(shop.made.store)
    for _ in range(3):
        shop.stock(shop.products[:-1])
        shop.refresh()
    releases.promote(2)
    job.clear(shop.made.store, releases, 2)
    assert [each.number for each in releases.list()] == [1, 2, 3, 4]
    job.clear(shop.made.store, releases, 1)
    assert [each.number for each in releases.list()] == [1, 2, 4]
    assert releases.live().number == 2


def test_what_a_refused_refresh_left_over_is_removed_by_the_next(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    store = shop.made.store
    shop.change()
    with monkeypatch.context() as patch:
        patch.setattr("server.release.LEAST_RECALL", 1.5)
        with pytest.raises(GateError):
            shop.refresh()
    assert len(store.ids("models")) == len(store.ids("indexes")) == 2
    live, _ = shop.refresh(keep=2)
    assert store.ids("models") == [shop.made.release.model, live.model]
    assert store.ids("indexes") == [shop.made.release.index, live.index]


@pytest.mark.parametrize(
    "change",
    [{"price": 4_321.0, "price_time": 200}, {"in_stock": False, "stock_time": 200}, {"deleted_time": 200}],
    ids=["price", "stock", "deletion"],
)
def test_a_file_that_reads_as_before_overtakes_what_was_changed_before_it(shop: Shop, change: dict[str, Any]) -> None:
    """Else a product that was deleted by mistake could be listed again by no export."""
    made = Store(shop.made.settings.store).manifest("indexes", shop.live.index)["catalogue"]["modified"]
    times = {name: round((made + value) * 1e6) if name.endswith("time") else value for name, value in change.items()}
    journal = SqliteJournal(shop.made.settings.store / "journal.sqlite")
    journal.change([Change(product, **times) for product in (shop.products["product_id"][3], "never heard of")])
    journal.close()
    touch(shop, made + 100)
    assert shop.refresh() == (shop.live, (0, 0, 0))
    touch(shop, made + 300)
    live, found = shop.refresh()
    assert (live.number, found) == (2, (0, 0, 1))
    assert Assortment(snapshot(shop, live), cast(Any, None)).since > times[next(n for n in times if n.endswith("time"))]
    touch(shop, made + 400)
    assert shop.refresh() == (live, (0, 0, 0))
