"""A user who is erased is gone from the journal's file, and stays gone where an imported log still names the user."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from databases import Kept

from indexer.canonical import EVENTS
from ranker.journal import Entry, Journal, Position
from ranker.sqlite_journal import FILE, SqliteJournal

T0 = 1_700_000_000
ANN, BOB = "ann@shop.example", "bob@shop.example"


def entry(event_id: str, user: str | None = ANN, session: str | None = None, product: str = "A") -> Entry:
    return Entry(event_id, 0, T0 * 10**6, "click", user, session, None, f"query of {user}", product)


def written(*users: str | None) -> list[list[Entry]]:
    return [[entry(f"e{number}", user)] for number, user in enumerate(users)]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteJournal]:
    with closing(SqliteJournal(tmp_path / FILE)) as journal:
        yield journal


def left(journal: Journal) -> list[str]:
    return journal.read()["event_id"].to_list()


def test_the_user_is_gone_and_the_others_are_there(journal: Journal) -> None:
    journal.append(written(ANN, BOB, None, ANN))
    assert journal.erase(ANN) == 2
    assert left(journal) == ["e1", "e2"]
    assert journal.erase(ANN) == 0
    assert journal.erase("nobody") == 0
    assert left(journal) == ["e1", "e2"]


def test_what_was_done_in_the_users_sessions_before_the_login_goes_too(journal: Journal) -> None:
    sessions = [(ANN, "s1"), (None, "s1"), (None, "s2"), (BOB, "s1"), (None, None), (ANN, None)]
    journal.append([[entry(f"e{number}", user, session)] for number, (user, session) in enumerate(sessions)])
    assert journal.erase(ANN) == 3
    assert left(journal) == ["e2", "e3", "e4"]


def test_no_file_of_the_journal_names_the_user_any_more(file: SqliteJournal, tmp_path: Path) -> None:
    """Neither free pages nor the write-ahead log."""
    file.append([[entry(f"e{number}", user)] for number, user in enumerate([ANN, BOB] * 500)])
    assert named(tmp_path, ANN)
    file.erase(ANN)
    assert not named(tmp_path, ANN)
    assert named(tmp_path, BOB)


def named(folder: Path, user: str) -> list[str]:
    return [path.name for path in folder.iterdir() if user.encode() in path.read_bytes()]


def test_while_somebody_reads_the_write_ahead_log_is_emptied_later(file: SqliteJournal, tmp_path: Path) -> None:
    file.append(written(ANN, BOB))
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT COUNT(*) FROM events").fetchone() == (2,)
        assert file.erase(ANN) == 1
        assert named(tmp_path, ANN)
        file.append([[entry("later", BOB)]])
        assert named(tmp_path, ANN)
        reader.execute("COMMIT")
        file.append([[entry("at last", BOB)]])
        assert not named(tmp_path, ANN)


def test_a_later_event_of_the_user_is_kept(journal: Journal) -> None:
    journal.append(written(ANN))
    journal.erase(ANN)
    assert journal.append([[entry("again", ANN)]]) == [True]
    assert left(journal) == ["again"]
    # Under the number that it would have had.
    assert journal.sequence() == 2


def test_an_erased_events_number_is_not_given_again(journal: Journal) -> None:
    journal.append(written(BOB, ANN))
    before = journal.position()
    journal.erase(ANN)
    assert journal.position() == Position(2, 1)
    journal.append([[entry("new", BOB)]])
    assert journal.news(before).events["event_id"].to_list() == ["new"]


def test_news_are_who_was_erased_and_what_came_since(journal: Journal) -> None:
    journal.append(written(ANN, BOB))
    before = journal.position()
    assert not journal.news(Position()).erased
    journal.erase(ANN, lambda: T0 + 5.0)
    journal.append([[entry("again", ANN)]])
    news = journal.news(before)
    assert news.position == Position(3, 1)
    assert news.erased.moment(ANN) == (T0 + 5) * 10**6
    assert news.erased.moment(BOB) is None
    assert news.events["event_id"].to_list() == ["again"]
    assert not journal.news(news.position).erased
    assert journal.news(news.position).events.is_empty()


def imported(path: Path) -> Path:
    """Events of both users a second apart from T0 on, and of nobody."""
    users = [ANN, BOB, None, ANN, BOB]
    columns = {name: [None] * len(users) for name in EVENTS} | {
        "event_id": [f"i{number}" for number in range(len(users))],
        "event_time": [(T0 + number) * 10**6 for number in range(len(users))],
        "event_type": ["click"] * len(users),
        "user_id": users,
        "product_id": ["A"] * len(users),
    }
    raw = {name: pl.Int64() if name == "event_time" else dtype for name, dtype in EVENTS.items()}
    pl.DataFrame(columns, schema=raw).cast(EVENTS).write_parquet(path)
    return path


@pytest.mark.parametrize(
    ("moment", "read"),
    [
        (-1.0, ["i0", "i1", "i2", "i3", "i4"]),
        (0.0, ["i1", "i2", "i3", "i4"]),
        (2.5, ["i1", "i2", "i3", "i4"]),
        (3.0, ["i1", "i2", "i4"]),
    ],
)
def test_imported_events_up_to_the_erasure_are_not_read(
    journal: Journal, kept: Kept, tmp_path: Path, moment: float, read: list[str]
) -> None:
    path = imported(tmp_path / "events.parquet")
    journal.erase(ANN, lambda: T0 + moment)
    log = kept.log(path)
    assert log is not None
    assert log["event_id"].to_list() == read


def test_of_the_imported_log_the_users_sessions_are_left_out_too(journal: Journal, kept: Kept, tmp_path: Path) -> None:
    path = imported(tmp_path / "events.parquet")
    sessions = pl.Series("session_id", ["s1", "s1", "s1", "s2", "s2"])
    frame = pl.read_parquet(path).with_columns(sessions)
    # Twice nobody, of whom one is in a session of hers, before and after the moment.
    nobody = frame.with_columns(pl.lit(None, pl.String).alias("user_id"), pl.col("event_id").str.replace("i", "n"))
    pl.concat([frame, nobody, nobody.with_columns(pl.lit("s3").alias("session_id"))]).write_parquet(path)
    journal.erase(ANN, lambda: T0 + 1.5)
    log = kept.log(path)
    assert log is not None
    read = [(row["event_id"], row["session_id"]) for row in log.rows(named=True)]
    assert sorted(read) == sorted(
        [
            *[("i1", "s1"), ("i2", "s1"), ("i3", "s2"), ("i4", "s2")],
            *[("n2", "s1"), ("n3", "s2"), ("n4", "s2")],
            *[(f"n{number}", "s3") for number in range(5)],
        ]
    )


def test_the_latest_of_several_erasures_counts(journal: Journal, kept: Kept, tmp_path: Path) -> None:
    path = imported(tmp_path / "events.parquet")
    for moment in (0.0, 3.0, 1.0):
        journal.erase(ANN, lambda moment=moment: T0 + moment)  # type: ignore[misc]
    log = kept.log(path)
    assert log is not None
    assert log["user_id"].to_list() == [BOB, None, BOB]


def test_erasures_hold_after_reopening_and_for_other_processes(journal: Journal, kept: Kept) -> None:
    journal.append(written(ANN, BOB))
    other = kept.open()
    assert not other.changed()
    journal.erase(ANN)
    assert kept.told(other)
    assert other.erased().moment(ANN) is not None
    assert other.erased().moment(BOB) is None
    assert left(other) == ["e1"]


def test_a_journal_knows_by_its_version_that_somebody_was_erased(file: SqliteJournal, tmp_path: Path) -> None:
    """A program that does not know of erasures refuses it, and would otherwise read imported events again."""

    def version() -> int:
        with closing(sqlite3.connect(tmp_path / FILE)) as connection:
            return int(connection.execute("PRAGMA user_version").fetchone()[0])

    assert version() == 1
    file.erase(ANN)
    assert version() == 2
    SqliteJournal(tmp_path / FILE).close()
    assert version() == 2


def test_an_erasure_that_fails_changes_nothing(journal: Journal) -> None:
    journal.append(written(ANN, BOB))
    with pytest.raises(ZeroDivisionError):
        journal.erase(ANN, lambda: 1 / 0)
    assert left(journal) == ["e0", "e1"]
    assert not journal.erased()
    assert journal.erase(ANN) == 1
