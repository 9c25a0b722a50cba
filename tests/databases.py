"""Journals of tests: over SQLite, and over a PostgreSQL server of the tests' own."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import SecretStr

from ranker.journal import Journal
from ranker.journals import open_journal, read_log

# Seconds that PostgreSQL may take to tell a commit; SQLite is asked, and knows at once.
PATIENCE = 10.0


class Postgres:
    """A server that listens on a socket of its own folder, and a new database for whoever asks."""

    def __init__(self, server: Any, control: Callable[..., object]) -> None:
        self._server, self._control = server, control
        self._numbers = itertools.count()
        # Power does not fail in tests.
        self.run("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")

    def uri(self, database: str) -> str:
        return str(self._server.get_uri(database))

    def run(self, *statements: str, uri: str = "") -> list[Any]:
        """Run statements as the owner, of the database at `uri` if it is given; the rows of the last one."""
        import psycopg

        with psycopg.connect(uri or self.uri("postgres"), autocommit=True) as connection:
            for statement in statements:
                found = connection.execute(statement)
            return found.fetchall() if found.description else []

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URI of a new database."""
        name = f"shop{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        try:
            yield self.uri(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        self._control(["-w", "-m", "fast", "stop"], pgdata=self._server.pgdata, user=self._server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()


class Kept:
    """Where the journal of a test is, and those that it opened on it."""

    def __init__(self, store: Path, uri: str) -> None:
        self.store, self.uri = store, SecretStr(uri)
        self._opened: list[Journal] = []

    def open(self) -> Journal:
        """The journal anew, as another process has it; closed after the test."""
        self._opened.append(open_journal(self.store, self.uri))
        return self._opened[-1]

    def told(self, journal: Journal) -> bool:
        """Whether the journal is told of a commit, in time."""
        end = time.monotonic() + PATIENCE if self.uri else 0.0
        while not (told := journal.changed()) and time.monotonic() < end:
            time.sleep(0.001)
        return told

    def log(self, events: Path | None = None, up_to: int | None = None) -> pl.DataFrame | None:
        return read_log(events, self.store, self.uri, up_to)

    def close(self) -> None:
        for journal in self._opened:
            journal.close()
