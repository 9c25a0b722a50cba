"""Products as serialised messages: every column in its place, read back as it was written."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from indexer import rendered
from indexer.errors import SnapshotError
from indexer.rendered import Rendered, open_rendered, write_rendered


def made(folder: Path, **columns: Any) -> Rendered:
    write_rendered(pl.DataFrame(columns), folder)
    return open_rendered(folder)


def test_a_columns_type_is_kept_and_what_is_absent_is_unset(tmp_path: Path) -> None:
    product = made(
        tmp_path,
        product_id=["p1"],
        title=["Boot"],
        category=["Shoes"],
        brand=pl.Series([None], dtype=pl.String),
        price=[0.0],
        in_stock=[False],
        colour=["red"],
        weight=[1.5],
        pieces=[3],
        organic=[False],
        note=pl.Series([None], dtype=pl.String),
    ).product(0)
    assert (product.id, product.title, product.category, product.price) == ("p1", "Boot", "Shoes", 0.0)
    # Nought and no are values; only brand says nothing.
    assert [product.HasField(name) for name in ("category", "brand", "price", "in_stock")] == [True, False, True, True]
    kinds = {name: value.WhichOneof("kind") for name, value in product.attributes.items()}
    assert kinds == {
        "colour": "string_value",
        "weight": "number_value",
        "pieces": "number_value",
        "organic": "bool_value",
    }
    assert (product.attributes["pieces"].number_value, product.attributes["organic"].bool_value) == (3.0, False)


def test_every_row_is_found_whatever_block_it_was_written_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "_BLOCK", 2)
    titles = ["", "é", "防水登山靴", "boot", "x" * 300]
    found = made(tmp_path, product_id=list("abcde"), title=titles)
    assert len(found) == 5
    assert [found.product(row).title for row in range(5)] == titles
    assert [found.product(row).id for row in range(5)] == list("abcde")


@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: a[::-1], lambda a: a + 1, lambda a: a[:0]])
def test_offsets_that_do_not_fit_are_refused(tmp_path: Path, change: Any) -> None:
    made(tmp_path, product_id=["a", "b"], title=["A", "B"])
    path = tmp_path / "rendered_offsets.npy"
    np.save(path, change(np.load(path)))
    with pytest.raises(SnapshotError, match="Build the index again"):
        open_rendered(tmp_path)


@pytest.mark.parametrize("name", ["rendered.bin", "rendered_offsets.npy"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    made(tmp_path, product_id=["a"], title=["A"])
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SnapshotError, match=r"is damaged.*Build the index again"):
        open_rendered(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(SnapshotError, match=rf"{name} is missing.*Build the index again"):
        open_rendered(tmp_path)
