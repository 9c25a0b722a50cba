"""Live upserts, as the journal keeps them: of each product the newest, whole; and a catalogue with them in it."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from indexer.arrays import Floats
from ranker.changes import NEVER, Change

Value = str | float | bool

# Of a journal's table of them.
COLUMNS = ("product_id", "time", "product", "encoder", "vector")


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


def taken(known: Mapping[str, int], upserts: Sequence[Upsert]) -> list[bool]:
    """Whether each of upserts, in turn, is written where the times of those that are there are `known`.

    It is not where a later one of its product is.
    """
    newest, written = dict(known), list[bool]()
    for upsert in upserts:
        written.append(newest.get(upsert.product_id, upsert.time) <= upsert.time)
        if written[-1]:
            newest[upsert.product_id] = upsert.time
    return written


def followed(upserts: Sequence[Upsert]) -> list[tuple[Change, int]]:
    """What written upserts say of price and stock, as changes of products that are listed from a time on."""
    return [(_change(upsert), upsert.time) for upsert in upserts]


def row(upsert: Upsert) -> tuple[str, int, str, str, bytes | None]:
    """An upsert as a journal keeps it, in `COLUMNS`: the values are JSON, the vector is its bytes."""
    vector = None if upsert.vector is None else np.asarray(upsert.vector, np.float32).tobytes()
    values = json.dumps(upsert.values, ensure_ascii=False, allow_nan=False)
    return upsert.product_id, upsert.time, values, upsert.encoder, vector


def of_row(product: str, time: int, values: str, encoder: str, vector: bytes | None) -> Upsert:
    """The upsert of such a row."""
    made = None if vector is None else np.frombuffer(vector, np.float32)
    return Upsert(product, time, json.loads(values), encoder, made)


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
