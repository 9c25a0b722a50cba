"""McAuley Lab "Amazon Reviews 2023": products and ratings of one or more categories, as JSON Lines."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from indexer.canonical import Dump
from indexer.dumps.source import Tally, catalogue, check_columns, missing, number, ratings, text, unpacked, unreadable

FILES = "meta_*.jsonl[.gz] (products) and the other *.jsonl[.gz] (reviews), in the folder or below it"

META: dict[str, pl.DataType] = {
    "parent_asin": pl.String(),
    "title": pl.String(),
    "main_category": pl.String(),
    "categories": pl.List(pl.String()),
    "store": pl.String(),
    # A number, null, "None" or free text, so it is read as text and parsed afterwards.
    "price": pl.String(),
    "average_rating": pl.Float64(),
    "rating_number": pl.Int64(),
}
REVIEWS: dict[str, pl.DataType] = {
    "user_id": pl.String(),
    "parent_asin": pl.String(),
    "asin": pl.String(),
    "rating": pl.Float64(),
    "timestamp": pl.Int64(),
}
PRICE = r"^\$?(\d[\d,]*(?:\.\d+)?)$"


def read(folder: Path) -> Dump:
    """Read every category in `folder`. A product is a `parent_asin`: its variants share one entry."""
    files = sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.jsonl.gz")])
    metas = [path for path in files if path.name.startswith("meta_")]
    reviews = [path for path in files if path not in metas]
    if not metas or not reviews:
        raise missing(folder, FILES)
    tally = Tally()
    listed = _read(metas, META, ("parent_asin", "title"))
    products = catalogue(_products(listed), tally)
    rated = _read(reviews, REVIEWS, ("user_id", "parent_asin", "rating", "timestamp"))
    events = ratings(_ratings(rated), products, tally)
    counts = {
        "product_lines": listed.height,
        "review_lines": rated.height,
        "products": products.height,
        "products_without_price": products["price"].null_count(),
        "events": events.height,
    }
    return Dump(products, events, counts=counts, dropped=tally.dropped)


def _read(paths: Sequence[Path], schema: Mapping[str, pl.DataType], needed: Sequence[str]) -> pl.DataFrame:
    return pl.concat([_read_one(path, schema, needed) for path in paths])


def _read_one(path: Path, schema: Mapping[str, pl.DataType], needed: Sequence[str]) -> pl.DataFrame:
    try:
        source = io.BytesIO(unpacked(path)) if path.suffix == ".gz" else path
        frame = pl.read_ndjson(source, schema=dict(schema))
    except pl.exceptions.PolarsError as error:
        raise unreadable(path, error) from error
    # JSON Lines has no header: a column is absent where no line has a value for it.
    check_columns(path, [name for name in frame.columns if frame[name].null_count() < frame.height], needed)
    return frame


def _products(listed: pl.DataFrame) -> pl.DataFrame:
    price = text("price").str.extract(PRICE).str.replace_all(",", "")
    return listed.select(
        product_id=text("parent_asin"),
        title=text("title"),
        category=pl.coalesce(pl.col("categories").list.last(), "main_category"),
        brand=text("store"),
        price=price.cast(pl.Float64, strict=False),
        average_rating="average_rating",
        rating_number="rating_number",
    ).with_columns(text("category"))


def _ratings(rated: pl.DataFrame) -> pl.DataFrame:
    return rated.select(
        user_id=text("user_id"),
        product_id=pl.coalesce(text("parent_asin"), text("asin")),
        value=number("rating"),
        milliseconds="timestamp",
    )
