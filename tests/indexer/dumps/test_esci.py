from pathlib import Path

import polars as pl
import pytest

from indexer.canonical import JUDGMENTS
from indexer.dumps.esci import EXAMPLES_FILE, PRODUCTS_FILE, read
from indexer.errors import InputError

PRODUCTS = pl.DataFrame(
    [
        ("B1", " Red  mug", "long", "bullets", "Acme", "red", "us"),
        ("B1", "Taza roja", None, None, "", None, "es"),
        ("B2", "", None, None, None, None, "us"),
        ("B1", "Again", None, None, None, None, "us"),
        (None, "No id", None, None, None, None, "us"),
    ],
    schema=[
        "product_id",
        "product_title",
        "product_description",
        "product_bullet_point",
        "product_brand",
        "product_color",
        "product_locale",
    ],
    orient="row",
)
EXAMPLES = pl.DataFrame(
    [
        (0, "red  mug", 7, "B1", "us", "E", 1, 1, "train"),
        (1, "mug", 8, "B1", "us", "S", 1, 1, "test"),
        (2, "tea", 9, "B1", "us", "C", 0, 1, "train"),
        (3, "taza", 10, "B1", "es", "I", 0, 1, "train"),
        (4, "red mug", 7, "B1", "us", "I", 1, 1, "train"),
        (5, "red mug", 7, "B9", "us", "E", 1, 1, "train"),
        (6, "mug cup", 11, "B1", "us", "X", 1, 1, "train"),
        (7, " ", 12, "B1", "us", "E", 1, 1, "train"),
    ],
    schema=[
        "example_id",
        "query",
        "query_id",
        "product_id",
        "product_locale",
        "esci_label",
        "small_version",
        "large_version",
        "split",
    ],
    orient="row",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    PRODUCTS.write_parquet(tmp_path / PRODUCTS_FILE)
    EXAMPLES.write_parquet(tmp_path / EXAMPLES_FILE)
    return tmp_path


def test_products_carry_the_locale(folder: Path) -> None:
    products = read(folder).products
    assert products.select("product_id", "title", "brand", "locale", "color").rows() == [
        ("us:B1", "Red mug", "Acme", "us", "red"),
        ("es:B1", "Taza roja", None, "es", None),
    ]


def test_grades_and_split(folder: Path) -> None:
    judgments = read(folder).judgments
    assert judgments is not None
    assert dict(judgments.schema) == JUDGMENTS
    assert judgments.rows() == [
        ("red mug", "us:B1", 1.0, "train"),
        ("mug", "us:B1", 0.1, "test"),
        ("tea", "us:B1", 0.01, "train"),
        ("taza", "es:B1", 0.0, "train"),
    ]


def test_every_dropped_row_is_counted(folder: Path) -> None:
    dump = read(folder)
    assert dict(dump.dropped) == {
        "product_without_id": 1,
        "product_without_title": 1,
        "product_repeated": 1,
        "judgment_without_query": 1,
        "judgment_without_grade": 1,
        "judgment_of_unknown_product": 1,
        "judgment_repeated": 1,
    }
    assert dict(dump.counts) == {"product_lines": 5, "judgment_lines": 8, "products": 2, "judgments": 4}


def test_missing_files_are_named(folder: Path) -> None:
    (folder / EXAMPLES_FILE).unlink()
    with pytest.raises(InputError, match=f"looked for {EXAMPLES_FILE}"):
        read(folder)
    (folder / PRODUCTS_FILE).unlink()
    with pytest.raises(InputError, match=f"looked for {PRODUCTS_FILE}"):
        read(folder)


def test_missing_columns_are_named(folder: Path) -> None:
    EXAMPLES.drop("esci_label", "split").write_parquet(folder / EXAMPLES_FILE)
    with pytest.raises(InputError, match="lacks the columns esci_label, split"):
        read(folder)


def test_a_file_that_is_no_parquet(folder: Path) -> None:
    (folder / PRODUCTS_FILE).write_text("not parquet, but long enough to be looked at")
    with pytest.raises(InputError, match="cannot be read"):
        read(folder)
