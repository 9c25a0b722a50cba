"""A catalogue file as requests: rows that cannot be used, values as the server's columns want them, sizes."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from google.protobuf.json_format import MessageToDict

from indexer.errors import ConfigError, InputError
from server import product_file


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def products(frame: pl.DataFrame, **kinds: str) -> list[dict[str, Any]]:
    return [
        MessageToDict(item.product, preserving_proto_field_name=True)
        for request in product_file.requests(frame, kinds)
        for item in request.items
    ]


CSV = """sku,title,brand,price,in_stock,size,vegan,ean
a, Red  boot ,Acme,9.50,yes,42,true,0042
b,boot,,,,,,
"""


def test_a_row_becomes_a_product(tmp_path: Path) -> None:
    read = product_file.read(written(tmp_path / "new.csv", CSV), {"product_id": "sku"})
    whole = {"id": "a", "title": "Red boot", "brand": "Acme", "price": 9.5, "in_stock": True}
    given = {"size": {"number_value": 42.0}, "vegan": {"bool_value": True}, "ean": {"string_value": "0042"}}
    assert products(read, size="number", vegan="bool", ean="string") == [
        whole | {"attributes": given},
        {"id": "b", "title": "boot"},
    ]


def test_what_a_column_is_the_server_says_and_not_so_few_values(tmp_path: Path) -> None:
    """A size of 42 is a text where others are of size M."""
    read = product_file.read(written(tmp_path / "new.csv", CSV), {"product_id": "sku"})
    (first, _) = products(read, size="string", vegan="string", ean="number")
    assert first["attributes"] == {
        "size": {"string_value": "42"},
        "vegan": {"string_value": "true"},
        "ean": {"number_value": 42.0},
    }


def test_what_is_not_of_its_type_is_sent_as_it_is(tmp_path: Path) -> None:
    content = '{"product_id": "a", "title": "boot", "size": "large", "vegan": 1, "other": "x", "weight": NaN}\n'
    read = product_file.read(written(tmp_path / "new.jsonl", content), {})
    (first,) = products(read, size="number", vegan="bool", weight="number")
    assert first["attributes"] == {
        name: {"string_value": text} for name, text in zip(("size", "vegan", "other"), ("large", "1", "x"), strict=True)
    }


def test_parquet_is_read_too(tmp_path: Path) -> None:
    pl.DataFrame({"product_id": ["a"], "title": ["boot"], "size": [42], "vegan": [False], "price": [2]}).write_parquet(
        tmp_path / "new.parquet"
    )
    (first,) = products(product_file.read(tmp_path / "new.parquet", {}), size="number", vegan="bool")
    assert first["price"] == 2.0
    assert first["attributes"] == {"size": {"number_value": 42.0}, "vegan": {"bool_value": False}}


def test_rows_that_cannot_be_used_are_all_told(tmp_path: Path) -> None:
    path = written(tmp_path / "new.csv", "product_id,title,price\na,boot,1\nb,,1\n,boot,1\nc,boot,cheap\n")
    with pytest.raises(InputError) as caught:
        product_file.read(path, {})
    assert str(caught.value).splitlines() == [
        f"3 of 4 rows of {path} cannot be used, and nothing was sent: mend them or take them out.",
        "  line 3 (b): empty title",
        "  line 4: no id",
        "  line 5 (c): price is not a number: 'cheap'",
    ]


def test_of_many_rows_that_cannot_be_used_the_first_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "new.csv", "product_id,title\n" + "".join(f"p{i},\n" for i in range(100)))
    with pytest.raises(InputError) as caught:
        product_file.read(path, {})
    lines = str(caught.value).splitlines()
    assert (len(lines), lines[20], lines[21]) == (22, "  line 21 (p19): empty title", "  and 80 more")


def test_a_file_that_says_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"new\.csv holds no product"):
        product_file.read(written(tmp_path / "new.csv", "product_id,title\n"), {})
    with pytest.raises(InputError, match=r"has no column 'title'.*--column title=name"):
        product_file.read(written(tmp_path / "new.csv", "product_id,name\na,boot\n"), {})


def test_a_request_has_a_thousand_products_or_two_mebibytes(tmp_path: Path) -> None:
    def sizes(count: int, title: str) -> list[int]:
        frame = pl.DataFrame({"product_id": [str(i) for i in range(count)], "title": [title] * count})
        absent = {name: pl.lit(None) for name in ("category", "brand", "price", "in_stock")}
        made = list(product_file.requests(frame.with_columns(**absent), {}))
        assert [item.product.id for request in made for item in request.items] == frame["product_id"].to_list()
        assert all(request.ByteSize() < 3 * 1024 * 1024 for request in made)
        return [len(request.items) for request in made]

    assert sizes(2_001, "boot") == [1_000, 1_000, 1]
    assert sizes(1_000, "boot") == [1_000]
    assert len(sizes(900, "靴" * 2_000)) == 3


def test_names_that_differ() -> None:
    assert product_file.renamed(["title=name", "price=a=b"]) == {"title": "name", "price": "a=b"}
    for bad in ("title", "title=", "name=title", "=name", ""):
        with pytest.raises(ConfigError, match=f"--column {bad}: say one of product_id, title,"):
            product_file.renamed([bad])
