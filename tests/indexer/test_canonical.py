from pathlib import Path

import polars as pl
import pytest

from indexer.canonical import EVENTS, JUDGMENTS, PRODUCTS, conform, read_events, read_judgments
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
    assert read_judgments(tmp_path / "judgments.parquet").equals(frame)


def test_a_table_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"judgments\.parquet does not exist"):
        read_judgments(tmp_path / "judgments.parquet")
    (tmp_path / "judgments.parquet").write_bytes(b"query,product_id")
    with pytest.raises(InputError, match=r"judgments\.parquet is not a readable Parquet file"):
        read_judgments(tmp_path / "judgments.parquet")


def test_a_judgment_without_a_grade_is_an_error(tmp_path: Path) -> None:
    frame = pl.DataFrame({"query": ["mug", "cup"], "product_id": ["A", "B"], "grade": [1.0, None]})
    frame.write_parquet(tmp_path / "judgments.parquet")
    with pytest.raises(InputError, match="1 of 2 rows have no grade"):
        read_judgments(tmp_path / "judgments.parquet")


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            {"event_type": "bought", "product_id": "A", "event_time": 1},
            r"event types \['bought'\]; known are",
        ),
        ({"event_type": "click", "product_id": "A", "event_time": None}, "1 of 1 rows have no event_time"),
        ({"event_type": "click", "product_id": None, "event_time": 1}, "1 of 1 rows have no product_id"),
    ],
)
def test_an_event_that_says_nothing_is_an_error(tmp_path: Path, event: dict[str, object], told: str) -> None:
    names = ("event_type", "product_id")
    schema = {name: EVENTS[name] for name in names} | {"event_time": pl.Int64()}
    frame = pl.DataFrame([event], schema=schema).with_columns(pl.col("event_time").cast(EVENTS["event_time"]))
    frame.write_parquet(tmp_path / "events.parquet")
    with pytest.raises(InputError, match=told):
        read_events(tmp_path / "events.parquet")
