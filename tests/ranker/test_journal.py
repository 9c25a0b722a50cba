"""The journal: what it acknowledges is there, once, in order, also after it was opened again."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from databases import Kept

from indexer.canonical import EVENTS
from indexer.errors import InputError, SnapshotError
from ranker import sqlite_journal
from ranker.journal import Entry, Journal, JournalError
from ranker.sqlite_journal import FILE, SqliteJournal

T0 = 1_700_000_000_000_000


def entry(event_id: str, item: int = 0, time: int = T0, product: str = "A", kind: str = "click") -> Entry:
    return Entry(event_id, item, time, kind, "u", "s", "r", "boot", product, position=3, quantity=1.0)


def test_events_come_back_canonical(journal: Journal) -> None:
    assert journal.append([[entry("e1", time=T0 + 250_000)]]) == [True]
    frame = journal.read()
    assert frame.schema == pl.Schema(EVENTS)
    (row,) = frame.rows(named=True)
    assert row["event_time"].timestamp() == T0 / 1e6 + 0.25
    assert (row["event_type"], row["user_id"], row["query"], row["product_id"]) == ("click", "u", "boot", "A")
    assert (row["position"], row["quantity"], row["price"], row["value"]) == (3, 1.0, None, None)


def test_an_empty_journal(journal: Journal) -> None:
    assert journal.sequence() == 0
    assert journal.read().schema == pl.Schema(EVENTS)
    assert journal.read().is_empty()
    assert journal.append([]) == []


def test_an_event_is_written_once(journal: Journal) -> None:
    assert journal.append([[entry("e1"), entry("e1", 1, product="B")], [entry("e2")]]) == [True, True]
    assert journal.append([[entry("e1", product="C")], [entry("e3")]]) == [False, True]
    assert journal.append([[entry("e4")], [entry("e4")]]) == [True, False]
    assert journal.read()["product_id"].to_list() == ["A", "B", "A", "A", "A"]
    assert journal.read()["event_id"].to_list() == ["e1", "e1", "e2", "e3", "e4"]


def test_reading_between_two_sequence_numbers(journal: Journal) -> None:
    journal.append([[entry("e1")], [entry("e2")]])
    before = journal.sequence()
    journal.append([[entry("e3")], [entry("e4")]])
    assert journal.read(after=before)["event_id"].to_list() == ["e3", "e4"]
    assert journal.read(up_to=before)["event_id"].to_list() == ["e1", "e2"]
    assert journal.read(after=before, up_to=before + 1)["event_id"].to_list() == ["e3"]
    assert journal.read(after=journal.sequence()).is_empty()


def test_what_was_acknowledged_is_there_after_reopening(journal: Journal, kept: Kept) -> None:
    journal.append([[entry("e1")], [entry("e2", kind="purchase")]])
    again = kept.open()
    assert again.read().equals(journal.read())
    assert again.append([[entry("e2")], [entry("e3")]]) == [False, True]
    assert journal.read()["event_id"].to_list() == ["e1", "e2", "e3"]


def test_a_failing_batch_leaves_nothing(journal: Journal, refused: tuple[type[Exception], ...]) -> None:
    with pytest.raises(refused):
        journal.append([[entry("e1")], [entry("e2")._replace(product_id=object())]])  # type: ignore[arg-type]
    assert journal.read().is_empty()
    assert journal.append([[entry("e1")]]) == [True]


def test_several_threads_may_write(journal: Journal) -> None:
    def write(thread: int) -> None:
        for i in range(20):
            journal.append([[entry(f"e{thread}-{i}")], [entry(f"shared-{i}")]])

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.read()["event_id"].n_unique() == len(journal.read()) == 4 * 20 + 20


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    SqliteJournal(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SnapshotError, match="version 99"):
        SqliteJournal(path)


def test_the_whole_log_is_in_time_order(
    journal: Journal, kept: Kept, tmp_path: Path, events: Callable[..., pl.DataFrame]
) -> None:
    imported = tmp_path / "events.parquet"
    events(
        {"event_id": "i1", "event_type": "click", "product_id": "A", "t": T0 // 10**6 + 5},
        {"event_id": "i2", "event_type": "click", "product_id": "B", "t": T0 // 10**6 + 7},
    ).write_parquet(imported)
    journal.append([[entry("j1", time=T0 + 6_000_000)], [entry("j2", time=T0)]])

    def ids(kept: Kept, path: Path | None, up_to: int | None = None) -> list[str] | None:
        frame = kept.log(path, up_to)
        return None if frame is None else frame["event_id"].to_list()

    assert ids(kept, imported) == ["j2", "i1", "j1", "i2"]
    assert ids(kept, imported, up_to=1) == ["i1", "j1", "i2"]
    assert ids(kept, None) == ["j2", "j1"]
    elsewhere = Kept(tmp_path / "elsewhere", "")
    assert ids(elsewhere, imported) == ["i1", "i2"]
    assert ids(elsewhere, None) is None
    with pytest.raises(InputError, match="does not exist"):
        kept.log(tmp_path / "missing.parquet")


def test_an_event_that_was_written_and_exported_counts_once(
    journal: Journal, kept: Kept, tmp_path: Path, events: Callable[..., pl.DataFrame]
) -> None:
    exported = tmp_path / "events.parquet"
    time = T0 // 10**6
    events(
        {"event_id": "e1", "event_type": "click", "product_id": "A", "t": time},
        {"event_id": "e1", "event_type": "click", "product_id": "B", "t": time},
        {"event_id": "i1", "event_type": "click", "product_id": "C", "t": time + 1},
        {"event_id": None, "event_type": "click", "product_id": "D", "t": time + 2},
    ).write_parquet(exported)

    def products() -> list[str]:
        frame = kept.log(exported, None)
        assert frame is not None
        return frame["product_id"].to_list()

    assert products() == ["A", "B", "C", "D"]
    journal.append([[entry("e1"), entry("e1", 1, product="B")], [entry("e2", product="E", time=T0 + 3_000_000)]])
    assert products() == ["A", "B", "C", "D", "E"]


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    with closing(SqliteJournal(tmp_path / "store" / FILE)) as journal:
        journal.append([[entry("e1")]])
        files = list((tmp_path / "store").glob(f"{FILE}*"))
        assert {file.name for file in files} >= {FILE, f"{FILE}-wal"}
        assert all(file.stat().st_mode & 0o077 == 0 for file in files if not file.name.endswith(".lock"))


def test_a_file_that_cannot_be_used_now_may_be_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_journal, "_TIMEOUT", 0.05)
    with (
        closing(SqliteJournal(tmp_path / FILE)) as journal,
        closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match=r"database is locked \(journal\.sqlite\)"):
            journal.append([[entry("e1")]])
        other.execute("ROLLBACK")
        assert journal.append([[entry("e1")]]) == [True]
        other.execute("DROP TABLE events")
        with pytest.raises(JournalError, match="no such table"):
            journal.read()


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    with closing(SqliteJournal(tmp_path / FILE)) as journal:
        journal.append([[entry("e1")]])
        pages = journal._connection.execute("PRAGMA page_count").fetchone()[0]
        journal._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(JournalError, match="is full"):
            journal.append([[entry(f"more {i}")] for i in range(1_000)])
        journal._connection.execute("PRAGMA max_page_count = 1000000")
        assert journal.append([[entry("e1")], [entry("e2")]]) == [False, True]


def test_a_file_that_is_in_use_when_it_is_opened_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteJournal(tmp_path / FILE).close()
    monkeypatch.setattr(sqlite_journal, "_TIMEOUT", 0.05)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("PRAGMA user_version = 1")
        with pytest.raises(JournalError, match=r"journal\.sqlite cannot be used now: database is locked"):
            SqliteJournal(tmp_path / FILE)


@pytest.mark.parametrize("name", ["", ".lock"])
def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{FILE}{name}").mkdir()
    with pytest.raises(JournalError, match=r"journal\.sqlite cannot be used now: "):
        SqliteJournal(tmp_path / FILE)


def test_a_commit_of_anybody_is_seen_once(journal: Journal, kept: Kept) -> None:
    assert not journal.changed()
    journal.append([[entry("e1")]])
    assert [kept.told(journal), journal.changed()] == [True, False]
    kept.open().append([[entry("e2")]])
    assert [kept.told(journal), journal.changed()] == [True, False]
    assert journal.sequence() == 2
