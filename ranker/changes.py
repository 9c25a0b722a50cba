"""Live changes to the catalogue, as the journal keeps them: of each product the newest price, stock and deletion."""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

# Before every time that a change can have.
NEVER = -1

# A product's row is replaced by one with a new number: whoever has read up to a number finds what changed since.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    product_id TEXT NOT NULL UNIQUE,
    price REAL,
    price_time INTEGER NOT NULL,
    in_stock INTEGER,
    stock_time INTEGER NOT NULL,
    deleted_time INTEGER NOT NULL
)
"""


class Change(NamedTuple):
    """What is said of a product, each part with its time in Unix microseconds; NEVER where nothing is."""

    product_id: str
    price: float | None = None
    price_time: int = NEVER
    in_stock: bool | None = None
    stock_time: int = NEVER
    deleted_time: int = NEVER

    def after(self, known: "Change") -> "Change":
        """What is known of the product after this, too: of each part the newest, and of equally new ones this."""
        price = self if self.price_time >= known.price_time else known
        stock = self if self.stock_time >= known.stock_time else known
        return Change(
            self.product_id,
            price.price,
            price.price_time,
            stock.in_stock,
            stock.stock_time,
            max(self.deleted_time, known.deleted_time),
        )


_COLUMNS = ", ".join(Change._fields)


def write(connection: sqlite3.Connection, changes: Sequence[Change]) -> list[Change | None]:
    """Write changes in turn, within a transaction; returns what was known of each one's product before it."""
    connection.execute(_SCHEMA)
    before = []
    for change in changes:
        known = _known(connection, change.product_id)
        after = change if known is None else change.after(known)
        if after != known:
            _put(connection, after)
        before.append(known)
    return before


def write_listed(connection: sqlite3.Connection, changes: Sequence[tuple[Change, int]]) -> None:
    """Write in turn, within a transaction, what is said of products that are listed from a time on.

    A deletion that is not later than that time is undone. Every row gets a new number, even where nothing in it
    differs: whoever reads on is told all that is known of the product.
    """
    connection.execute(_SCHEMA)
    for change, listed in changes:
        known = _known(connection, change.product_id)
        after = change if known is None else change.after(known)
        _put(connection, after if after.deleted_time > listed else after._replace(deleted_time=NEVER))


def read(connection: sqlite3.Connection, after: int, up_to: int, since: int = NEVER) -> list[Change]:
    """What is known of products: rows with a number after one and up to another, of which a part is later than `since`.

    Since NEVER all of them, also one of which no part is left, for its deletion was undone. Up to 0 there is none, and
    maybe no table.
    """
    if after >= up_to:
        return []
    rows = connection.execute(
        f"""SELECT {_COLUMNS} FROM changes WHERE number > :after AND number <= :up_to
            AND (MAX(price_time, stock_time, deleted_time) > :since OR :since = {NEVER}) ORDER BY number""",
        {"after": after, "up_to": up_to, "since": since},
    )
    return [_change(row) for row in rows]


def _known(connection: sqlite3.Connection, product: str) -> Change | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM changes WHERE product_id = ?", (product,)).fetchone()
    return None if row is None else _change(row)


def _put(connection: sqlite3.Connection, change: Change) -> None:
    marks = ", ".join("?" * len(Change._fields))
    connection.execute(f"INSERT OR REPLACE INTO changes ({_COLUMNS}) VALUES ({marks})", change)


def _change(row: Sequence[object]) -> Change:
    """SQLite has no booleans."""
    made = Change(*row)  # type: ignore[arg-type]
    return made if made.in_stock is None else made._replace(in_stock=bool(made.in_stock))
