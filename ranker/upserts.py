"""Live upserts, as the journal keeps them: of each product the newest, whole; and a catalogue with them in it."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from indexer.arrays import Floats
from ranker import changes
from ranker.changes import NEVER, Change

Value = str | float | bool

# As in `changes`: a row that changes is replaced by one with a new number.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS upserts (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    product_id TEXT NOT NULL UNIQUE,
    time INTEGER NOT NULL,
    product TEXT NOT NULL,
    encoder TEXT NOT NULL,
    vector BLOB
)
"""


class Upsert(NamedTuple):
    """A product as the shop says it is, at `time` in Unix microseconds.

    `values` are its canonical columns but for the id: title always; category, brand, price, in_stock and further
    columns where they have a value. `vector` is the title's, float32 [dimensions], made by the encoder of the
    fingerprint `encoder`; None where nobody has made it.
    """

    product_id: str
    time: int
    values: Mapping[str, Value]
    encoder: str = ""
    vector: Floats | None = None


def write(connection: sqlite3.Connection, upserts: Sequence[Upsert]) -> list[bool]:
    """Write upserts in turn, within a transaction; says of each whether it was written.

    It was not where a later one of its product was known. What a written one says of price and stock is written as a
    change, and a deletion that is not later is undone.
    """
    connection.execute(_SCHEMA)
    written = [_put(connection, upsert) for upsert in upserts]
    listed = [(_change(upsert), upsert.time) for upsert, new in zip(upserts, written, strict=True) if new]
    changes.write_listed(connection, listed)
    return written


def read(connection: sqlite3.Connection, after: int, up_to: int, since: int = NEVER) -> list[Upsert]:
    """Rows with a number after one and up to another, of a time later than `since`.

    Up to 0 there is none, and maybe no table.
    """
    if after >= up_to:
        return []
    rows = connection.execute(
        """SELECT product_id, time, product, encoder, vector FROM upserts
           WHERE number > ? AND number <= ? AND time > ? ORDER BY number""",
        (after, up_to, since),
    )
    return [
        Upsert(
            product, time, json.loads(values), encoder, None if vector is None else np.frombuffer(vector, np.float32)
        )
        for product, time, values, encoder, vector in rows
    ]


def listed(upserts: Sequence[Upsert], known: Sequence[Change]) -> list[Upsert]:
    """Those of products that were not deleted at the time of their upserts or later; `known` are changes of them."""
    deleted = {change.product_id: change.deleted_time for change in known}
    return [each for each in upserts if deleted.get(each.product_id, NEVER) < each.time]


def amended(products: pl.DataFrame, upserts: Sequence[Upsert], known: Sequence[Change]) -> pl.DataFrame:
    """Canonical products with upserts in them: those that are there replaced in place, the others behind them, in turn.

    A product that is not there is left out if it is not `listed` by what is `known` of it. The frame keeps its columns
    and their types: what an upsert does not say, or in another type, is null.
    """
    if not upserts:
        return products
    place = {product: row for row, product in enumerate(products["product_id"])}
    still = {each.product_id for each in listed(upserts, known)}
    said = [each for each in upserts if each.product_id in place or each.product_id in still]
    rows = list(range(len(products)))
    for row, upsert in enumerate(said, len(products)):
        if upsert.product_id in place:
            rows[place[upsert.product_id]] = row
        else:
            place[upsert.product_id] = len(rows)
            rows.append(row)
    return pl.concat([products, frame(said, products.schema)])[rows]


def frame(upserts: Sequence[Upsert], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Upserts as rows with the columns of `schema`; what an upsert does not say, or in another type, is null."""
    rows = [{**upsert.values, "product_id": upsert.product_id} for upsert in upserts]
    return pl.DataFrame(
        {
            name: pl.Series(name, [_fitting(row.get(name), dtype) for row in rows], dtype)
            for name, dtype in schema.items()
        }
    )


def _put(connection: sqlite3.Connection, upsert: Upsert) -> bool:
    """Write an upsert unless a later one of its product is there; whether it was."""
    known = connection.execute("SELECT time FROM upserts WHERE product_id = ?", (upsert.product_id,)).fetchone()
    if known is not None and known[0] > upsert.time:
        return False
    vector = None if upsert.vector is None else np.asarray(upsert.vector, np.float32).tobytes()
    connection.execute(
        "INSERT OR REPLACE INTO upserts (product_id, time, product, encoder, vector) VALUES (?, ?, ?, ?, ?)",
        (
            upsert.product_id,
            upsert.time,
            json.dumps(upsert.values, ensure_ascii=False, allow_nan=False),
            upsert.encoder,
            vector,
        ),
    )
    return True


def _change(upsert: Upsert) -> Change:
    """What an upsert says of price and stock."""
    price, in_stock = upsert.values.get("price"), upsert.values.get("in_stock")
    return Change(
        upsert.product_id,
        None if price is None else float(price),
        NEVER if price is None else upsert.time,
        None if in_stock is None else bool(in_stock),
        NEVER if in_stock is None else upsert.time,
    )


def _fitting(value: Value | None, dtype: pl.DataType) -> Value | None:
    """A value as a column of a type takes it; None where it does not fit."""
    match value:
        case str():
            return value if dtype == pl.String else None
        case bool():
            return value if dtype == pl.Boolean else None
        case int() | float() if dtype == pl.Float64:
            return float(value)
        case int() | float() if dtype == pl.Int64 and float(value).is_integer() and abs(value) < 2**63:
            return int(value)
    return None
