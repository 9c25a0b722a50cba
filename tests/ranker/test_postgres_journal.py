"""What only PostgreSQL's journal has to prove: numbers in commit order, news unasked, and a database that goes away."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from databases import PATIENCE, Postgres
from pydantic import SecretStr

from indexer.errors import ConfigError, SnapshotError
from ranker.changes import Change
from ranker.journal import Entry, JournalError, Position

psycopg = pytest.importorskip("psycopg", reason="needs psycopg: pip install -e '.[postgres]'")

from ranker import listener, postgres  # noqa: E402
from ranker.postgres_journal import PostgresJournal  # noqa: E402


def event(name: str) -> list[Entry]:
    return [Entry(name, 0, 1, "click", "u", None, None, None, "p")]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


@pytest.fixture
def one(database: str) -> Iterator[PostgresJournal]:
    with closing(PostgresJournal(SecretStr(database))) as journal:
        yield journal


@pytest.fixture
def other(database: str) -> Iterator[PostgresJournal]:
    with closing(PostgresJournal(SecretStr(database))) as journal:
        yield journal


@pytest.fixture
def lent(postgres: Postgres) -> Iterator[Postgres]:
    """The server, for a test that stops it: it runs again afterwards."""
    yield postgres
    postgres.start()


def backends(postgres: Postgres, database: str, condition: str) -> int:
    """End the connections to a database that meet a condition; returns how many there were."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    ended = postgres.run(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND {condition}"
    )
    return len(ended)


def test_a_number_is_given_when_those_below_it_are_committed(
    one: PostgresJournal, other: PostgresJournal, database: str
) -> None:
    """A transaction that began first and commits last: who read on meanwhile would miss its numbers for ever."""
    one.append([event("e0")])
    read, done = other.position(), threading.Event()
    with psycopg.connect(database) as slow:
        slow.execute("SELECT events FROM vitrine.journal FOR UPDATE")
        slow.execute("UPDATE vitrine.journal SET events = 2")
        slow.execute(
            "INSERT INTO vitrine.events (number, event_id, item, event_time, event_type, product_id) "
            "VALUES (2, 'slow', 0, 1, 'click', 'p')"
        )

        def write() -> None:
            one.append([event("fast")])
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        assert not done.wait(0.2)
        assert other.position() == read
        slow.commit()
        writer.join(PATIENCE)
    news = other.news(read)
    assert (news.events["event_id"].to_list(), news.position.sequence) == (["slow", "fast"], 3)


def test_readers_miss_nothing_while_many_write(database: str, other: PostgresJournal) -> None:
    def write(name: str) -> None:
        with closing(PostgresJournal(SecretStr(database))) as journal:
            for number in range(30):
                journal.append([event(f"{name}{number}"), event(f"both{number}")])

    writers = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for writer in writers:
        writer.start()
    found: list[str] = []
    read = Position()
    while any(writer.is_alive() for writer in writers) or other.position() != read:
        news = other.news(read)
        found += news.events["event_id"].to_list()
        read = news.position
    assert sorted(found) == sorted([*(f"{name}{n}" for name in ("a", "b", "c", "both") for n in range(30))])
    assert other.read()["event_id"].to_list() == found


def test_news_are_of_one_moment(one: PostgresJournal, other: PostgresJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    from ranker import postgres_journal

    real = postgres_journal._erased

    def meanwhile(*given: Any) -> Any:
        one.append([event("late")])
        one.change([Change("A", 2.0, 2)])
        return real(*given)

    one.append([event("early")])
    one.change([Change("A", 1.0, 1)])
    with monkeypatch.context() as patch:
        patch.setattr(postgres_journal, "_erased", meanwhile)
        news = other.news(Position())
    assert news[0] == Position(1, 0, 1)
    assert news.events["event_id"].to_list() == ["early"]
    # The row that was there then is another one now.
    assert news.changes == [Change("A", 1.0, 1)]
    assert other.news(news.position).changes == [Change("A", 2.0, 2)]


def test_whether_something_changed_is_known_without_asking(
    one: PostgresJournal, other: PostgresJournal, postgres: Postgres, database: str
) -> None:
    other.append([event("e")])
    wait_until(one.changed)
    began = time.perf_counter()
    for _ in range(1000):
        one.changed()
    assert (time.perf_counter() - began) / 1000 < 50e-6
    # Nor what changed nothing.
    other.append([event("e")])
    other.change([])
    time.sleep(0.1)
    assert not one.changed()


def test_what_is_acknowledged_is_on_disk_whatever_the_role_is_set_to(
    one: PostgresJournal, postgres: Postgres, database: str
) -> None:
    held = {
        "synchronous_commit": "on",
        "lock_timeout": "5s",
        "statement_timeout": "10s",
        "idle_in_transaction_session_timeout": "10s",
        # Nor does it read a whole table for a few keys.
        "enable_seqscan": "off",
    }

    def told(name: str) -> Any:
        return one._writer.run(lambda cursor: cursor.execute(f"SHOW {name}").fetchone())

    assert {name: (value,) for name, value in held.items()} == {name: told(name) for name in held}
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    for given, meant in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        postgres.run(f"ALTER DATABASE {name} SET synchronous_commit = {given}")
        one._writer.close()
        assert told("synchronous_commit") == (meant,)


def test_a_stale_connection_is_opened_anew(
    one: PostgresJournal, other: PostgresJournal, postgres: Postgres, database: str
) -> None:
    """All but those that listen: these notice by themselves."""
    one.append([event("e1")])
    assert one.position() == other.position() == Position(1)
    assert backends(postgres, database, "query NOT LIKE '%LISTEN%'") == 3
    assert one.append([event("e2"), event("e1")]) == [True, False]
    assert one.change([Change("A", 1.0, 1)]) == [None]
    assert one.position() == other.position() == Position(2, 0, 1)


def test_what_was_committed_while_nobody_listened_is_told(
    one: PostgresJournal, other: PostgresJournal, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, real = threading.Event(), one._listener._connect
    faults = [JournalError("not yet"), RuntimeError("what nobody thought of")]

    def connect(first: str) -> Any:
        if faults:
            raise faults.pop()
        gate.wait(PATIENCE)
        return real(first)

    monkeypatch.setattr(listener, "_AGAIN", 0.0)
    monkeypatch.setattr(one._listener, "_connect", connect)
    assert backends(postgres, database, "query LIKE '%LISTEN%'") == 2
    # That the connection is lost is told, for whoever asks then to find it out.
    wait_until(one.changed)
    wait_until(lambda: not faults)
    with pytest.raises(JournalError):
        one.position()
    wait_until(lambda: not other._listener.away())
    other.append([event("missed")])
    assert not one.changed()
    gate.set()
    wait_until(one.changed)
    assert one.read()["event_id"].to_list() == ["missed"]


def test_while_the_database_is_away_everything_fails_at_once(
    one: PostgresJournal, lent: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.append([event("e1")])
    assert one.position() == Position(1)
    monkeypatch.setattr(listener, "_AGAIN", 0.1)
    lent.stop()
    wait_until(lambda: bool(one._listener.away()))
    began = time.perf_counter()
    for ask in (one.position, one.erased, lambda: one.append([event("e2")]), lambda: one.erase("u")):
        with pytest.raises(JournalError):
            ask()
    assert time.perf_counter() - began < 0.05
    one.changed()
    lent.start()
    wait_until(lambda: not one._listener.away())
    assert one.changed()
    assert one.append([event("e1"), event("e2")]) == [False, True]
    assert one.sequence() == 2


def test_who_finds_it_away_tells_the_others(one: PostgresJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that swallows everything is found out by whoever waits first; nobody else does."""

    def unreachable(first: str = "") -> Any:
        raise JournalError("no route")

    assert one.position() == Position()
    one._reader.close()
    monkeypatch.setattr(one._reader._database, "connect", unreachable)
    monkeypatch.setattr(one._listener, "_connect", unreachable)
    with pytest.raises(JournalError, match="no route"):
        one.position()
    assert one._listener.away() == "no route"
    with pytest.raises(JournalError, match="no route"):
        one.append([event("e")])


def test_a_database_that_hangs_is_given_up(
    one: PostgresJournal, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is frozen, so that no timeout of its own ends anything, and its machine still answers for its network."""

    def pid(line: Any) -> int:
        return int(line._connection.info.backend_pid)

    monkeypatch.setattr(postgres, "_PATIENCE", 0.2)
    assert one.append([event("e1")]) == [True]
    assert one.position() == Position(1)
    frozen = pid(one._reader), pid(one._writer)
    try:
        for each in frozen:
            os.kill(each, signal.SIGSTOP)
        # The others of its processes are well, and so the second try is.
        assert one.position() == Position(1)
        with monkeypatch.context() as patch:
            patch.setattr(one._writer._database, "connect", lambda: (_ for _ in ()).throw(JournalError("frozen")))
            with pytest.raises(JournalError, match="frozen"):
                one.append([event("e2")])
    finally:
        for each in frozen:
            os.kill(each, signal.SIGCONT)
    wait_until(lambda: not one._listener.away())
    assert one.append([event("e2")]) == [True]


def test_what_the_database_refuses_now_is_told_as_that(one: PostgresJournal, database: str) -> None:
    """A lock that somebody holds for long; the tables gone."""
    with psycopg.connect(database) as holder:
        holder.execute("SELECT FROM vitrine.journal FOR UPDATE")
        one._writer.run(lambda cursor: cursor.execute("SET lock_timeout = '50ms'"))
        with pytest.raises(JournalError, match="lock timeout"):
            one.append([event("e")])
    assert one.append([event("e")]) == [True]
    with psycopg.connect(database) as owner:
        owner.execute("DROP SCHEMA vitrine CASCADE")
    for ask in (one.position, lambda: one.append([event("e2")])):
        with pytest.raises(JournalError, match=r'"vitrine\.journal" does not exist'):
            ask()
    assert not one._listener.away()


def test_a_closed_journal_is_closed(one: PostgresJournal) -> None:
    one.close()
    assert not one._listener._thread.is_alive()
    with pytest.raises(JournalError, match="closed"):
        one.position()


def test_a_journal_of_a_later_program_is_refused(one: PostgresJournal, postgres: Postgres, database: str) -> None:
    postgres.run("UPDATE vitrine.journal SET version = 2", uri=database)
    with pytest.raises(SnapshotError, match="is of version 2; this program reads versions up to 1"):
        PostgresJournal(SecretStr(database))


def test_a_database_that_cannot_hold_a_chinese_title_is_refused(postgres: Postgres) -> None:
    postgres.run("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with pytest.raises(SnapshotError, match="encoding LATIN1; make a database WITH ENCODING 'UTF8'"):
        PostgresJournal(SecretStr(postgres.uri("latin")))


def test_what_its_role_must_be_allowed(postgres: Postgres, database: str) -> None:
    """To make the schema, or to own one that somebody made; no more than that."""
    postgres.run("CREATE ROLE clerk LOGIN", uri=database)
    try:
        clerk = SecretStr(database.replace("postgres:@", "clerk@"))
        with pytest.raises(SnapshotError, match=r"permission denied.*must own the schema vitrine") as caught:
            PostgresJournal(clerk)
        assert caught.value.exit_code == 4
        postgres.run("CREATE SCHEMA vitrine AUTHORIZATION clerk", uri=database)
        for _ in "12":
            with closing(PostgresJournal(clerk)) as journal:
                journal.append([event("e")])
                assert journal.erase("u") in (0, 1)
    finally:
        postgres.run("DROP SCHEMA IF EXISTS vitrine CASCADE", "DROP ROLE clerk", uri=database)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ann:sesame@127.0.0.1:1/shop",
        "postgresql://ann@127.0.0.1:1/shop?password=sesame",
        "postgresql://ann:sesame%zz@127.0.0.1:1/shop",
        "postgresql://127.0.0.1:sesame/shop",
        "postgresql://ann@127.0.0.1:1/shop?sesame=1",
        "postgresql://ann:sesame@nowhere.invalid/shop",
    ],
)
def test_no_message_holds_a_password(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises((JournalError, ConfigError)) as caught:
        PostgresJournal(SecretStr(uri))
    assert "sesame" not in str(caught.value) + caplog.text
    assert caught.value.exit_code in (2, 8)


def test_what_libpq_reads_from_its_environment_counts(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = psycopg.conninfo.conninfo_to_dict(database)
    for name in ("user", "host", "dbname"):
        monkeypatch.setenv({"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}"), str(given[name]))
    with closing(PostgresJournal(SecretStr("postgresql://"))) as journal:
        assert "of the environment" in journal.name
        assert journal.append([event("e")]) == [True]


def test_timeouts_of_the_uri_count(database: str) -> None:
    made = postgres.Database(SecretStr(f"{database}&connect_timeout=7&application_name=mine"))
    assert (made._parameters["connect_timeout"], made._parameters["application_name"]) == ("7", "mine")
    assert made._parameters["tcp_user_timeout"] == "5000"
