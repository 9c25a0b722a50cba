"""Sequences in RecBole's atomic files: products, and what each user took, in order. The times are made up."""

import re
import zlib
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from indexer.canonical import EVENTS, TIME, Dump, conform
from indexer.dumps.source import Tally, catalogue, missing, read_delimited, text

FILES = "one item.tsv or *.item, and at least one inter.tsv, *.inter.tsv or *.inter; any may end in .gz"
ITEM_NAME = re.compile(r"(.+\.)?item(\.tsv)?(\.gz)?")
INTER_NAME = re.compile(r"(.+\.)?inter(\.tsv)?(\.gz)?")
ITEM_COLUMNS = ("item_id:token", "title:token_seq")
INTER_COLUMNS = ("user_id:token", "item_id_list:token_seq", "item_id:token")

# The sequences carry no time. The last step of each is given this day, the step before it the day before, and so on.
LAST_DAY = datetime(2018, 1, 1, tzinfo=UTC)
_DAY = 86_400_000_000  # microseconds


def read(folder: Path) -> Dump:
    """Read `folder`. A row is a user's sequence, its last item in a column of its own; each step is a purchase."""
    tally = Tally()
    items, inters = _named(folder, ITEM_NAME), _named(folder, INTER_NAME)
    if len(items) != 1 or not inters:
        raise missing(folder, FILES)
    listed = read_delimited(items[0], ITEM_COLUMNS, separator="\t", quote=None)
    products = catalogue(listed.select(product_id=text(ITEM_COLUMNS[0]), title=text(ITEM_COLUMNS[1])), tally)
    rows = pl.concat([read_delimited(path, INTER_COLUMNS, separator="\t", quote=None) for path in inters])
    sequences = _sequences(rows, tally)
    events = _events(tally.known(_steps(sequences), "step_of_unknown_product", products))
    counts = {
        "product_lines": listed.height,
        "sequence_lines": rows.height,
        "products": products.height,
        "users": sequences.height,
        "events": events.height,
    }
    return Dump(products, events, counts=counts, dropped=tally.dropped)


def _named(folder: Path, name: re.Pattern[str]) -> list[Path]:
    return sorted(path for path in folder.glob("*") if name.fullmatch(path.name))


def _sequences(rows: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """Columns user_id and items: the longest sequence of each user, of which any other is a beginning."""
    user, history, last = (text(column) for column in INTER_COLUMNS)
    rows = tally.keep(rows, "sequence_unreadable", user.is_not_null() & last.is_not_null())
    items = pl.concat_str(history, last, separator=" ", ignore_nulls=True).str.split(" ")
    sequences = rows.select(user_id=user, items=items)
    longest_first = sequences.sort(pl.col("items").list.len(), descending=True, maintain_order=True)
    return tally.first(longest_first, "sequence_repeated", "user_id")


def _steps(sequences: pl.DataFrame) -> pl.DataFrame:
    """Columns user_id, step (from 1), product_id and event_time of every step."""
    # By a hash of the user, since files are often sorted: in the order of games, the longest sequences come first.
    turn = pl.col("user_id").map_elements(lambda user: zlib.crc32(user.encode()), pl.Int64)
    moment = pl.int_range(pl.len()) * (_DAY // max(sequences.height, 1))
    length, step = pl.col("items").list.len().cast(pl.Int64), pl.int_ranges(1, pl.col("items").list.len() + 1)
    steps = sequences.sort(turn, "user_id").select("user_id", "items", length=length, moment=moment, step=step)
    since = (pl.col("step") - pl.col("length")) * _DAY + pl.col("moment")
    return steps.explode("items", "step").select(
        "user_id",
        "step",
        product_id="items",
        event_time=(pl.lit(LAST_DAY).cast(TIME) + pl.duration(microseconds=since)).cast(TIME),
    )


def _events(steps: pl.DataFrame) -> pl.DataFrame:
    named = steps.with_columns(event_type=pl.lit("purchase"), event_id=pl.format("{}:{}", "user_id", "step"))
    return conform(named.sort("event_time"), EVENTS)
