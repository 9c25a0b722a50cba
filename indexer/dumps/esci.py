"""Amazon "Shopping Queries" (ESCI): a catalogue in three locales and graded (query, product) pairs, as Parquet."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from indexer.canonical import Dump
from indexer.dumps.source import Tally, catalogue, check_columns, judgments, missing, text, unreadable

PRODUCTS_FILE = "shopping_queries_dataset_products.parquet"
EXAMPLES_FILE = "shopping_queries_dataset_examples.parquet"
FILES = f"{PRODUCTS_FILE} and {EXAMPLES_FILE}"

# Exact, substitute, complement, irrelevant: the gains of Reddy et al., "Shopping Queries Dataset" (2022).
GRADES = {"E": 1.0, "S": 0.1, "C": 0.01, "I": 0.0}


def read(folder: Path) -> Dump:
    """Read `folder`. A product's id is `<locale>:<id>`, since one id may be sold in several locales."""
    tally = Tally()
    columns = ("product_id", "product_title", "product_brand", "product_color", "product_locale")
    listed = _read(folder, PRODUCTS_FILE, columns)
    products = catalogue(_products(listed), tally)
    columns = ("query", "product_id", "product_locale", "esci_label", "split")
    examples = _read(folder, EXAMPLES_FILE, columns)
    graded = judgments(_pairs(examples), products, tally)
    counts = {
        "product_lines": listed.height,
        "judgment_lines": examples.height,
        "products": products.height,
        "judgments": graded.height,
    }
    return Dump(products, judgments=graded, counts=counts, dropped=tally.dropped)


def _read(folder: Path, name: str, columns: Sequence[str]) -> pl.DataFrame:
    path = folder / name
    if not path.is_file():
        raise missing(folder, name)
    try:
        check_columns(path, pl.scan_parquet(path).collect_schema().names(), columns)
        return pl.read_parquet(path, columns=list(columns)).cast(pl.String)
    except pl.exceptions.PolarsError as error:
        raise unreadable(path, error) from error


def _product_id() -> pl.Expr:
    return pl.concat_str(text("product_locale"), text("product_id"), separator=":")


def _products(listed: pl.DataFrame) -> pl.DataFrame:
    return listed.select(
        product_id=_product_id(),
        title=text("product_title"),
        brand=text("product_brand"),
        locale=text("product_locale"),
        color=text("product_color"),
    )


def _pairs(examples: pl.DataFrame) -> pl.DataFrame:
    return examples.select(
        query=text("query"),
        product_id=_product_id(),
        grade=text("esci_label").replace_strict(GRADES, default=None, return_dtype=pl.Float64),
        split=text("split"),
    )
