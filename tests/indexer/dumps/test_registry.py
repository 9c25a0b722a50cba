import json
from pathlib import Path

import polars as pl
import pytest

from indexer.canonical import JUDGMENTS, PRODUCTS, Dump, conform, read_judgments
from indexer.dumps.registry import FORMATS, write
from indexer.errors import InputError

ROWS = pl.DataFrame({"product_id": ["1"], "title": ["Mug"], "colour": ["red"]})
JUDGED = conform(pl.DataFrame({"query": ["mug"], "product_id": ["1"], "grade": [1.0]}), JUDGMENTS)


def test_every_format_has_a_reader_that_names_its_files(tmp_path: Path) -> None:
    assert list(FORMATS) == [
        "amazon-reviews-2023",
        "esci",
        "home-depot",
        "movielens",
        "online-retail",
        "recbole-sequences",
        "retrotech",
        "wands",
        "zh-titles",
    ]
    for form in FORMATS.values():
        with pytest.raises(InputError, match="looked for"):
            form.read(tmp_path)
        assert "\n" not in form.files


def test_write_and_read_back(tmp_path: Path) -> None:
    products = conform(ROWS, PRODUCTS, keep_others=True)
    dump = Dump(products, judgments=JUDGED, counts={"products": 1}, dropped={"product_without_id": 2})
    out = tmp_path / "made" / "here"
    write(dump, out)
    assert sorted(path.name for path in out.iterdir()) == ["import.json", "judgments.parquet", "products.parquet"]
    assert pl.read_parquet(out / "products.parquet").equals(products)
    assert read_judgments(out / "judgments.parquet").equals(JUDGED)
    assert json.loads((out / "import.json").read_text()) == {
        "counts": {"products": 1},
        "dropped": {"product_without_id": 2},
    }


def test_write_again_leaves_nothing_of_the_earlier_import(tmp_path: Path) -> None:
    products = conform(ROWS, PRODUCTS)
    write(Dump(products, judgments=JUDGED), tmp_path)
    write(Dump(products.clear()), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["import.json", "products.parquet"]
    assert pl.read_parquet(tmp_path / "products.parquet").height == 0
