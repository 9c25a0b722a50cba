from pathlib import Path

import polars as pl
import pytest

from indexer.canonical import JUDGMENTS, PRODUCTS, conform, read_table
from indexer.errors import InputError


def test_columns_take_the_order_and_types_of_the_schema() -> None:
    frame = pl.DataFrame({"colour": ["red"], "price": [3], "product_id": ["A"], "title": ["Mug"]})
    assert dict(conform(frame, PRODUCTS).schema) == PRODUCTS
    assert conform(frame, PRODUCTS, keep_others=True).columns == [*PRODUCTS, "colour"]
    assert conform(frame, PRODUCTS).rows() == [("A", "Mug", None, None, 3.0, None)]


def test_a_value_of_another_type_is_an_error() -> None:
    with pytest.raises(InputError, match=r"(?s)does not have the documented type.*docs/data\.md"):
        conform(pl.DataFrame({"grade": ["high"]}), JUDGMENTS)


def test_a_table_is_read_back(tmp_path: Path) -> None:
    frame = pl.DataFrame({"query": ["mug"], "product_id": ["A"], "grade": [1.0], "split": [None]}, schema=JUDGMENTS)
    frame.write_parquet(tmp_path / "judgments.parquet")
    assert read_table(tmp_path / "judgments.parquet", JUDGMENTS).equals(frame)


def test_a_table_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"judgments\.parquet does not exist"):
        read_table(tmp_path / "judgments.parquet", JUDGMENTS)
    (tmp_path / "judgments.parquet").write_bytes(b"query,product_id")
    with pytest.raises(InputError, match=r"judgments\.parquet is not a readable Parquet file"):
        read_table(tmp_path / "judgments.parquet", JUDGMENTS)
