"""The journal in a file of the store: SQLite, for any number of processes of one machine."""

import fcntl
import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from indexer.canonical import EVENTS
from indexer.errors import SnapshotError
from ranker import changes, sqlite_schema, upserts
from ranker.changes import NEVER, Change
from ranker.erased import Erased, digest, new_key
from ranker.journal import TABLES, Entry, Journal, JournalError, News, Position, Whole, canonical
from ranker.upserts import Upsert

FILE = "journal.sqlite"
# Seconds to wait for another process that writes.
_TIMEOUT = 30.0
_EVERY = 2**63 - 1
# What cannot be written at any time, and is no fault of the file or its disk.
_REFUSED = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError)


class SqliteJournal(Journal):
    """Many processes may read, and SQLite serialises what they write."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._lock, self._reading = threading.Lock(), threading.Lock()
        # Whether the write-ahead log holds what was erased.
        self._stale = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Reads go by a connection of their own: one that commits is busy until the disk has the data.
            self._connection, self._reader = _connect(path), _connect(path)
        except (OSError, sqlite3.OperationalError) as error:
            raise _not_now(path, error) from error
        try:
            # SQLite does not wait while a file changes to WAL: of two processes that make it at once, one would fail.
            with path.with_name(f"{path.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._open(path)
            self._version = _pragma(self._reader, "data_version")
        except (OSError, sqlite3.DatabaseError) as error:
            self._connection.close()
            self._reader.close()
            if isinstance(error, OSError | sqlite3.OperationalError):
                raise _not_now(path, error) from error
            raise SnapshotError(
                f"{path} cannot be used: {error}. Restore it from a backup, or move it away to begin an empty journal."
            ) from error

    def append(self, events: Sequence[Sequence[Entry]]) -> list[bool]:
        written = []
        with self._transaction():
            for entries in events:
                known = self._known(entries[0].event_id)
                if not known:
                    self._insert("INSERT", "events", Entry._fields, entries)
                written.append(not known)
        return written

    def change(self, products: Sequence[Change]) -> list[Change | None]:
        with self._transaction():
            self._connection.execute(sqlite_schema.CHANGES)
            before, rows = changes.taken(self._changes_of(change.product_id for change in products), products)
            self._insert("INSERT OR REPLACE", "changes", Change._fields, rows)
            self._raise_version(sqlite_schema.CHANGED_VERSION)
        return before

    def upsert(self, products: Sequence[Upsert]) -> list[bool]:
        with self._transaction():
            for schema in (sqlite_schema.CHANGES, sqlite_schema.UPSERTS):
                self._connection.execute(schema)
            written = upserts.taken(self._upserted(each.product_id for each in products), products)
            new = list(itertools.compress(products, written))
            self._insert("INSERT OR REPLACE", "upserts", upserts.COLUMNS, map(upserts.row, new))
            rows = changes.relisted(self._changes_of(each.product_id for each in new), upserts.followed(new))
            self._insert("INSERT OR REPLACE", "changes", Change._fields, rows)
            self._raise_version(sqlite_schema.UPSERTED_VERSION)
        return written

    def changed(self) -> bool:
        with self._reading, _told():
            before, self._version = self._version, _pragma(self._reader, "data_version")
        return self._version != before

    def erase(self, user: str, now: Callable[[], float] = time.time) -> int:
        with self._transaction(erases=True):
            for statement in sqlite_schema.ERASURES:
                self._connection.execute(statement)
            key = _key(self._connection)
            if key is None:
                key = new_key()
                self._connection.execute("INSERT INTO digest_key (key) VALUES (?)", (key,))
            removed = sum(self._connection.execute(each, {"user": user}).rowcount for each in sqlite_schema.ERASE)
            row = (digest(key, user), round(now() * 1e6))
            self._connection.execute("INSERT INTO erasures (digest, erased_at) VALUES (?, ?)", row)
            self._raise_version(sqlite_schema.ERASED_VERSION)
        return int(removed)

    def position(self) -> Position:
        with self._snapshot():
            return self._position()

    def news(self, after: Position) -> News:
        with self._snapshot():
            position = self._position()
            return News(
                position,
                self._erased(after.erasures),
                self._events(after.sequence, position.sequence),
                self._changes(after.changes, position.changes),
                self._upserts(after.upserts, position.upserts),
            )

    def erased(self) -> Erased:
        with self._snapshot():
            return self._erased(0)

    def changes(self, since: int = NEVER) -> list[Change]:
        with self._snapshot():
            return self._changes(0, self._position().changes, since)

    def upserts(self, since: int = NEVER) -> list[Upsert]:
        with self._snapshot():
            return self._upserts(0, self._position().upserts, since)

    def read(self, after: int = 0, up_to: int | None = None) -> pl.DataFrame:
        with self._snapshot():
            return self._events(after, _EVERY if up_to is None else up_to)

    @contextmanager
    def whole(self) -> Iterator[Whole]:
        """All that it holds, to be read meanwhile, as of one moment."""
        with self._snapshot():
            position = self._position()
            # There may be no table of what nothing was ever written.
            rows = {
                table: self._reader.execute(f"SELECT rowid, {', '.join(columns)} FROM {table} ORDER BY rowid")
                for (table, columns), last in zip(TABLES.items(), position, strict=True)
                if last
            }
            yield Whole(position, _key(self._reader) if position.erasures else None, rows)

    def close(self) -> None:
        with self._lock, self._reading:
            self._connection.close()
            self._reader.close()

    @contextmanager
    def _transaction(self, *, erases: bool = False) -> Iterator[None]:
        """All that is written meanwhile is on disk at its end, or nothing is; what an erasure deletes, overwritten."""
        with self._lock, _told():
            if erases:
                self._connection.execute("PRAGMA secure_delete = ON")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite itself has rolled back where the disk is full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._stale |= erases
            if self._stale:
                self._empty_log()

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All that is read meanwhile is of one moment."""
        with self._reading, _told():
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
        statement = f"SELECT {', '.join(EVENTS)} FROM events WHERE sequence > ? AND sequence <= ? ORDER BY sequence"
        return canonical(self._reader.execute(statement, (after, up_to)).fetchall())

    def _changes(self, after: int, up_to: int, since: int = NEVER) -> list[Change]:
        """Rows with a number after one and up to another, of which a part is later than `since`.

        Since NEVER all of them, also one of which no part is left, for its deletion was undone. Up to 0 there is none,
        and maybe no table.
        """
        if after >= up_to:
            return []
        rows = self._reader.execute(
            f"""SELECT {", ".join(Change._fields)} FROM changes WHERE number > :after AND number <= :up_to
                AND (MAX(price_time, stock_time, deleted_time) > :since OR :since = {NEVER}) ORDER BY number""",
            {"after": after, "up_to": up_to, "since": since},
        )
        return [_change(row) for row in rows]

    def _upserts(self, after: int, up_to: int, since: int = NEVER) -> list[Upsert]:
        """Rows with a number after one and up to another, of a time later than `since`; as in `_changes`."""
        if after >= up_to:
            return []
        rows = self._reader.execute(
            f"""SELECT {", ".join(upserts.COLUMNS)} FROM upserts
                WHERE number > ? AND number <= ? AND time > ? ORDER BY number""",
            (after, up_to, since),
        )
        return [upserts.of_row(*row) for row in rows]

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

    def _known(self, event_id: str) -> bool:
        found = self._connection.execute("SELECT 1 FROM events WHERE event_id = ? LIMIT 1", (event_id,)).fetchone()
        return found is not None

    def _changes_of(self, products: Iterable[str]) -> dict[str, Change]:
        """What is known of those of the products of which anything is."""
        return {row[0]: _change(row) for row in self._rows_of(products, "changes", Change._fields)}

    def _upserted(self, products: Iterable[str]) -> dict[str, int]:
        """The times of the upserts of those of the products of which there is one."""
        return dict(self._rows_of(products, "upserts", ("product_id", "time")))

    def _rows_of(self, products: Iterable[str], table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        statement = f"SELECT {', '.join(columns)} FROM {table} WHERE product_id = ?"
        rows = [self._connection.execute(statement, (product,)).fetchone() for product in set(products)]
        return [row for row in rows if row]

    def _insert(self, verb: str, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        marks = ", ".join("?" * len(columns))
        self._connection.executemany(f"{verb} INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)

    def _open(self, path: Path) -> None:
        self._check_version(path)
        # What users did is nobody else's business; SQLite gives its side files the same permissions.
        path.chmod(0o600)
        # A commit returns when the write-ahead log is on disk: power may fail right after.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(sqlite_schema.EVENTS)
        self._raise_version(sqlite_schema.VERSION)

    def _check_version(self, path: Path) -> None:
        latest = sqlite_schema.UPSERTED_VERSION
        if not 0 <= (version := _pragma(self._connection, "user_version")) <= latest:
            self._connection.close()
            self._reader.close()
            raise SnapshotError(
                f"{path} is a journal of version {version}; this program reads versions up to {latest}."
            )

    def _raise_version(self, version: int) -> None:
        if _pragma(self._connection, "user_version") < version:
            self._connection.execute(f"PRAGMA user_version = {version}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _key(connection: sqlite3.Connection) -> bytes | None:
    found = connection.execute("SELECT key FROM digest_key").fetchone()
    return None if found is None else bytes(found[0])


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=_TIMEOUT)


def _not_now(path: Path, error: Exception) -> JournalError:
    """That it is locked, that its disk is full or read-only: the file itself may be sound."""
    return JournalError(f"{path} cannot be used now: {error}")


def _change(row: Sequence[object]) -> Change:
    """SQLite has no booleans."""
    made = Change(*row)  # type: ignore[arg-type]
    return made if made.in_stock is None else made._replace(in_stock=bool(made.in_stock))


@contextmanager
def _told() -> Iterator[None]:
    """What is wrong with the file or its disk is told as a `JournalError`."""
    try:
        yield
    except sqlite3.Error as error:
        if isinstance(error, _REFUSED):
            raise
        raise JournalError(f"{error} ({FILE})") from error
