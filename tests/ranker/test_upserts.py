"""Upserts in the journal: of each product the newest, with the changes that follow; and a catalogue with them in it."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from databases import Kept

from indexer.canonical import PRODUCTS
from ranker.changes import NEVER, Change
from ranker.journal import Entry, Journal, Position
from ranker.sqlite_journal import FILE, SqliteJournal
from ranker.upserts import Upsert, amended, listed


def upsert(at: int, product: str = "A", title: str = "red boot", **values: str | float | bool) -> Upsert:
    return Upsert(product, at, {"title": title, **values})


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_a_product_comes_back_whole(journal: Journal, kept: Kept) -> None:
    vector = np.linspace(-1, 1, 8, dtype=np.float32)
    said = {"title": "靴 “42”", "brand": "Acme", "price": 45.5, "in_stock": False, "size": 42.0, "new": True}
    made = Upsert("鞋", 10, said, "hash", vector)
    assert journal.upsert([made, upsert(20, "B")]) == [True, True]
    first, second = kept.open().upserts()
    assert first[:4] == made[:4]
    assert [type(value) for value in first.values.values()] == [str, str, float, bool, float, bool]
    assert first.vector is not None
    assert (first.vector.dtype, first.vector.tobytes()) == (np.float32, vector.tobytes())
    assert second == Upsert("B", 20, {"title": "red boot"}, "", None)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_newest_counts_whatever_comes_last(journal: Journal, order: tuple[int, ...]) -> None:
    said = [upsert(10, title="old", price=1.0), upsert(20, title="newer"), upsert(30, title="new", price=3.0)]
    written = journal.upsert([said[i] for i in order])
    assert written == [i == max(order[: place + 1]) for place, i in enumerate(order)]
    assert journal.upserts() == [said[2]]
    assert journal.changes() == [Change("A", 3.0, 30)]


def test_of_one_time_the_last_counts(journal: Journal) -> None:
    assert journal.upsert([upsert(10, title="a"), upsert(10, title="b")]) == [True, True]
    assert journal.upsert([upsert(10, title="b")]) == [True]
    assert journal.upserts() == [upsert(10, title="b")]


def test_an_outdated_one_changes_nothing(journal: Journal) -> None:
    journal.upsert([upsert(20, price=2.0)])
    read = journal.position()
    assert journal.upsert([upsert(19, price=1.0, in_stock=True)]) == [False]
    assert journal.position() == read
    assert journal.changes() == [Change("A", 2.0, 20)]


def test_price_and_stock_are_written_as_changes(journal: Journal) -> None:
    journal.change([Change("A", 1.0, 30, True, 5), Change("B", 1.0, 30)])
    journal.upsert([upsert(20, price=2.0, in_stock=False), upsert(40, "B", price=0.0), upsert(40, "C")])
    assert journal.changes() == [
        Change("A", 1.0, 30, False, 20),
        Change("B", 0.0, 40),
        # Of the third nothing is known but that it is listed.
        Change("C"),
    ]
    assert journal.changes(30) == [Change("B", 0.0, 40)]


@pytest.mark.parametrize(("deleted", "left"), [(19, NEVER), (20, NEVER), (21, 21)])
def test_a_deletion_that_is_not_later_is_undone(journal: Journal, deleted: int, left: int) -> None:
    journal.change([Change("A", 1.0, 10, deleted_time=deleted), Change("B", deleted_time=deleted)])
    journal.upsert([upsert(20), upsert(20, "B")])
    assert journal.changes() == [Change("A", 1.0, 10, deleted_time=left), Change("B", deleted_time=left)]


def test_an_outdated_one_does_not_undo_a_deletion(journal: Journal) -> None:
    journal.upsert([upsert(30)])
    journal.change([Change("A", deleted_time=10)])
    assert journal.upsert([upsert(20)]) == [False]
    assert journal.changes() == [Change("A", deleted_time=10)]


def test_who_reads_on_is_told_all_of_a_written_product(journal: Journal) -> None:
    """Even where its change is as it was: the product may be new to whoever reads."""
    journal.change([Change("A", 1.0, 30, deleted_time=40), Change("B", 1.0, 5), Change("C", deleted_time=1)])
    journal.upsert([upsert(20, "B")])
    read = journal.position()
    assert read == Position(0, 0, 4, 1)
    journal.upsert([upsert(30, "A", price=9.0), upsert(10, "B"), upsert(30, "C")])
    news = journal.news(read)
    assert [each.product_id for each in news.upserts] == ["A", "C"]
    # Of equal times the last counts; the third is listed again, and that is all that is known of it.
    assert news.changes == [Change("A", 9.0, 30, deleted_time=40), Change("C")]
    assert news.position == Position(0, 0, 6, 3)
    journal.upsert([upsert(30, "A", price=9.0)])
    assert journal.news(news.position)[3:] == ([Change("A", 9.0, 30, deleted_time=40)], [upsert(30, "A", price=9.0)])
    assert journal.news(journal.position())[3:] == ([], [])


def test_only_what_is_later_than_a_catalogue_is_read_for_it(journal: Journal) -> None:
    journal.upsert([upsert(at, name) for at, name in ((10, "A"), (20, "B"), (21, "C"), (0, "D"))])
    assert [each.product_id for each in journal.upserts(20)] == ["C"]
    assert [each.product_id for each in journal.upserts()] == ["A", "B", "C", "D"]


def test_a_journal_knows_by_its_version_that_products_were_upserted(tmp_path: Path) -> None:
    """A program that does not know of them refuses it, and would otherwise build an index without them."""
    path = tmp_path / FILE
    with closing(SqliteJournal(path)) as journal:
        check_versions(journal, path)
    SqliteJournal(path).close()
    assert version(path) == 4


def check_versions(journal: SqliteJournal, path: Path) -> None:
    journal.append([[Entry("e", 0, 1, "click", "u", None, None, None, "A")]])
    assert (journal.upserts(), journal.news(Position()).upserts, version(path)) == ([], [], 1)
    journal.erase("u")
    assert (journal.upserts(), version(path)) == ([], 2)
    journal.change([Change("A", 1.0, 1)])
    assert (journal.upserts(), journal.news(Position()).upserts, version(path)) == ([], [], 3)
    journal.upsert([upsert(1)])
    assert version(path) == 4
    journal.change([Change("A", 1.0, 1)])
    assert version(path) == 4


@pytest.mark.parametrize(
    "bad",
    [
        upsert(2**63),
        upsert(1, price=float("nan")),
        upsert(1, brand=object()),  # type: ignore[arg-type]
        upsert(1, None),  # type: ignore[arg-type]
    ],
    ids=["a time beyond 64 bits", "no number", "no value", "no product"],
)
def test_an_upsert_that_cannot_be_written_takes_its_batch_back(
    journal: Journal, kept: Kept, refused: tuple[type[Exception], ...], bad: Upsert
) -> None:
    with pytest.raises(refused):
        journal.upsert([upsert(1, "B", price=2.0), bad, upsert(1, "C")])
    assert (journal.upserts(), journal.changes(), journal.position()) == ([], [], Position())
    assert kept.uri or version(kept.store / FILE) == 1
    assert journal.upsert([upsert(1, "B")]) == [True]


PRODUCT = {"product_id": "A", "title": "boot", "category": "shoes", "brand": "Acme", "price": 9.5, "in_stock": True}
FURTHER: Mapping[str, pl.DataType] = {
    "size": pl.Int64(),
    "weight": pl.Float64(),
    "vegan": pl.Boolean(),
    "ean": pl.String(),
}
GIVEN: dict[str, Any] = {"size": 42, "weight": 1.5, "vegan": False, "ean": "0042"}


@pytest.fixture
def products() -> pl.DataFrame:
    """Products A, B and C with further columns of every type."""
    rows = [PRODUCT | GIVEN | {"product_id": name} for name in "ABC"]
    return pl.DataFrame(rows, schema={**PRODUCTS, **FURTHER})


def test_nothing_said_changes_nothing(products: pl.DataFrame) -> None:
    assert amended(products, [], [Change("A", deleted_time=5)]) is products
    assert amended(products, [upsert(5, "new")], [Change("new", deleted_time=5)]).equals(products)


def test_products_are_replaced_in_place_and_new_ones_follow_in_turn(products: pl.DataFrame) -> None:
    said = [upsert(1, "Z", "z"), upsert(1, "B", "b", price=2.0), upsert(1, "Y", "y", ean="7")]
    after = amended(products, said, [])
    assert after.schema == products.schema
    assert after["product_id"].to_list() == ["A", "B", "C", "Z", "Y"]
    assert after[[0, 2]].equals(products[[0, 2]])
    nothing = dict.fromkeys(products.columns)
    # What is not said of a product has no value any more.
    assert after.rows(named=True)[1] == nothing | {"product_id": "B", "title": "b", "price": 2.0}
    assert after.rows(named=True)[4] == nothing | {"product_id": "Y", "title": "y", "ean": "7"}


def test_values_of_every_type_take_their_columns(products: pl.DataFrame) -> None:
    said = {**PRODUCT, **GIVEN, "size": 42.0, "unknown": "left out"}
    (row,) = amended(
        products[:0], [upsert(1, **{name: said[name] for name in said if name != "product_id"})], []
    ).rows()
    assert row == products.row(0)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("size", "large"),
        ("size", 42.5),
        ("size", True),
        ("size", 1e300),
        ("size", 2.0**63),
        ("weight", "1.5"),
        ("weight", False),
        ("vegan", 1.0),
        ("vegan", "true"),
        ("ean", 42.0),
        ("ean", True),
    ],
)
def test_a_value_that_does_not_fit_is_none(products: pl.DataFrame, column: str, value: Any) -> None:
    after = amended(products, [upsert(1, **{"brand": "Acme", column: value})], [])
    assert after.schema == products.schema
    assert (after[column][0], after["brand"][0]) == (None, "Acme")


@pytest.mark.parametrize(("deleted", "there"), [(9, True), (10, False), (11, False)])
def test_what_was_deleted_since_is_not_appended(products: pl.DataFrame, deleted: int, there: bool) -> None:
    known = [Change("new", deleted_time=deleted), Change("A", deleted_time=deleted)]
    after = amended(products, [upsert(10, "new"), upsert(10, "A", "other"), upsert(10, "B", "b")], known)
    assert ("new" in after["product_id"]) == there
    # What the catalogue holds stays in it; that it is deleted is a change.
    assert after["title"].to_list()[:3] == ["other", "b", "boot"]


def test_what_was_deleted_since_is_not_listed() -> None:
    said = [Upsert(name, 10, {"title": name}) for name in "abcd"]
    known = [Change("a", deleted_time=9), Change("b", deleted_time=10), Change("c", deleted_time=11), Change("d")]
    assert [each.product_id for each in listed(said, known)] == ["a", "d"]
