"""The journal in a PostgreSQL database: for server processes of any number of machines."""

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import polars as pl
import psycopg
from pydantic import SecretStr

from indexer.canonical import EVENTS
from indexer.errors import InputError
from ranker import changes, upserts
from ranker.changes import NEVER, Change
from ranker.erased import Erased, digest, new_key
from ranker.journal import TABLES, Entry, Journal, News, Position, Whole, canonical
from ranker.listener import CHANNEL, Listener
from ranker.postgres import Cursor, Database, Line
from ranker.upserts import Upsert

R = TypeVar("R")

_NUMBERS = f"SELECT {', '.join(TABLES)} FROM vitrine.journal"
# First what nobody is named in, of the sessions in which the user was known, while these are known themselves.
_ERASE = (
    """DELETE FROM vitrine.events WHERE user_id IS NULL
       AND session_id IN (SELECT session_id FROM vitrine.events WHERE user_id = %s AND session_id IS NOT NULL)""",
    "DELETE FROM vitrine.events WHERE user_id = %s",
)
_EVERY = 2**63 - 1


class PostgresJournal(Journal):
    """Its tables are in the schema `vitrine`; writes wait for each other at its one row of numbers."""

    def __init__(self, uri: SecretStr) -> None:
        database = Database(uri)
        database.prepare()
        self.name = database.name
        # Before anything is read: nothing that comes after is missed.
        self._listener = Listener(database.connect)
        ways = (self._listener.away, self._listener.doubt)
        self._writer, self._reader = Line(database, *ways, reads=False), Line(database, *ways, reads=True)

    def append(self, events: Sequence[Sequence[Entry]]) -> list[bool]:
        def work(writing: _Writing) -> list[bool]:
            seen = writing.known_events(entries[0].event_id for entries in events)
            written = []
            for entries in events:
                written.append(entries[0].event_id not in seen)
                seen.add(entries[0].event_id)
            writing.insert("events", itertools.chain.from_iterable(itertools.compress(events, written)))
            return written

        return self._write(work)

    def change(self, products: Sequence[Change]) -> list[Change | None]:
        def work(writing: _Writing) -> list[Change | None]:
            before, rows = changes.taken(writing.known_changes(each.product_id for each in products), products)
            writing.replace("changes", rows)
            return before

        return self._write(work)

    def upsert(self, products: Sequence[Upsert]) -> list[bool]:
        def work(writing: _Writing) -> list[bool]:
            written = upserts.taken(writing.known_upserts(each.product_id for each in products), products)
            new = list(itertools.compress(products, written))
            writing.replace("upserts", list(map(upserts.row, new)))
            known = writing.known_changes(each.product_id for each in new)
            writing.replace("changes", changes.relisted(known, upserts.followed(new)))
            return written

        return self._write(work)

    def erase(self, user: str, now: Callable[[], float] = time.time) -> int:
        def work(writing: _Writing) -> int:
            removed = sum(writing.cursor.execute(statement, (user,)).rowcount for statement in _ERASE)
            writing.insert("erasures", [(digest(writing.key(), user), round(now() * 1e6))])
            return removed

        return self._write(work, long=True)

    def changed(self) -> bool:
        return self._listener.told()

    def position(self) -> Position:
        return self._reader.run(_position)

    def news(self, after: Position) -> News:
        def work(cursor: Cursor) -> News:
            position = _position(cursor)
            return News(
                position,
                _erased(cursor, after.erasures, position.erasures),
                canonical(_events(cursor, after.sequence, position.sequence)),
                _changes(cursor, after.changes, position.changes),
                _upserts(cursor, after.upserts, position.upserts),
            )

        return self._reader.run(work)

    def erased(self) -> Erased:
        return self._reader.run(lambda cursor: _erased(cursor, 0, _EVERY), long=True)

    def changes(self, since: int = NEVER) -> list[Change]:
        return self._reader.run(lambda cursor: _changes(cursor, 0, _EVERY, since), long=True)

    def upserts(self, since: int = NEVER) -> list[Upsert]:
        return self._reader.run(lambda cursor: _upserts(cursor, 0, _EVERY, since), long=True)

    def read(self, after: int = 0, up_to: int | None = None) -> pl.DataFrame:
        last = _EVERY if up_to is None else up_to
        return canonical(self._reader.run(lambda cursor: _events(cursor, after, last), long=True))

    def take_over(self, whole: Whole) -> None:
        """Write all that another journal holds, under the same numbers. Raises `InputError` where this is not empty."""

        def work(writing: _Writing) -> None:
            if any(writing.numbers.values()):
                raise InputError(f"{self.name} is not empty: a journal is copied into an empty one.")
            for table, rows in whole.rows.items():
                writing.copy(table, rows)
            writing.numbers.update(zip(TABLES, whole.position, strict=True))
            writing.cursor.execute("UPDATE vitrine.journal SET digest_key = %s", (whole.key,))

        try:
            self._write(work, long=True)
        except psycopg.DataError as error:
            raise InputError(f"A row cannot be held by PostgreSQL: {' '.join(str(error).split())}") from error

    def close(self) -> None:
        self._listener.close()
        self._writer.close()
        self._reader.close()

    def _write(self, work: "Callable[[_Writing], R]", *, long: bool = False) -> R:
        def whole(cursor: Cursor) -> R:
            writing = _Writing(cursor)
            made = work(writing)
            writing.end()
            return made

        return self._writer.run(whole, long=long)


class _Writing:
    """A transaction that writes: from its beginning it holds the one row of numbers, so these are in commit order."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        found = cursor.execute(f"{_NUMBERS} FOR UPDATE").fetchone()
        self.numbers = dict(zip(TABLES, found or (), strict=True))
        self._before = dict(self.numbers)

    def known_events(self, events: Iterable[str]) -> set[str]:
        """Those that are there."""
        return {row[0] for row in self._selected("event_id", "events", "event_id", events)}

    def known_changes(self, products: Iterable[str]) -> dict[str, Change]:
        """What is known of those of the products of which anything is."""
        rows = self._selected(", ".join(Change._fields), "changes", "product_id", products)
        return {row[0]: Change(*row) for row in rows}

    def known_upserts(self, products: Iterable[str]) -> dict[str, int]:
        """The times of the upserts of those of the products of which there is one."""
        return dict(self._selected("product_id, time", "upserts", "product_id", products))

    def insert(self, table: str, rows: Iterable[Sequence[object]]) -> None:
        """Write rows, each under the next number of its table."""
        self.copy(table, self._numbered(table, rows))

    def replace(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Write rows in place of those of their products: of several of one product, the last."""
        newest = {row[1]: row for row in self._numbered(table, rows)}
        self.cursor.execute(f"DELETE FROM vitrine.{table} WHERE product_id = ANY(%s)", (list(newest),))
        self.copy(table, newest.values())

    def copy(self, table: str, rows: Iterable[Sequence[object]]) -> None:
        """Write rows that begin with their numbers."""
        with self.cursor.copy(f"COPY vitrine.{table} (number, {', '.join(TABLES[table])}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    def key(self) -> bytes:
        """That of the digests, made where there is none."""
        found = self.cursor.execute("SELECT digest_key FROM vitrine.journal").fetchone()
        if found and found[0] is not None:
            return bytes(found[0])
        made = new_key()
        self.cursor.execute("UPDATE vitrine.journal SET digest_key = %s", (made,))
        return made

    def end(self) -> None:
        """Keep the numbers, and let everybody be told once this is committed."""
        if self.numbers != self._before:
            marks = ", ".join(f"{table} = %s" for table in TABLES)
            told = f"UPDATE vitrine.journal SET {marks} RETURNING pg_notify('{CHANNEL}', '')"
            self.cursor.execute(told, list(self.numbers.values()))

    def _numbered(self, table: str, rows: Iterable[Sequence[object]]) -> Iterable[Sequence[object]]:
        for row in rows:
            self.numbers[table] += 1
            yield self.numbers[table], *row

    def _selected(self, columns: str, table: str, key: str, values: Iterable[str]) -> list[tuple[Any, ...]]:
        statement = f"SELECT DISTINCT {columns} FROM vitrine.{table} WHERE {key} = ANY(%s)"
        return self.cursor.execute(statement, (list(values),)).fetchall()


def _position(cursor: Cursor) -> Position:
    return Position(*cursor.execute(_NUMBERS).fetchone() or ())


def _erased(cursor: Cursor, after: int, up_to: int) -> Erased:
    if after >= up_to:
        return Erased(b"", {})
    rows = cursor.execute(
        "SELECT digest, max(erased_at) FROM vitrine.erasures WHERE number > %s GROUP BY digest", (after,)
    ).fetchall()
    key = cursor.execute("SELECT digest_key FROM vitrine.journal").fetchone()
    return Erased(key[0] if key and key[0] else b"", dict(rows))


def _events(cursor: Cursor, after: int, up_to: int) -> list[tuple[Any, ...]]:
    return _rows(cursor, ", ".join(EVENTS), "events", after, up_to)


def _changes(cursor: Cursor, after: int, up_to: int, since: int = NEVER) -> list[Change]:
    """Rows of which a part is later than `since`; since NEVER also one of which no part is left."""
    later = f"(greatest(price_time, stock_time, deleted_time) > %s OR %s = {NEVER})"
    rows = _rows(cursor, ", ".join(Change._fields), "changes", after, up_to, later, since, since)
    return [Change(*row) for row in rows]


def _upserts(cursor: Cursor, after: int, up_to: int, since: int = NEVER) -> list[Upsert]:
    rows = _rows(cursor, ", ".join(upserts.COLUMNS), "upserts", after, up_to, "time > %s", since)
    return [upserts.of_row(*row) for row in rows]


def _rows(
    cursor: Cursor, columns: str, table: str, after: int, up_to: int, condition: str = "true", *values: int
) -> list[tuple[Any, ...]]:
    """Those with a number after one and up to another that meet a condition, in turn."""
    if after >= up_to:
        return []
    statement = f"SELECT {columns} FROM vitrine.{table} WHERE number > %s AND number <= %s AND {condition}"
    return cursor.execute(f"{statement} ORDER BY number", (after, up_to, *values)).fetchall()
