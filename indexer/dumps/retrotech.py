"""RetroTech, the shop of "AI-Powered Search": electronics and media products, with made-up impressions and clicks."""

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from indexer.canonical import EVENTS, TIME, Dump, conform
from indexer.dumps.source import (
    Tally,
    catalogue,
    check_columns,
    decoded,
    missing,
    number,
    read_delimited,
    require,
    text,
    unreadable,
)

FILES = "products.csv[.gz] and sessions/*.gz or sessions/*.csv"
PRODUCT_COLUMNS = ("upc", "name", "manufacturer", "short_description")
SESSION_COLUMNS = ("sess_id", "query", "rank", "clicked_doc_id", "clicked")

# The sessions carry no time. They are given one second each from here on, the queries taking turns.
START = datetime(2012, 1, 1, tzinfo=UTC)


def read(folder: Path) -> Dump:
    """Read `folder`. Each product shown is an impression; each one clicked is a click of the same request as well."""
    tally = Tally()
    listed = _product_rows(require(folder, "products.csv"), tally)
    paths = sorted(path for path in (folder / "sessions").glob("*") if path.suffix in (".gz", ".csv"))
    if not paths:
        raise missing(folder, FILES)
    products = catalogue(_products(listed), tally)
    shown = pl.concat([read_delimited(path, SESSION_COLUMNS) for path in paths])
    events = _events(_impressions(shown, products, tally))
    counts = {
        "product_lines": listed.height + tally.dropped["product_line_malformed"],
        "impression_lines": shown.height,
        "products": products.height,
        "requests": events["request_id"].n_unique(),
        "impressions": events.filter(pl.col("event_type") == "impression").height,
        "clicks": events.filter(pl.col("event_type") == "click").height,
        "events": events.height,
    }
    return Dump(products, events, counts=counts, dropped=tally.dropped)


def _product_rows(path: Path, tally: Tally) -> pl.DataFrame:
    # Quotes are escaped with a backslash, which polars cannot read; Python's csv module can (48,000 lines in 0.4 s).
    try:
        header, *lines = csv.reader(io.StringIO(decoded(path), newline=""), escapechar="\\")
    except (csv.Error, ValueError) as error:
        raise unreadable(path, error) from error
    check_columns(path, header, PRODUCT_COLUMNS)
    whole = [line for line in lines if len(line) == len(header)]
    tally.dropped["product_line_malformed"] = len(lines) - len(whole)
    frame = pl.DataFrame(whole, schema=dict.fromkeys(header, pl.String), orient="row")
    return frame.select(PRODUCT_COLUMNS)


def _products(listed: pl.DataFrame) -> pl.DataFrame:
    return listed.select(
        product_id=_product_id("upc"),
        title=text("name"),
        brand=text("manufacturer"),
        description=text("short_description"),
    )


def _product_id(column: str) -> pl.Expr:
    """The catalogue writes upc with leading zeros, the sessions without."""
    return text(column).str.strip_chars_start("0").replace("", None)


def _impressions(shown: pl.DataFrame, products: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """One row for each product shown, with `clicked`."""
    rows = shown.select(
        session=number("sess_id").cast(pl.Int64, strict=False),
        query=text("query"),
        product_id=_product_id("clicked_doc_id"),
        position=number("rank").cast(pl.Int32, strict=False) + 1,
        clicked=text("clicked").str.to_lowercase().replace_strict({"true": True, "false": False}, default=None),
    )
    rows = tally.keep(rows, "impression_unreadable", pl.all_horizontal(pl.all().is_not_null()))
    rows = tally.known(rows, "impression_of_unknown_product", products)
    return tally.first(rows, "impression_repeated", "session", "query", "position")


def _events(rows: pl.DataFrame) -> pl.DataFrame:
    # sess_id begins again at 2 for some queries, so only with the query does it name a request.
    # The i-th (from 0) of a query's n sessions stands at (i + 0.5) / n of the period. In the order of their numbers
    # alone, whole queries would follow one another, and a later part of the log would be of other queries.
    turn = ((pl.int_range(pl.len()) + 0.5) / pl.len()).over("query")
    second = pl.duration(seconds=pl.int_range(pl.len()))
    requests = (
        rows.select("session", "query")
        .unique()
        .sort("query", "session")
        .sort(turn, "query")
        .with_columns(
            request_id=pl.format("{}:{}", "query", "session"),
            event_time=(pl.lit(START).cast(TIME) + second).cast(TIME),
        )
    )
    timed = rows.join(requests, on=["session", "query"])
    impressions = timed.with_columns(event_type=pl.lit("impression"))
    clicks = timed.filter("clicked").with_columns(event_type=pl.lit("click"))
    named = pl.concat([impressions, clicks]).with_columns(
        session_id=pl.col("request_id"),
        event_id=pl.format("{}:{}:{}", "request_id", "position", "event_type"),
    )
    # At one time, a request's impressions come before its clicks.
    order = pl.col("event_type") == "click"
    return conform(named.sort("event_time", order, "position"), EVENTS)
