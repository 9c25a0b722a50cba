from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.canonical import PRODUCTS
from indexer.dumps.zh_titles import read
from indexer.errors import InputError


def test_a_product_is_named_by_its_row(put: Callable[..., Path]) -> None:
    dump = read(put("titles.csv.gz", 'title\n#合金车模#\n" "\n"红茶,  礼盒装"\n#合金车模#\n'))
    assert dump.products.columns == list(PRODUCTS)
    # An empty row is left out but numbered, and two products may have one title.
    assert dump.products.select("product_id", "title").rows() == [
        ("1", "#合金车模#"),
        ("3", "红茶, 礼盒装"),
        ("4", "#合金车模#"),
    ]
    assert (dump.events, dump.judgments) == (None, None)
    assert dict(dump.counts) == {"product_lines": 4, "products": 3}
    assert dump.dropped["product_without_title"] == 1


def test_missing_file_and_column_are_named(put: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"looked for titles\.csv\[\.gz\]"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"titles\.csv lacks the columns title"):
        read(put("titles.csv", "name\n红茶\n"))


@pytest.mark.real
def test_real_counts(real: Callable[[str], Path]) -> None:
    dump = read(real("zh_titles"))
    assert dict(dump.counts) == {"product_lines": 2716, "products": 2716}
    assert sum(dump.dropped.values()) == 0
