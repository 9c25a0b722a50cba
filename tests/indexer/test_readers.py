import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from indexer import readers
from indexer.canonical import PRODUCTS
from indexer.errors import InputError
from indexer.readers import MOST_ID_BYTES, MOST_TITLE_CHARACTERS, Reject, read_catalogue

GOOD: list[dict[str, Any]] = [
    {"product_id": "A1", "title": "Red  mug", "category": "Mugs", "brand": "Acme", "price": 12.5, "in_stock": True},
    {"product_id": "A2", "title": "防水登山靴", "category": "", "brand": None, "price": None, "in_stock": False},
    {"product_id": "A3", "title": "Ｂｏｗｌ", "category": None, "brand": "Acme", "price": 0, "in_stock": None},
]
EXPECTED = [
    ("A1", "Red mug", "Mugs", "Acme", 12.5, True),
    ("A2", "防水登山靴", None, None, None, False),
    ("A3", "Bowl", None, "Acme", 0.0, None),
]
MEGABYTE = "x" * 1_000_000


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Writes a file below `tmp_path`, gzipped where its name ends in .gz."""

    def write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


Put = Callable[[str, bytes], Path]


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    return pl.DataFrame(rows, infer_schema_length=None).write_csv().encode()


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.jsonl", "c.ndjson", "c.jsonl.gz", "c.parquet"])
def test_every_format_gives_the_same_products(name: str, put: Put, tmp_path: Path) -> None:
    if name.endswith(".parquet"):
        pl.DataFrame(GOOD, infer_schema_length=None, strict=False).write_parquet(path := tmp_path / name)
    else:
        path = put(name, as_csv(GOOD) if ".csv" in name else as_jsonl(GOOD))
    products, rejects = read_catalogue(path)
    assert rejects == []
    assert products.rows() == EXPECTED
    assert dict(products.schema) == PRODUCTS


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no id": ({"product_id": ""}, "no id"),
    "blank id": ({"product_id": "  "}, "no id"),
    "null id": ({"product_id": None}, "no id"),
    "duplicate id": ({"product_id": "A1"}, "duplicate id"),
    "empty title": ({"title": ""}, "empty title"),
    "white title": ({"title": " \t\u3000 "}, "empty title"),
    "null title": ({"title": None}, "empty title"),
    "long title": ({"title": MEGABYTE}, f"title longer than {MOST_TITLE_CHARACTERS} characters"),
    "long id": ({"product_id": MEGABYTE}, f"id longer than {MOST_ID_BYTES} bytes"),
    "long Chinese id": ({"product_id": "靴" * 43}, f"id longer than {MOST_ID_BYTES} bytes"),
    "NUL in the id": ({"product_id": "X\0Y"}, "id with a NUL character"),
    "price abc": ({"price": "abc"}, "price is not a number: 'abc'"),
    "negative price": ({"price": "-0.5"}, "price is not a number from 0 up: '-0.5'"),
    "NaN price": ({"price": "NaN"}, "price is not a number from 0 up: 'NaN'"),
    "infinite price": ({"price": "inf"}, "price is not a number from 0 up: 'inf'"),
    "price with currency": ({"price": "$ 5"}, "price is not a number: '$ 5'"),
    "bad in_stock": ({"in_stock": "maybe"}, "in_stock is neither true nor false: 'maybe'"),
}


@pytest.mark.parametrize("write", [as_csv, as_jsonl])
@pytest.mark.parametrize("fault", BAD)
def test_a_bad_row_is_set_aside_and_the_good_survive(
    fault: str, write: Callable[[list[dict[str, Any]]], bytes], put: Put
) -> None:
    changes, reason = BAD[fault]
    texts = [{name: None if value is None else str(value) for name, value in row.items()} for row in GOOD]
    path = put(
        "c.csv" if write is as_csv else "c.jsonl",
        write([texts[0], texts[1] | {"product_id": "X"} | changes, *texts[1:]]),
    )
    products, rejects = read_catalogue(path)
    assert products.rows() == EXPECTED
    [reject] = rejects
    assert (reject.line, reject.reason) == (3 if write is as_csv else 2, reason)
    assert reject.product_id is None or len(reject.product_id) <= 80


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"product_id": "X", "title": "caf\xe9"}', "not UTF-8"),
        (b'{"product_id": "X", "title": "\\ud800"}', "not UTF-8"),
        (b'{"product_id": "X", "title": "T", "\\ud800": 1}', "not UTF-8"),
        (b'{"product_id": "X", "title": ', "not JSON: Expecting value"),
        (b"product_id,title", "not JSON: Expecting value"),
        (b'["X", "T"]', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"product_id": "X", "title": "T", "price": ' + b"9" * 400 + b"}", f"price is not a number: '{'9' * 80}'"),
        (b'{"product_id": "X", "title": "T", "price": NaN}', "price is not a number from 0 up: 'nan'"),
        (b'{"product_id": "X", "title": "T", "price": []}', "price is not a number: '[]'"),
        (b'{"title": "T"}', "no id"),
        (b'{"product_id": "X"}', "empty title"),
    ],
)
def test_bad_json_lines(line: bytes, reason: str, put: Put) -> None:
    good = as_jsonl(GOOD)
    products, rejects = read_catalogue(
        put("c.jsonl", good + b"\n" + line + b"\n" + as_jsonl([{"product_id": 0, "title": 7}]))
    )
    assert products.rows() == [*EXPECTED, ("0", "7", None, None, None, None)]
    # The empty line counts as a line, and is no row.
    assert [(reject.line, reject.reason) for reject in rejects] == [(5, reason)]


@pytest.mark.parametrize("line", [b"9" * 5_000, b"[" * 200_000])
def test_json_beyond_the_parser_is_set_aside(line: bytes, put: Put) -> None:
    products, rejects = read_catalogue(put("c.jsonl", line + b"\n" + as_jsonl(GOOD)))
    assert products.rows() == EXPECTED
    assert [reject.line for reject in rejects] == [1]
    assert rejects[0].reason.startswith("not JSON: ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"X,caf\xe9", "not UTF-8"),
        (b"X,T,,more,and more", "more fields than the header has"),
        (b"X", "empty title"),
        (b"X,old\rline ends", "not CSV: new-line character seen in unquoted field"),
    ],
)
def test_bad_csv_rows(line: bytes, reason: str, put: Put) -> None:
    path = put("c.csv", b"product_id,title,brand\nA1,Mug,Acme\n" + line + b"\nA2,Bowl,Acme\n")
    products, rejects = read_catalogue(path)
    assert products["product_id"].to_list() == ["A1", "A2"]
    assert [(reject.line, reject.reason[: len(reason)]) for reject in rejects] == [(3, reason)]


def test_a_reject_carries_the_id_of_its_row(put: Put) -> None:
    path = put("c.csv", b"product_id,title\nA1,Mug\nA1,Bowl\n\xff,Cup\n,Jar\n")
    assert read_catalogue(path).rejects == [
        Reject(3, "A1", "duplicate id"),
        Reject(4, "\\udcff", "not UTF-8"),
        Reject(5, "", "no id"),
    ]


def test_an_id_whose_first_row_was_bad_is_not_taken(put: Put) -> None:
    products, rejects = read_catalogue(put("c.csv", b"product_id,title\nA1,\nA1,Mug\n"))
    assert products.rows()[0][:2] == ("A1", "Mug")
    assert [reject.line for reject in rejects] == [2]


def test_the_line_of_a_row_over_several_lines_is_its_last(put: Put) -> None:
    path = put("c.csv", b'product_id,title\nA1,"Red\nbig\nmug"\nA1,"Two\nlines"\nA2,Bowl\n')
    products, rejects = read_catalogue(path)
    assert products["title"].to_list() == ["Red big mug", "Bowl"]
    assert rejects == [Reject(6, "A1", "duplicate id")]


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_data(name: str, put: Put) -> None:
    content = b"product_id,title\nA1,Mug\n" if name == "c.csv" else as_jsonl([{"product_id": "A1", "title": "Mug"}])
    assert read_catalogue(put(name, b"\xef\xbb\xbf" + content)).products["product_id"].to_list() == ["A1"]


def test_windows_line_ends(put: Put) -> None:
    assert read_catalogue(put("c.csv", b"product_id,title\r\nA1,Mug\r\n")).products.rows()[0][:2] == ("A1", "Mug")


def test_columns_are_mapped_and_unmapped_namesakes_left_out(put: Put) -> None:
    path = put("c.csv", b"sku,name,title,cost,Marke,colour\nA1,Mug,ignored,3.5,Acme,red\n")
    columns = {"product_id": "sku", "title": "name", "price": "cost", "brand": "Marke"}
    assert read_catalogue(path, columns).products.row(0, named=True) == {
        "product_id": "A1",
        "title": "Mug",
        "category": None,
        "brand": "Acme",
        "price": 3.5,
        "in_stock": None,
        "colour": "red",
    }


@pytest.mark.parametrize(
    ("columns", "missing"),
    [({}, "'title'"), ({"title": "namee"}, "'namee'"), ({"title": "name", "price": "cost"}, "'cost'")],
)
@pytest.mark.parametrize("name", ["c.csv", "c.jsonl", "c.parquet"])
def test_a_column_missing_altogether_is_one_error(
    name: str, columns: dict[str, str], missing: str, put: Put, tmp_path: Path
) -> None:
    rows = [{"product_id": f"A{i}", "name": "Mug"} for i in range(100)]
    path = tmp_path / name
    if name == "c.parquet":
        pl.DataFrame(rows).write_parquet(path)
    else:
        put(name, as_csv(rows) if name == "c.csv" else as_jsonl(rows))
    with pytest.raises(InputError, match=rf"has no column {missing}.*'product_id', 'name'.*indexer\.columns"):
        read_catalogue(path, columns)


def test_another_separator_shows_as_a_missing_column(put: Put) -> None:
    with pytest.raises(InputError, match="Its columns are 'product_id;title'"):
        read_catalogue(put("c.csv", b"product_id;title\nA1;Mug, red\n"))


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (["1", "-2", ""], pl.Int64, [1, -2, None]),
        (["1", "2.5", "1e3"], pl.Float64, [1, 2.5, 1000]),
        (["1.5", "NaN", "2"], pl.Float64, [1.5, None, 2]),
        (["true", "False", ""], pl.Boolean, [True, False, None]),
        (["true", "yes", "1"], pl.String, ["true", "yes", "1"]),
        (["007", "12", "13"], pl.String, ["007", "12", "13"]),
        (["0", "10", "20"], pl.Int64, [0, 10, 20]),
        (["0.5", "10", "20"], pl.Float64, [0.5, 10, 20]),
        (["12345678901234567890", "1", "2"], pl.String, ["12345678901234567890", "1", "2"]),
        (["1", "2", "n/a"], pl.String, ["1", "2", "n/a"]),
        (["", "", ""], pl.String, [None, None, None]),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 10_000])
def test_a_further_column_takes_the_type_all_its_values_have(
    block: int,
    values: list[str],
    dtype: type[pl.DataType],
    expected: list[Any],
    put: Put,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readers, "_BLOCK", block)
    rows = "".join(f"A{i},T,{value}\n" for i, value in enumerate(values))
    column = read_catalogue(put("c.csv", b"product_id,title,extra\n" + rows.encode())).products["extra"]
    assert column.dtype == dtype
    assert column.to_list() == expected


def test_a_further_column_may_begin_in_a_later_block(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_BLOCK", 2)
    rows: list[dict[str, Any]] = [{"product_id": f"A{i}", "title": "T"} for i in range(5)]
    rows[1]["size"], rows[4]["size"], rows[2]["colour"] = "4", 5, "red"
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    products = read_catalogue(put("c.jsonl", content)).products
    assert products.columns == [*PRODUCTS, "size", "colour"]
    assert products["size"].to_list() == [None, 4, None, None, 5]
    assert products["colour"].to_list() == [None, None, "red", None, None]
    assert products["product_id"].to_list() == ["A0", "A1", "A2", "A3", "A4"]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([True, False, ""], pl.Boolean, [True, False, None]),
        ([True, 1, None], pl.String, ["True", "1", None]),
        ([1, 2.5, None], pl.Float64, [1, 2.5, None]),
        ([["a"], {"b": 1}, "c"], pl.String, ["['a']", "{'b': 1}", "c"]),
        ([["\ud800"], "b", "c"], pl.String, ["['\\ud800']", "b", "c"]),
    ],
)
def test_further_columns_of_json(values: list[Any], dtype: type[pl.DataType], expected: list[Any], put: Put) -> None:
    rows = [{"product_id": f"A{i}", "title": "T", "extra": value} for i, value in enumerate(values)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    column = read_catalogue(put("c.jsonl", content)).products["extra"]
    assert column.dtype == dtype
    assert column.to_list() == expected


def test_a_column_that_only_some_rows_have(put: Put) -> None:
    rows = [{"product_id": "A1", "title": "T"}, {"product_id": "A2", "title": "T", "size": 42}]
    assert read_catalogue(put("c.jsonl", as_jsonl(rows))).products["size"].to_list() == [None, 42]


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl"])
def test_an_empty_file_holds_no_products(name: str, put: Put) -> None:
    products, rejects = read_catalogue(put(name, b""))
    assert (len(products), rejects) == (0, [])
    assert dict(products.schema) == PRODUCTS


@pytest.mark.parametrize("name", ["c.txt", "c", "c.csv.zip", "c.gz"])
def test_an_unknown_type_is_refused(name: str, put: Put) -> None:
    with pytest.raises(InputError, match=r"give \.csv, \.jsonl or \.parquet"):
        read_catalogue(put(name, b"product_id,title\n"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv does not exist\. Set indexer\.catalogue"):
        read_catalogue(tmp_path / "gone.csv")


@pytest.mark.parametrize("name", ["c.parquet", "c.csv.gz", "cut.csv.gz"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    content = gzip.compress(as_csv(GOOD * 100))[:-9] if name == "cut.csv.gz" else b"what is this"
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="is damaged, or not of the type its name says"):
        read_catalogue(tmp_path / name)


def test_rows_swallowed_by_an_unclosed_quote_are_rejects(tmp_path: Path) -> None:
    path = tmp_path / "products.csv"
    rows = [f"{i},title {i}\n" for i in range(300)]
    rows[9] = '9,"title 9\n'
    path.write_text("product_id,title\n" + "".join(rows))
    catalogue = read_catalogue(path)
    assert len(catalogue.products) == 9
    assert [reject.line for reject in catalogue.rejects] == list(range(11, 302))
    assert "a quote is not closed" in catalogue.rejects[0].reason
