"""The journal: what it acknowledges is there, once, in order, also after it was opened again."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from indexer.canonical import EVENTS
from indexer.errors import InputError, SnapshotError
from ranker.journal import FILE, Entry, Journal, read_log

T0 = 1_700_000_000_000_000


def entry(event_id: str, item: int = 0, time: int = T0, product: str = "A", kind: str = "click") -> Entry:
    return Entry(event_id, item, time, kind, "u", "s", "r", "boot", product, position=3, quantity=1.0)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "store" / FILE)
    yield journal
    journal.close()


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


def test_what_was_acknowledged_is_there_after_reopening(journal: Journal, tmp_path: Path) -> None:
    journal.append([[entry("e1")], [entry("e2", kind="purchase")]])
    again = Journal(tmp_path / "store" / FILE)
    assert again.read().equals(journal.read())
    assert again.append([[entry("e2")], [entry("e3")]]) == [False, True]
    assert journal.read()["event_id"].to_list() == ["e1", "e2", "e3"]
    again.close()


def test_a_failing_batch_leaves_nothing(journal: Journal) -> None:
    with pytest.raises(sqlite3.Error):
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
    Journal(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SnapshotError, match="version 99"):
        Journal(path)


def test_the_whole_log_is_in_time_order(tmp_path: Path, events: Callable[..., pl.DataFrame]) -> None:
    imported = tmp_path / "events.parquet"
    events(
        {"event_id": "i1", "event_type": "click", "product_id": "A", "t": T0 // 10**6 + 5},
        {"event_id": "i2", "event_type": "click", "product_id": "B", "t": T0 // 10**6 + 7},
    ).write_parquet(imported)
    journal = Journal(tmp_path / FILE)
    journal.append([[entry("j1", time=T0 + 6_000_000)], [entry("j2", time=T0)]])
    journal.close()

    def ids(path: Path | None, store: Path, up_to: int | None = None) -> list[str] | None:
        frame = read_log(path, store, up_to)
        return None if frame is None else frame["event_id"].to_list()

    assert ids(imported, tmp_path) == ["j2", "i1", "j1", "i2"]
    assert ids(imported, tmp_path, up_to=1) == ["i1", "j1", "i2"]
    assert ids(None, tmp_path) == ["j2", "j1"]
    assert ids(imported, tmp_path / "elsewhere") == ["i1", "i2"]
    assert ids(None, tmp_path / "elsewhere") is None
    with pytest.raises(InputError, match="does not exist"):
        read_log(tmp_path / "missing.parquet", tmp_path)


def test_only_its_owner_can_read_it(journal: Journal, tmp_path: Path) -> None:
    journal.append([[entry("e1")]])
    files = list((tmp_path / "store").glob(f"{FILE}*"))
    assert {file.name for file in files} >= {FILE, f"{FILE}-wal"}
    assert all(file.stat().st_mode & 0o077 == 0 for file in files if not file.name.endswith(".lock"))


def test_a_commit_of_anybody_is_seen_once(journal: Journal, tmp_path: Path) -> None:
    assert not journal.changed()
    journal.append([[entry("e1")]])
    assert [journal.changed(), journal.changed()] == [True, False]
    other = Journal(tmp_path / "store" / FILE)
    other.append([[entry("e2")]])
    other.close()
    assert [journal.changed(), journal.changed()] == [True, False]
    assert journal.sequence() == 2
