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
    marks = ", ".join("?" * len(Change._fields))
    before = []
    for change in changes:
        row = connection.execute(
            f"SELECT {_COLUMNS} FROM changes WHERE product_id = ?", (change.product_id,)
        ).fetchone()
        known = None if row is None else _change(row)
        after = change if known is None else change.after(known)
        if after != known:
            connection.execute(f"INSERT OR REPLACE INTO changes ({_COLUMNS}) VALUES ({marks})", after)
        before.append(known)
    return before


def read(connection: sqlite3.Connection, after: int, up_to: int, since: int = NEVER) -> list[Change]:
    """What is known of products: rows with a number after one and up to another, of which a part is later than `since`.

    Up to 0 there is none, and maybe no table.
    """
    if after >= up_to:
        return []
    rows = connection.execute(
        f"""SELECT {_COLUMNS} FROM changes WHERE number > ? AND number <= ?
            AND MAX(price_time, stock_time, deleted_time) > ? ORDER BY number""",
        (after, up_to, since),
    )
    return [_change(row) for row in rows]


def _change(row: Sequence[object]) -> Change:
    """SQLite has no booleans."""
    made = Change(*row)  # type: ignore[arg-type]
    return made if made.in_stock is None else made._replace(in_stock=bool(made.in_stock))
