"""Upserts of a running shop in its next release: a refresh takes them up, and a newer catalogue file overrules them."""

import io
from collections.abc import Callable
from typing import Any, cast

import polars as pl
import pytest
from harness import HashEncoder
from shops import Shop, snapshot, touch

from indexer import build
from ranker.changes import Change
from ranker.sqlite_journal import FILE, SqliteJournal
from ranker.upserts import Upsert
from server import rebuild as job
from server.assortment import catalogue_moment
from server.release import Release

Say = Callable[..., None]


@pytest.fixture
def shop(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    # Newer catalogue files are some minutes newer than one that was just made.
    monkeypatch.setattr(build, "_AHEAD", 1_000.0)
    return shop


@pytest.fixture
def made(shop: Shop) -> float:
    """When the catalogue file of the live index was modified, in Unix seconds."""
    moment = catalogue_moment(shop.made.store.manifest("indexes", shop.live.index)) / 1e6
    touch(shop, moment)
    return moment


@pytest.fixture
def say(shop: Shop, made: float) -> Say:
    """Upserts a product, and deletes it if told when; times are seconds after the live index's catalogue file."""

    def upserted(product: str, at: float, deleted: float | None = None, **values: str | float | bool) -> None:
        journal = SqliteJournal(shop.made.store.root / FILE)
        journal.upsert([Upsert(product, round((made + at) * 1e6), {"title": "zirconium teapot", **values})])
        if deleted is not None:
            journal.change([Change(product, deleted_time=round((made + deleted) * 1e6))])
        journal.close()

    return upserted


def row(shop: Shop, release: Release, product: str) -> dict[str, Any]:
    held = snapshot(shop, release)
    (found,) = held.products.slice(held.row_of[product], 1).to_pylist()
    return cast(dict[str, Any], found)


def test_a_refresh_takes_upserts_up(shop: Shop, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = cast(HashEncoder, shop.made.encoder)
    monkeypatch.setattr(encoder, "encoded", [])
    held = shop.products["product_id"][3]
    say("new", 100, price=4_321.0, brand="Acme", flavour="left out")
    say(held, 100, title="walnut shelf")
    live, found = shop.refresh()
    assert (live.number, found) == (2, (1, 0, 1))
    nothing = dict.fromkeys(shop.products.columns)
    said = {"product_id": "new", "title": "zirconium teapot", "price": 4_321.0, "brand": "Acme"}
    assert row(shop, live, "new") == nothing | said
    assert row(shop, live, held) == nothing | {"product_id": held, "title": "walnut shelf"}
    assert sorted(encoder.encoded) == ["walnut shelf", "zirconium teapot"]
    assert snapshot(shop, live).products.schema == snapshot(shop, shop.made.release).products.schema
    # They still come on top of the file, and are in the index now.
    assert shop.refresh() == (live, (0, 0, 0))
    say("newer", 200)
    assert shop.refresh()[1] == (1, 0, 0)


def test_what_is_not_later_than_the_file_is_in_it(shop: Shop, say: Say) -> None:
    say("new", 0)
    say(shop.products["product_id"][3], -1, brand="Acme")
    assert shop.refresh() == (shop.made.release, (0, 0, 0))


@pytest.mark.parametrize("deleted", [100, 150])
def test_what_was_deleted_since_is_not_appended(shop: Shop, say: Say, deleted: float) -> None:
    say("new", 100, deleted=deleted)
    assert shop.refresh() == (shop.made.release, (0, 0, 0))
    # Later it is listed once more.
    say("new", 151)
    assert shop.refresh()[1] == (1, 0, 0)


def test_a_newer_file_overrules(shop: Shop, say: Say, made: float) -> None:
    held = shop.products["product_id"][3]
    title = shop.products["title"][3]
    say("new", 100)
    say("both", 100)
    say(held, 100, title="walnut shelf")
    assert shop.refresh()[1] == (2, 0, 1)
    both = shop.products[:1].with_columns(product_id=pl.lit("both"), title=pl.lit("iron kettle"))
    shop.stock(pl.concat([shop.products, both]))
    touch(shop, made + 101)
    live, found = shop.refresh()
    assert found == (0, 1, 2)
    assert "new" not in snapshot(shop, live).row_of
    assert (row(shop, live, held)["title"], row(shop, live, "both")["title"]) == (title, "iron kettle")


@pytest.mark.parametrize("upserted", ["new", "held"])
def test_a_file_that_reads_as_before_overtakes_what_was_upserted_before_it(
    shop: Shop, say: Say, made: float, upserted: str
) -> None:
    """Else a product that is found by its upsert alone could be taken back by no export."""
    say(shop.products["product_id"][3] if upserted == "held" else upserted, 200, price=1.0, in_stock=True)
    touch(shop, made + 300)
    live, found = shop.refresh()
    assert (live.number, found) == (2, (0, 0, 1))
    assert catalogue_moment(snapshot(shop, live).manifest) == round((made + 300) * 1e6)
    touch(shop, made + 400)
    assert shop.refresh() == (live, (0, 0, 0))


def test_a_rebuild_takes_upserts_up(shop: Shop, say: Say) -> None:
    say("new", 100, brand="Acme")
    say("deleted", 100, deleted=101)
    small = shop.made.settings.ranker.model_copy(update={"trees": 5, "network_epochs": 1, "tower_epochs": 1})
    settings = shop.made.settings.model_copy(update={"ranker": small})
    live = job.rebuild(settings, job.JobLog(io.StringIO()), lambda *_: None, lambda _: None, "again")
    assert row(shop, live, "new")["brand"] == "Acme"
    assert len(snapshot(shop, live)) == len(shop.products) + 1


def test_without_a_journal_a_catalogue_is_left_as_it_is(shop: Shop) -> None:
    read = job.Catalogue(shop.products, [])
    assert not (shop.made.store.root / FILE).exists()
    assert job.amendment(shop.made.settings)(read, 1.0) is read
    assert not (shop.made.store.root / FILE).exists()
