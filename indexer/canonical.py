"""The canonical tables every shop's data is brought to: products, events, judgments. `docs/data.md` documents them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from indexer.errors import InputError

TIME = pl.Datetime("us", "UTC")

# Columns every product table has. Any further column of type String, Int64, Float64 or Boolean is kept and can be
# filtered on.
PRODUCTS: dict[str, pl.DataType] = {
    "product_id": pl.String(),
    "title": pl.String(),
    "category": pl.String(),
    "brand": pl.String(),
    "price": pl.Float64(),
    "in_stock": pl.Boolean(),
}

# One row for each (event, product). `request_id` groups the rows of one answered request: its impressions and what
# followed.
EVENTS: dict[str, pl.DataType] = {
    "event_id": pl.String(),
    "event_time": TIME,
    "event_type": pl.String(),
    "user_id": pl.String(),
    "session_id": pl.String(),
    "request_id": pl.String(),
    "query": pl.String(),
    "product_id": pl.String(),
    "position": pl.Int32(),
    "quantity": pl.Float64(),
    "price": pl.Float64(),
    "value": pl.Float64(),
}

EVENT_TYPES = ("impression", "view", "click", "add_to_cart", "purchase", "return", "rating")

# `split` is "train", "test" or null; rows marked "test" are never trained on.
JUDGMENTS: dict[str, pl.DataType] = {
    "query": pl.String(),
    "product_id": pl.String(),
    "grade": pl.Float64(),
    "split": pl.String(),
}


@dataclass(frozen=True)
class Dump:
    """A public data set brought to canonical tables.

    `counts` says what was read and kept; `dropped` how many source rows were left out, by reason.
    """

    products: pl.DataFrame
    events: pl.DataFrame | None = None
    judgments: pl.DataFrame | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)


def conform(frame: pl.DataFrame, schema: Mapping[str, pl.DataType], *, keep_others: bool = False) -> pl.DataFrame:
    """`frame` with exactly the columns of `schema`, in its order and types; absent columns become null.

    With `keep_others` the remaining columns follow, unchanged. Raises `InputError` where a value cannot take the type.
    """
    columns = [
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype).alias(name)
        for name, dtype in schema.items()
    ]
    others = [name for name in frame.columns if name not in schema] if keep_others else []
    try:
        return frame.select([*columns, *others])
    except pl.exceptions.PolarsError as error:
        raise InputError(f"A column does not have the documented type: {error}. See docs/data.md.") from error


def read_events(path: Path) -> pl.DataFrame:
    """Read canonical events. Raises `InputError` where a row lacks what an event needs, or has an unknown type."""
    events = _read(path, EVENTS, ("event_time", "event_type", "product_id"))
    unknown = events.filter(~pl.col("event_type").is_in(EVENT_TYPES))["event_type"].unique().sort().to_list()
    if unknown:
        raise InputError(f"{path} has event types {unknown}; known are: {', '.join(EVENT_TYPES)}. See docs/data.md.")
    return events


def read_judgments(path: Path) -> pl.DataFrame:
    """Read canonical judgments. Raises `InputError` where a row lacks query, product or grade."""
    return _read(path, JUDGMENTS, ("query", "product_id", "grade"))


def _read(path: Path, schema: Mapping[str, pl.DataType], required: Sequence[str]) -> pl.DataFrame:
    if not path.is_file():
        raise InputError(
            f"{path} does not exist. Make it with `vitrine import`, or point the configuration at your own file."
        )
    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path} is not a readable Parquet file: {error}") from error
    table = conform(frame, schema)
    for column in required:
        if lacking := table[column].null_count():
            raise InputError(f"{path}: {lacking:,} of {len(table):,} rows have no {column}. See docs/data.md.")
    return table
