"""What differs between two readings of a catalogue, whatever the order of their rows."""

from pathlib import Path
from typing import Any, cast

import polars as pl
import pyarrow as pa
import pytest

from indexer.canonical import PRODUCTS, conform
from indexer.difference import difference


def products(*rows: dict[str, Any]) -> pl.DataFrame:
    frame = pl.DataFrame([{"title": "boot", **row} for row in rows], infer_schema_length=None)
    return conform(frame.rename({"id": "product_id"}), PRODUCTS, keep_others=True)


BEFORE = ({"id": "a", "price": 1.0}, {"id": "b", "price": None}, {"id": "c", "in_stock": True})


def test_the_order_of_rows_is_no_change() -> None:
    assert difference(products(*BEFORE), products(*BEFORE[::-1])) == (0, 0, 0)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ((*BEFORE, {"id": "d"}), (1, 0, 0)),
        (BEFORE[:1], (0, 2, 0)),
        (({"id": "x"},), (1, 3, 0)),
        (({"id": "a", "price": 2.0}, *BEFORE[1:]), (0, 0, 1)),
        (({"id": "a", "price": None}, *BEFORE[1:]), (0, 0, 1)),
        ((BEFORE[0], {"id": "b", "price": 3.0}, {"id": "c", "in_stock": False}), (0, 0, 2)),
        (({**BEFORE[0], "title": "boots"}, BEFORE[2], {"id": "d"}), (1, 1, 1)),
    ],
)
def test_what_came_went_and_changed(after: tuple[dict[str, Any], ...], expected: tuple[int, ...]) -> None:
    assert difference(products(*BEFORE), products(*after)) == expected


def test_another_column_changes_every_product() -> None:
    wider = products(*BEFORE).with_columns(colour=pl.lit(None, pl.String))
    assert difference(products(*BEFORE), wider) == difference(wider, products(*BEFORE)) == (0, 0, 3)


def test_an_index_holds_what_was_read(tmp_path: Path) -> None:
    """As an index writes and reads its products, they are the same ones."""
    frame = products(*({**row, "size": 1.5, "count": 2, "old": True} for row in BEFORE))
    frame.write_ipc(tmp_path / "products.arrow", compat_level=pl.CompatLevel.oldest())
    with pa.memory_map(str(tmp_path / "products.arrow")) as source:
        read = pl.from_arrow(pa.ipc.open_file(source).read_all())
    assert difference(cast(pl.DataFrame, read), frame) == (0, 0, 0)
