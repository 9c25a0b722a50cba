"""The journal in SQLite: events, of users who can be erased, and what is new of products; acknowledged once on disk."""

import fcntl
import hashlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import polars as pl

from indexer.canonical import EVENTS, read_events
from indexer.errors import SnapshotError
from ranker import changes, upserts
from ranker.changes import NEVER, Change
from ranker.upserts import Upsert

FILE = "journal.sqlite"
# A journal in which a user was erased is of the second version: a program that knows only the first would read that
# user's imported events again. One with changes to the catalogue is of the third: others would show what was deleted.
# One with upserts is of the fourth: others would know nothing of new products, and build indexes without them.
_VERSION, _ERASED_VERSION, _CHANGED_VERSION, _UPSERTED_VERSION = 1, 2, 3, 4

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
# Who was erased is kept as a digest under a key of this journal's own, and when, in Unix microseconds.
_ERASURES = (
    """CREATE TABLE IF NOT EXISTS erasures (
        number INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL, erased_at INTEGER NOT NULL
    )""",
    "CREATE TABLE IF NOT EXISTS digest_key (key BLOB NOT NULL)",
)
# First what nobody is named in, of the sessions in which the user was known, while these are known themselves.
_ERASE = (
    """DELETE FROM events WHERE user_id IS NULL
       AND session_id IN (SELECT session_id FROM events WHERE user_id = :user AND session_id IS NOT NULL)""",
    "DELETE FROM events WHERE user_id = :user",
)
# Seconds to wait for another process that writes.
_TIMEOUT = 30.0
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


class Position(NamedTuple):
    """How far a journal was read: the numbers of the last entry, erasure, change and upsert."""

    sequence: int = 0
    erasures: int = 0
    changes: int = 0
    upserts: int = 0


class Erased:
    """Who was erased, and when: the users themselves are known by a digest only."""

    def __init__(self, key: bytes, moments: Mapping[bytes, int]) -> None:
        self._key = key
        self._moments = moments

    def __bool__(self) -> bool:
        return bool(self._moments)

    def moment(self, user: str) -> int | None:
        """When a user was last erased, in Unix microseconds; None of one who never was."""
        return self._moments.get(_digest(self._key, user))

    def dropped(self, events: pl.DataFrame) -> pl.DataFrame:
        """Canonical events without those of erased users, and of their sessions, up to their erasures."""
        if not self:
            return events
        users = events["user_id"].unique().drop_nulls().to_list()
        moments = {user: moment for user in users if (moment := self.moment(user)) is not None}
        theirs = events.select(
            pl.when(pl.col("user_id").is_null()).then(pl.col("session_id")).alias("session_id"),
            pl.col("user_id").replace_strict(moments, default=None, return_dtype=pl.Int64).alias("until"),
        )
        known = events.select("session_id").with_columns(theirs["until"]).drop_nulls()
        sessions = known.group_by("session_id").agg(pl.col("until").max().alias("session_until"))
        until = theirs.join(sessions, on="session_id", how="left", maintain_order="left").select(
            pl.coalesce("until", "session_until")
        )
        later = events["event_time"].dt.epoch("us") > until.to_series()
        return events.filter(later.fill_null(True))


class News(NamedTuple):
    """What a journal holds after a position: who was erased since, canonical events, none of theirs from before, what
    is known of the products that were changed, and those that were upserted."""

    position: Position
    erased: Erased
    events: pl.DataFrame
    changes: Sequence[Change]
    upserts: Sequence[Upsert]


class Journal:
    """Many processes may read; writes are serialised by SQLite. Safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock, self._reading = threading.Lock(), threading.Lock()
        # Whether the write-ahead log holds what was erased.
        self._stale = False
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
        with self._transaction():
            for entries in events:
                known = self._known(entries[0].event_id)
                if not known:
                    self._connection.executemany(statement, entries)
                written.append(not known)
        return written

    def change(self, products: Sequence[Change]) -> list[Change | None]:
        """Write changes to the catalogue in turn, in one transaction; returns what was known of each product before."""
        with self._transaction():
            known = changes.write(self._connection, products)
            self._raise_version(_CHANGED_VERSION)
        return known

    def upsert(self, products: Sequence[Upsert]) -> list[bool]:
        """Write upserts in turn, in one transaction, with the changes that follow; says of each whether it was written.

        It was not where a later one of its product was known.
        """
        with self._transaction():
            written = upserts.write(self._connection, products)
            self._raise_version(_UPSERTED_VERSION)
        return written

    def changed(self) -> bool:
        """Whether anybody, in this process or another, has committed since this was last asked; takes microseconds."""
        with self._reading:
            before, self._version = self._version, self._seen()
        return self._version != before

    def erase(self, user: str, now: Callable[[], float] = time.time) -> int:
        """Remove a user's entries from the file, and remember that events up to `now` are not to be read elsewhere.

        Returns how many entries were removed. So are those without a user of the sessions in which the user was known.
        """
        with self._transaction(erases=True):
            for statement in _ERASURES:
                self._connection.execute(statement)
            key = _key(self._connection)
            if key is None:
                key = secrets.token_bytes(32)
                self._connection.execute("INSERT INTO digest_key (key) VALUES (?)", (key,))
            removed = sum(self._connection.execute(each, {"user": user}).rowcount for each in _ERASE)
            row = (_digest(key, user), round(now() * 1e6))
            self._connection.execute("INSERT INTO erasures (digest, erased_at) VALUES (?, ?)", row)
            self._raise_version(_ERASED_VERSION)
        return int(removed)

    def sequence(self) -> int:
        """The number of the last entry that was written; 0 for an empty journal."""
        return self.position().sequence

    def position(self) -> Position:
        """Where it ends."""
        with self._snapshot():
            return self._position()

    def news(self, after: Position) -> News:
        """What was written and erased after `after`, as of one moment."""
        with self._snapshot():
            position = self._position()
            return News(
                position,
                self._erased(after.erasures),
                self._events(after.sequence, position.sequence),
                changes.read(self._reader, after.changes, position.changes),
                upserts.read(self._reader, after.upserts, position.upserts),
            )

    def erased(self) -> Erased:
        """Everybody who was erased."""
        with self._snapshot():
            return self._erased(0)

    def changes(self, since: int = NEVER) -> list[Change]:
        """What is known of every product that was changed at a time after `since`, in Unix microseconds."""
        with self._snapshot():
            return changes.read(self._reader, 0, self._position().changes, since)

    def upserts(self, since: int = NEVER) -> list[Upsert]:
        """The products that were upserted at a time after `since`, in Unix microseconds."""
        with self._snapshot():
            return upserts.read(self._reader, 0, self._position().upserts, since)

    def read(self, after: int = 0, up_to: int | None = None) -> pl.DataFrame:
        """Canonical events after one sequence number and up to another, in the order they were written."""
        with self._snapshot():
            return self._events(after, _EVERY if up_to is None else up_to)

    def close(self) -> None:
        """Close the file."""
        with self._lock, self._reading:
            self._connection.close()
            self._reader.close()

    @contextmanager
    def _transaction(self, *, erases: bool = False) -> Iterator[None]:
        """All that is written meanwhile is on disk at its end, or nothing is; what an erasure deletes, overwritten."""
        with self._lock:
            if erases:
                self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._stale |= erases
            if self._stale:
                self._empty_log()

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All that is read meanwhile is of one moment."""
        with self._reading:
            self._reader.execute("BEGIN")
            try:
                yield
            finally:
                self._reader.execute("COMMIT")

    def _position(self) -> Position:
        # Not the largest number there is: its entry may have been erased.
        numbers = dict(self._reader.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
        return Position(*(int(numbers.get(name, 0)) for name in ("events", "erasures", "changes", "upserts")))

    def _events(self, after: int, up_to: int) -> pl.DataFrame:
        return self._selected("sequence > :after AND sequence <= :up_to", {"after": after, "up_to": up_to})

    def _selected(self, condition: str, values: Mapping[str, object]) -> pl.DataFrame:
        statement = f"SELECT {', '.join(EVENTS)} FROM events WHERE {condition} ORDER BY sequence"
        raw = {name: pl.Int64() if name == "event_time" else dtype for name, dtype in EVENTS.items()}
        rows = self._reader.execute(statement, values).fetchall()
        return pl.DataFrame(rows, schema=raw, orient="row").cast(EVENTS)  # type: ignore[arg-type]

    def _erased(self, after: int) -> Erased:
        if not self._position().erasures:
            return Erased(b"", {})
        rows = self._reader.execute(
            "SELECT digest, MAX(erased_at) FROM erasures WHERE number > ? GROUP BY digest", (after,)
        ).fetchall()
        return Erased(_key(self._reader) or b"", dict(rows))

    def _empty_log(self) -> None:
        """Empty the write-ahead log, which has pages as they were before an erasure; while somebody reads, later."""
        self._connection.execute("PRAGMA busy_timeout = 0")
        busy, *_ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self._connection.execute(f"PRAGMA busy_timeout = {round(_TIMEOUT * 1e3)}")
        self._stale = bool(busy)

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
        self._raise_version(_VERSION)

    def _check_version(self, path: Path) -> None:
        if not 0 <= (version := self._user_version()) <= _UPSERTED_VERSION:
            self._connection.close()
            self._reader.close()
            raise SnapshotError(
                f"{path} is a journal of version {version}; this program reads versions up to {_UPSERTED_VERSION}."
            )

    def _raise_version(self, version: int) -> None:
        if self._user_version() < version:
            self._connection.execute(f"PRAGMA user_version = {version}")

    def _user_version(self) -> int:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        return int(version)


def _key(connection: sqlite3.Connection) -> bytes | None:
    found = connection.execute("SELECT key FROM digest_key").fetchone()
    return None if found is None else bytes(found[0])


def _digest(key: bytes, user: str) -> bytes:
    return hashlib.blake2b(user.encode(), digest_size=16, key=key).digest()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=_TIMEOUT)


def read_log(path: Path | None, store: Path, up_to: int | None = None) -> pl.DataFrame | None:
    """The whole log in time order: imported events and the journal's `up_to` an entry. None where there is neither.

    Of a user who was erased the imported events up to then are left out.
    """
    frames = [] if path is None else [read_events(path)]
    if (store / FILE).exists():
        journal = Journal(store / FILE)
        erased = journal.erased()
        frames = [*(erased.dropped(frame) for frame in frames), journal.read(up_to=up_to)]
        journal.close()
    if not frames:
        return None
    return pl.concat(frames).sort("event_time", maintain_order=True)
