"""Titles of a Chinese shop, without ids: a product's id is the number of its row."""

from pathlib import Path

import polars as pl

from indexer.canonical import Dump
from indexer.dumps.source import Tally, catalogue, read_delimited, require, text

FILES = "titles.csv[.gz]"


def read(folder: Path) -> Dump:
    """Read `folder`. Rows are numbered from 1, those that are dropped included."""
    tally = Tally()
    listed = read_delimited(require(folder, "titles.csv"), ("title",))
    numbered = listed.with_row_index("row", offset=1)
    products = catalogue(numbered.select(product_id=pl.col("row").cast(pl.String), title=text("title")), tally)
    counts = {"product_lines": listed.height, "products": products.height}
    return Dump(products, counts=counts, dropped=tally.dropped)
