"""Catalogue changes in the journal: one row a product, of each part the newest, and news for whoever reads on."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import permutations
from pathlib import Path

import pytest
from databases import Kept

from indexer.errors import SnapshotError
from ranker.changes import NEVER, Change
from ranker.journal import Entry, Journal, Position
from ranker.sqlite_journal import FILE, SqliteJournal

# Sets prices for ever, two products at a time, and prints each that was acknowledged.
WRITER = """
import sys
from pathlib import Path
from pydantic import SecretStr
from ranker.changes import Change
from ranker.journals import open_journal

journal, number = open_journal(Path(sys.argv[1]), SecretStr(sys.argv[2])), 0
while True:
    journal.change([Change(name, float(number), number) for name in ("A", "B")])
    print(number, flush=True)
    number += 1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE


@pytest.fixture
def file(path: Path) -> Iterator[SqliteJournal]:
    with closing(SqliteJournal(path)) as journal:
        yield journal


def priced(price: float, at: int, product: str = "A") -> Change:
    return Change(product, price, at)


def stocked(in_stock: bool, at: int, product: str = "A") -> Change:
    return Change(product, in_stock=in_stock, stock_time=at)


def deleted(at: int, product: str = "A") -> Change:
    return Change(product, deleted_time=at)


def test_parts_are_kept_beside_each_other(journal: Journal) -> None:
    assert journal.change([priced(2.5, 10), stocked(False, 20), deleted(30), priced(4.0, 5, "B")]) == [
        None,
        Change("A", 2.5, 10),
        Change("A", 2.5, 10, False, 20),
        None,
    ]
    assert journal.changes() == [Change("A", 2.5, 10, False, 20, 30), Change("B", 4.0, 5)]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_of_each_part_the_newest_counts_whatever_comes_last(journal: Journal, order: tuple[int, ...]) -> None:
    said = [priced(1.0, 10), priced(2.0, 30), Change("A", 3.0, 20, True, 20), stocked(False, 25)]
    journal.change([said[i] for i in order])
    assert journal.changes() == [Change("A", 2.0, 30, False, 25)]


def test_of_one_time_what_came_last_counts(journal: Journal) -> None:
    journal.change([priced(1.0, 10)])
    assert journal.change([priced(2.0, 10)]) == [Change("A", 1.0, 10)]
    assert journal.changes() == [Change("A", 2.0, 10)]


def test_a_deletion_is_never_dated_back(journal: Journal) -> None:
    journal.change([deleted(10), deleted(5), priced(1.0, 20)])
    assert journal.changes() == [Change("A", 1.0, 20, deleted_time=10)]


def test_there_is_one_row_a_product_and_news_of_those_that_changed(journal: Journal) -> None:
    for number in range(50):
        journal.change([priced(float(number), number, product) for product in "ABC"])
    read = journal.position()
    assert read == Position(0, 0, 150)
    assert journal.news(read).changes == []
    journal.change([priced(7.0, 60, "B"), priced(0.0, 1, "C")])
    assert journal.news(read).changes == [Change("B", 7.0, 60)]
    # An older one of C is not news.
    assert journal.news(read).position == Position(0, 0, 151)
    assert [change.product_id for change in journal.news(Position()).changes] == ["A", "C", "B"]


def test_only_what_is_later_than_a_catalogue_is_read_for_it(journal: Journal) -> None:
    journal.change(
        [priced(1.0, 10), priced(1.0, 20, "B"), stocked(True, 30, "B"), deleted(21, "C"), stocked(True, 0, "D")]
    )
    assert [change.product_id for change in journal.changes(20)] == ["B", "C"]
    assert [change.product_id for change in journal.changes()] == ["A", "B", "C", "D"]


def test_another_process_is_told(journal: Journal, kept: Kept) -> None:
    other = kept.open()
    before = other.position()
    journal.change([deleted(10)])
    assert [kept.told(other), other.changed()] == [True, False]
    assert other.news(before).changes == [deleted(10)]
    other.change([stocked(True, 20)])
    assert journal.news(before).changes == [Change("A", None, NEVER, True, 20, 10)]


def test_changes_are_there_after_reopening(journal: Journal, kept: Kept) -> None:
    journal.change([priced(1.5, 10), deleted(20, "靴")])
    assert kept.open().changes() == [priced(1.5, 10), deleted(20, "靴")]


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def test_a_journal_knows_by_its_version_that_the_catalogue_was_changed(file: SqliteJournal, path: Path) -> None:
    """A program that does not know of changes refuses it, and would otherwise show what was deleted."""
    file.append([[Entry("e", 0, 1, "click", "u", None, None, None, "A")]])
    assert version(path) == 1
    assert file.news(Position()).changes == file.changes() == []
    file.erase("u")
    assert version(path) == 2
    assert file.news(Position()).changes == []
    file.change([deleted(1)])
    assert version(path) == 3
    file.erase("u")
    SqliteJournal(path).close()
    assert version(path) == 3


@pytest.mark.parametrize(
    "bad",
    [priced(1.0, 2**63), Change("B", object(), 1), Change(None, 1.0, 1)],  # type: ignore[arg-type]
    ids=["a time beyond 64 bits", "no price", "no product"],
)
def test_a_change_that_cannot_be_written_takes_its_batch_back(
    journal: Journal, kept: Kept, refused: tuple[type[Exception], ...], bad: Change
) -> None:
    with pytest.raises(refused):
        journal.change([priced(1.0, 10), bad, deleted(10)])
    assert (journal.changes(), journal.position()) == ([], Position())
    assert kept.uri or version(kept.store / FILE) == 1
    assert journal.change([priced(1.0, 10)]) == [None]


def test_a_kill_loses_nothing_that_was_acknowledged(kept: Kept) -> None:
    command = [sys.executable, "-c", WRITER, str(kept.store), kept.uri.get_secret_value()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline())]
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGKILL)
        # A line the kill cut short was not acknowledged whole.
        acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    found = kept.open().changes()
    assert [change.product_id for change in found] == ["A", "B"]
    # Both products of one batch: the last that was acknowledged, or the one that was on its way.
    assert {change.price for change in found} in ({acknowledged[-1]}, {acknowledged[-1] + 1})


def test_a_journal_of_a_later_version_is_refused(file: SqliteJournal, path: Path) -> None:
    file.change([deleted(1)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 5")
    with pytest.raises(SnapshotError, match="version 5; this program reads versions up to 4"):
        SqliteJournal(path)
