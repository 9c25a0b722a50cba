"""The journal: an append-only log of live events in SQLite. What it acknowledges is on disk."""

import fcntl
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from indexer.canonical import EVENTS, read_events
from indexer.errors import SnapshotError

FILE = "journal.sqlite"
_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    item INTEGER NOT NULL,
    event_time INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    user_id TEXT,
    session_id TEXT,
    request_id TEXT,
    query TEXT,
    product_id TEXT NOT NULL,
    position INTEGER,
    quantity REAL,
    price REAL,
    value REAL,
    UNIQUE (event_id, item)
)
"""
_EVERY = 2**63 - 1
_COLUMNS = ("event_id", "item", *[name for name in EVENTS if name != "event_id"])


class Entry(NamedTuple):
    """One product of one event; `item` numbers the products of an event, `event_time` is in Unix microseconds."""

    event_id: str
    item: int
    event_time: int
    event_type: str
    user_id: str | None
    session_id: str | None
    request_id: str | None
    query: str | None
    product_id: str
    position: int | None = None
    quantity: float | None = None
    price: float | None = None
    value: float | None = None


class Journal:
    """Many processes may read; writes are serialised by SQLite. Safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock, self._reading = threading.Lock(), threading.Lock()
        # Reads go by a connection of their own: one that commits is busy until the disk has the data.
        self._connection, self._reader = _connect(path), _connect(path)
        try:
            # SQLite does not wait while a file changes to WAL: of two processes that make it at once, one would fail.
            with path.with_name(f"{path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._open(path)
            self._version = self._seen()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            self._reader.close()
            raise SnapshotError(
                f"{path} cannot be used: {error}. Restore it from a backup, or move it away to begin an empty journal."
            ) from error

    def append(self, events: Sequence[Sequence[Entry]]) -> list[bool]:
        """Write events, each all its entries, in one transaction; says of each whether it was new.

        An event whose id is there already changes nothing.
        """
        marks = ", ".join("?" * len(_COLUMNS))
        statement = f"INSERT INTO events ({', '.join(_COLUMNS)}) VALUES ({marks})"
        written = []
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                for entries in events:
                    known = self._known(entries[0].event_id)
                    if not known:
                        self._connection.executemany(statement, entries)
                    written.append(not known)
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
        return written

    def changed(self) -> bool:
        """Whether anybody, in this process or another, has committed since this was last asked; takes microseconds."""
        with self._reading:
            before, self._version = self._version, self._seen()
        return self._version != before

    def sequence(self) -> int:
        """The number of the last entry; 0 for an empty journal."""
        with self._reading:
            (last,) = self._reader.execute("SELECT COALESCE(MAX(sequence), 0) FROM events").fetchone()
        return int(last)

    def read(self, after: int = 0, up_to: int | None = None) -> pl.DataFrame:
        """Canonical events after one sequence number and up to another, in the order they were written."""
        last = _EVERY if up_to is None else up_to
        names = ", ".join(EVENTS)
        with self._reading:
            rows = self._reader.execute(
                f"SELECT {names} FROM events WHERE sequence > ? AND sequence <= ? ORDER BY sequence", (after, last)
            ).fetchall()
        raw = {name: pl.Int64() if name == "event_time" else dtype for name, dtype in EVENTS.items()}
        return pl.DataFrame(rows, schema=raw, orient="row").cast(EVENTS)  # type: ignore[arg-type]

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._reading:
            self._connection.close()
            self._reader.close()

    def _seen(self) -> int:
        (version,) = self._reader.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _known(self, event_id: str) -> bool:
        found = self._connection.execute("SELECT 1 FROM events WHERE event_id = ? LIMIT 1", (event_id,)).fetchone()
        return found is not None

    def _open(self, path: Path) -> None:
        self._check_version(path)
        # What users did is nobody else's business; SQLite gives its side files the same permissions.
        path.chmod(0o600)
        # A commit returns when the write-ahead log is on disk: power may fail right after.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(_SCHEMA)
        self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def _check_version(self, path: Path) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            self._connection.close()
            self._reader.close()
            raise SnapshotError(f"{path} is a journal of version {version}; this program writes version {_VERSION}.")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30.0)


def read_log(path: Path | None, store: Path, up_to: int | None = None) -> pl.DataFrame | None:
    """The whole log in time order: imported events and the journal's `up_to` an entry. None where there is neither."""
    frames = [] if path is None else [read_events(path)]
    if (store / FILE).exists():
        journal = Journal(store / FILE)
        frames.append(journal.read(up_to=up_to))
        journal.close()
    if not frames:
        return None
    return pl.concat(frames).sort("event_time", maintain_order=True)
