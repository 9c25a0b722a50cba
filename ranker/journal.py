"""What a journal is: events of users who can be erased, and what is new of products; acknowledged once on disk."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import polars as pl

from indexer.canonical import EVENTS
from indexer.errors import VitrineError
from ranker.changes import NEVER, Change
from ranker.erased import Erased
from ranker.upserts import COLUMNS, Upsert


class JournalError(VitrineError):
    """A journal that cannot be read or written now; the same may work later."""

    exit_code = 8


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


# The tables of a journal, in the order of `Position`, and their columns but for the number that each row has.
TABLES: Mapping[str, Sequence[str]] = {
    "events": Entry._fields,
    "erasures": ("digest", "erased_at"),
    "changes": Change._fields,
    "upserts": COLUMNS,
}


class Position(NamedTuple):
    """How far a journal was read: the numbers of the last entry, erasure, change and upsert."""

    sequence: int = 0
    erasures: int = 0
    changes: int = 0
    upserts: int = 0


class News(NamedTuple):
    """What a journal holds after a position: who was erased since, canonical events, none of theirs from before, what
    is known of the products that were changed, and those that were upserted."""

    position: Position
    erased: Erased
    events: pl.DataFrame
    changes: Sequence[Change]
    upserts: Sequence[Upsert]


class Whole(NamedTuple):
    """All that a journal holds: where it ends, the key of its digests, and the rows of its tables, numbers first."""

    position: Position
    key: bytes | None
    rows: Mapping[str, Iterable[Sequence[object]]]


class Journal(Protocol):
    """Many processes may read and write. Safe to call from several threads.

    Numbers are given in the order of commits: who has read up to one misses none below it. What is written at once is
    there as a whole or not at all. Whatever cannot be done now raises `JournalError`.
    """

    # Where it is, for people.
    name: str

    def append(self, events: Sequence[Sequence[Entry]]) -> list[bool]:
        """Write events, each all its entries, in one transaction; says of each whether it was new.

        An event whose id is there already changes nothing.
        """

    def change(self, products: Sequence[Change]) -> list[Change | None]:
        """Write changes to the catalogue in turn, in one transaction; returns what was known of each product before."""

    def upsert(self, products: Sequence[Upsert]) -> list[bool]:
        """Write upserts in turn, in one transaction, with the changes that follow; says of each whether it was written.

        It was not where a later one of its product was known.
        """

    def erase(self, user: str, now: Callable[[], float] = time.time) -> int:
        """Remove a user's entries, and remember that events up to `now` are not to be read elsewhere.

        Returns how many entries were removed. So are those without a user of the sessions in which the user was known.
        """

    def changed(self) -> bool:
        """Whether anybody, in this process or another, has committed since this was last asked; takes microseconds."""

    def sequence(self) -> int:
        """The number of the last entry that was written; 0 for an empty journal."""
        return self.position().sequence

    def position(self) -> Position:
        """Where it ends."""

    def news(self, after: Position) -> News:
        """What was written and erased after `after`, as of one moment."""

    def erased(self) -> Erased:
        """Everybody who was erased."""

    def changes(self, since: int = NEVER) -> list[Change]:
        """What is known of every product that was changed at a time after `since`, in Unix microseconds."""

    def upserts(self, since: int = NEVER) -> list[Upsert]:
        """The products that were upserted at a time after `since`, in Unix microseconds."""

    def read(self, after: int = 0, up_to: int | None = None) -> pl.DataFrame:
        """Canonical events after one sequence number and up to another, in the order they were written."""

    def close(self) -> None:
        """Let go of it."""


def canonical(rows: Sequence[Sequence[object]]) -> pl.DataFrame:
    """Rows of the columns of `EVENTS`, their times in Unix microseconds, as canonical events."""
    raw = {name: pl.Int64() if name == "event_time" else dtype for name, dtype in EVENTS.items()}
    return pl.DataFrame(rows, schema=raw, orient="row").cast(EVENTS)  # type: ignore[arg-type]
