"""Connections to the PostgreSQL database of a journal: how they are opened, mended and limited; and its tables."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from indexer.errors import ConfigError, SnapshotError
from ranker.journal import JournalError

R = TypeVar("R")
Connection = psycopg.Connection[tuple[Any, ...]]
Cursor = psycopg.Cursor[tuple[Any, ...]]

VERSION = 1
# A network that swallows everything is noticed after some ten seconds. The URI may say otherwise.
_DEFAULTS = {
    "application_name": "vitrine",
    "connect_timeout": "3",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "5000",
}
# Acknowledged is on disk, whatever the database does for others; what is stronger stays. A client that dies within a
# transaction holds the row of numbers, and with it all writers, until the database ends that transaction.
_SESSION = """
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') <> 'remote_apply';
SET lock_timeout = '5s';
SET statement_timeout = '10s';
SET idle_in_transaction_session_timeout = '10s'
"""
# What is written is looked up by keys. Of a table that was not analysed yet the planner thinks that a key has many
# rows, and would read the whole of it: 60 ms for a batch of 100 after 50,000 events.
_BY_KEYS = "SET enable_seqscan = off"
# Of what reads or deletes in the whole log, which takes as long as that is.
_LONG = "SET LOCAL statement_timeout = '10min'"
# Seconds after which a database that hangs, and so does not end anything itself, is given up.
_PATIENCE, _LONG_PATIENCE = 15.0, 900.0
# Any number that others are not likely to take.
_MAKING = 7_846_297_463
_TABLES = """
CREATE TABLE vitrine.journal (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    events bigint NOT NULL DEFAULT 0,
    erasures bigint NOT NULL DEFAULT 0,
    changes bigint NOT NULL DEFAULT 0,
    upserts bigint NOT NULL DEFAULT 0,
    digest_key bytea
);
CREATE TABLE vitrine.events (
    number bigint PRIMARY KEY,
    event_id text NOT NULL,
    item bigint NOT NULL,
    event_time bigint NOT NULL,
    event_type text NOT NULL,
    user_id text,
    session_id text,
    request_id text,
    query text,
    product_id text NOT NULL,
    position bigint,
    quantity double precision,
    price double precision,
    value double precision,
    UNIQUE (event_id, item)
);
CREATE TABLE vitrine.erasures (number bigint PRIMARY KEY, digest bytea NOT NULL, erased_at bigint NOT NULL);
CREATE TABLE vitrine.changes (
    number bigint PRIMARY KEY,
    product_id text NOT NULL UNIQUE,
    price double precision,
    price_time bigint NOT NULL,
    in_stock boolean,
    stock_time bigint NOT NULL,
    deleted_time bigint NOT NULL
);
CREATE TABLE vitrine.upserts (
    number bigint PRIMARY KEY,
    product_id text NOT NULL UNIQUE,
    time bigint NOT NULL,
    product text NOT NULL,
    encoder text NOT NULL,
    vector bytea
)
"""


class Database:
    """Where a journal is, and how to connect to it. Tells nobody a password."""

    def __init__(self, uri: SecretStr) -> None:
        """Raises `ConfigError` for what is no connection URI."""
        try:
            given = conninfo_to_dict(uri.get_secret_value())
        except psycopg.Error:
            given = None
        # libpq's own message may quote a part of a password that it takes for something else.
        if given is None or set(str(given.get("port", ""))) - set("0123456789,"):
            raise ConfigError(
                "journal is no connection URI of PostgreSQL: postgresql://user@host:port/database?sslmode=verify-full. "
                "Special characters of a name or password are written as %XX."
            )
        self._parameters: Mapping[str, Any] = {**_DEFAULTS, **given}
        place = [str(given[name]) for name in ("host", "hostaddr", "port", "dbname") if given.get(name)]
        self.name = f"the journal in PostgreSQL ({' '.join(place) or 'of the environment'})"

    def connect(self, first: str = "") -> Connection:
        """A connection on which the statement `first` was run; each further one is a transaction of its own.

        Raises `JournalError` where it is not to be had.
        """
        try:
            connection = psycopg.connect(**self._parameters, autocommit=True)
            try:
                connection.execute(f"{_SESSION};{first}")
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            raise self.told(error) from error
        return connection

    def told(self, error: psycopg.Error) -> JournalError:
        """What is wrong, in one line."""
        return JournalError(f"{self.name} cannot be used now: {' '.join(str(error).split())}")

    def prepare(self) -> None:
        """Make the tables where they are not. Raises `JournalError` where the database cannot be reached, and
        `SnapshotError` where it cannot hold a journal, or holds one of a later program."""
        connection = self.connect()
        try:
            version = _prepared(connection)
            encoding = connection.info.parameter_status("server_encoding")
        except psycopg.ProgrammingError as error:
            raise SnapshotError(
                f"{self.name} cannot be used: {' '.join(str(error).split())}. Its role must own the schema vitrine, or "
                "be allowed to create it."
            ) from error
        except psycopg.Error as error:
            raise self.told(error) from error
        finally:
            connection.close()
        if version != VERSION:
            raise SnapshotError(f"{self.name} is of version {version}; this program reads versions up to {VERSION}.")
        if encoding != "UTF8":
            raise SnapshotError(f"{self.name} has the encoding {encoding}; make a database WITH ENCODING 'UTF8'.")


class Line:
    """One connection for one thread at a time, opened when it is needed, and anew where it went stale.

    `away` says why the database is known to be out of reach, or nothing; `doubt` is told where it was found to be.
    """

    def __init__(
        self, database: Database, away: Callable[[], str], doubt: Callable[[str], None], *, reads: bool
    ) -> None:
        self._database = database
        self._away, self._doubt = away, doubt
        self._reads = reads
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def run(self, work: Callable[[Cursor], R], *, long: bool = False) -> R:
        """What `work` gives, done in one transaction; once more where the connection turned out to be stale.

        Raises `JournalError` where the database cannot be reached, at once where that is known. What the database
        refuses for what it is goes on up.
        """
        with self._lock:
            try:
                if reason := self._away():
                    raise JournalError(reason)
                try:
                    return self._once(work, long)
                except psycopg.OperationalError:
                    if not self._is_stale():
                        raise
                return self._once(work, long)
            except psycopg.Error as error:
                if not self._reads and _is_refusal(error):
                    raise
                told = self._database.told(error)
                if self._is_stale():
                    self._doubt(str(told))
                raise told from error

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()

    def _once(self, work: Callable[[Cursor], R], long: bool) -> R:
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connection = self._connected()
        with _limited(connection, long), connection.transaction(), connection.cursor() as cursor:
            if long:
                cursor.execute(_LONG)
            return work(cursor)

    def _connected(self) -> Connection:
        try:
            connection = self._database.connect()
        except JournalError as error:
            self._doubt(str(error))
            raise
        if self._reads:
            # All that is read within a transaction is of one moment.
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
        else:
            connection.execute(_BY_KEYS)
        return connection

    def _is_stale(self) -> bool:
        return self._connection is not None and self._connection.closed


def _prepared(connection: Connection) -> int:
    """The version of the tables, made where they are not."""
    with connection.transaction():
        if not _is_there(connection, "to_regclass('vitrine.journal')"):
            # Another process may be making them.
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_MAKING,))
            if not _is_there(connection, "to_regnamespace('vitrine')"):
                connection.execute("CREATE SCHEMA vitrine")
            if not _is_there(connection, "to_regclass('vitrine.journal')"):
                connection.execute(_TABLES)
                connection.execute("INSERT INTO vitrine.journal (version) VALUES (%s)", (VERSION,))
        found = connection.execute("SELECT version FROM vitrine.journal").fetchone()
    return int(found[0]) if found else 0


def _is_there(connection: Connection, name: str) -> bool:
    return connection.execute(f"SELECT {name} IS NOT NULL").fetchone() == (True,)


@contextmanager
def _limited(connection: Connection, long: bool) -> Iterator[None]:
    """Cut the connection where what is done meanwhile takes too long."""
    timer = threading.Timer(_LONG_PATIENCE if long else _PATIENCE, _cut, (connection,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cut(connection: Connection) -> None:
    """Let whoever waits at the connection find it closed; it is not closed here, under his hands."""
    with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as theirs:
        theirs.shutdown(socket.SHUT_RDWR)


def _is_refusal(error: psycopg.Error) -> bool:
    """Whether what was to be written cannot be written at any time."""
    at_fault = isinstance(error, psycopg.DataError | psycopg.IntegrityError)
    return at_fault or (isinstance(error, psycopg.ProgrammingError) and error.sqlstate is None)
