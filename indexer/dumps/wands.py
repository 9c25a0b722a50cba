"""Wayfair's WANDS: furniture and home products with graded (query, product) pairs, tab separated."""

from pathlib import Path

import polars as pl

from indexer.canonical import Dump
from indexer.dumps.source import Tally, catalogue, judgments, number, read_delimited, require, text

FILES = "product.csv[.gz], query.csv[.gz] and label.csv[.gz], tab separated"
GRADES = {"Exact": 1.0, "Partial": 0.5, "Irrelevant": 0.0}
OPTIONAL = ("product_class", "category hierarchy", "rating_count", "average_rating", "review_count")


def read(folder: Path) -> Dump:
    """Read `folder`. The grade is 1 for an exact match, 0.5 for a partial one, 0 for an irrelevant product."""
    tally = Tally()
    path = require(folder, "product.csv")
    listed = read_delimited(path, ("product_id", "product_name"), optional=OPTIONAL, separator="\t")
    queries = read_delimited(require(folder, "query.csv"), ("query_id", "query"), separator="\t")
    labels = read_delimited(require(folder, "label.csv"), ("query_id", "product_id", "label"), separator="\t")
    products = catalogue(_products(listed), tally)
    graded = judgments(_pairs(labels, queries), products, tally)
    counts = {
        "product_lines": listed.height,
        "query_lines": queries.height,
        "judgment_lines": labels.height,
        "products": products.height,
        "judgments": graded.height,
    }
    return Dump(products, judgments=graded, counts=counts, dropped=tally.dropped)


def _products(listed: pl.DataFrame) -> pl.DataFrame:
    hierarchy = text("category hierarchy")
    return listed.select(
        product_id=text("product_id"),
        title=text("product_name"),
        # A product may be in several classes, "Beds|Kids Beds": the first is its own.
        category=pl.coalesce(_part(text("product_class"), "|", 0), _part(hierarchy, "/", -1)),
        category_hierarchy=hierarchy,
        rating_count=number("rating_count").cast(pl.Int64, strict=False),
        average_rating=number("average_rating"),
        review_count=number("review_count").cast(pl.Int64, strict=False),
    )


def _part(column: pl.Expr, separator: str, index: int) -> pl.Expr:
    return column.str.split(separator).list.get(index).str.strip_chars().replace("", None)


def _pairs(labels: pl.DataFrame, queries: pl.DataFrame) -> pl.DataFrame:
    named = queries.select(text("query_id"), text("query")).unique("query_id", keep="first", maintain_order=True)
    pairs = labels.select(
        text("query_id"),
        product_id=text("product_id"),
        grade=text("label").replace_strict(GRADES, default=None, return_dtype=pl.Float64),
    )
    return pairs.join(named, on="query_id", how="left", maintain_order="left")
