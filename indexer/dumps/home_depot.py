"""The Kaggle "Home Depot Product Search Relevance" set: a catalogue and graded (query, product) pairs."""

from pathlib import Path

import polars as pl

from indexer.canonical import Dump
from indexer.dumps.source import Tally, catalogue, find, judgments, missing, number, read_delimited, require, text

FILES = "products.csv[.gz] and judgments.csv[.gz]; or Kaggle's train.csv[.gz] and, if there, attributes.csv[.gz]"
BRAND = "MFG Brand Name"


def read(folder: Path) -> Dump:
    """Read either layout of `folder`. The grade is the relevance, 1 (irrelevant) to 3 (a perfect match)."""
    tally = Tally()
    listed, judged = _split_layout(folder) if find(folder, "products.csv") else _kaggle_layout(folder)
    products = catalogue(_products(listed, folder), tally)
    pairs = judged.select(query=text("search_term"), product_id=text("product_uid"), grade=number("relevance"))
    graded = judgments(pairs, products, tally)
    counts = {
        "product_lines": listed.height,
        "judgment_lines": judged.height,
        "products": products.height,
        "judgments": graded.height,
    }
    return Dump(products, judgments=graded, counts=counts, dropped=tally.dropped)


def _split_layout(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    listed = read_delimited(require(folder, "products.csv"), ("product_uid", "product_title"), legacy=True)
    columns = ("search_term", "product_uid", "relevance")
    return listed, read_delimited(require(folder, "judgments.csv"), columns, legacy=True)


def _kaggle_layout(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    path = find(folder, "train.csv")
    if path is None:
        raise missing(folder, FILES)
    judged = read_delimited(path, ("product_uid", "product_title", "search_term", "relevance"), legacy=True)
    # The title is repeated on each judgment of a product, so only what differs from it can be a repeated product.
    return judged.select("product_uid", "product_title").unique(maintain_order=True), judged


def _products(listed: pl.DataFrame, folder: Path) -> pl.DataFrame:
    products = listed.select(product_id=text("product_uid"), title=text("product_title"))
    path = find(folder, "attributes.csv")
    if path is None:
        return products
    attributes = read_delimited(path, ("product_uid", "name", "value"), legacy=True)
    brands = (
        attributes.filter(pl.col("name") == BRAND)
        .select(product_id=text("product_uid"), brand=text("value"))
        .drop_nulls()
        .unique("product_id", keep="first", maintain_order=True)
    )
    return products.join(brands, on="product_id", how="left", maintain_order="left")
