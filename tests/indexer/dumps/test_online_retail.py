from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from indexer.canonical import EVENTS, PRODUCTS
from indexer.dumps.online_retail import FILES, read
from indexer.errors import InputError

HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
DAY = "2011-01-05 10:00:00"


def line(
    invoice: str, code: str, title: str, quantity: object, price: object, customer: str = "17850.0", day: str = DAY
) -> str:
    return f'{invoice},{code},"{title}",{quantity},{day},{price},{customer},United Kingdom\n'


def import_lines(put: Callable[..., Path], *lines: str) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    dump = read(put("transactions.csv", HEADER + "".join(lines)))
    assert dump.events is not None
    assert dump.counts["lines"] == dump.events.height + dump.counts["lines_merged"] + sum(dump.dropped.values())
    return dump.products, dump.events, {reason: n for reason, n in dump.dropped.items() if n}


def test_a_sale_becomes_a_purchase(put: Callable[..., Path]) -> None:
    products, events, dropped = import_lines(put, line("536365", "85123a", " RED  MUG ", 6, 2.55))
    assert dict(products.schema) == PRODUCTS
    assert dict(events.schema) == EVENTS
    assert products.row(0, named=True) == {
        "product_id": "85123A",
        "title": "RED MUG",
        "category": None,
        "brand": None,
        "price": 2.55,
        "in_stock": None,
    }
    assert events.row(0, named=True) == {
        "event_id": "536365:85123A:purchase",
        "event_time": datetime(2011, 1, 5, 10, tzinfo=UTC),
        "event_type": "purchase",
        "user_id": "17850",
        "session_id": "536365",
        "request_id": "536365",
        "query": None,
        "product_id": "85123A",
        "position": None,
        "quantity": 6.0,
        "price": 2.55,
        "value": None,
    }
    assert dropped == {}


def test_title_is_the_most_frequent_and_price_the_median(put: Callable[..., Path]) -> None:
    products, _, _ = import_lines(
        put,
        line("1", "10001", "MUG, RED", 1, 2.0),
        line("2", "10001", "RED MUG", 1, 4.0),
        line("3", "10001", "RED  MUG ", 1, 9.0),
        line("4", "10002", "B TITLE", 1, 1.0),
        line("5", "10002", "A TITLE", 1, 2.0),
    )
    assert products.select("product_id", "title", "price").rows() == [
        ("10001", "RED MUG", 4.0),
        ("10002", "A TITLE", (1.0 + 2.0) / 2),
    ]


def test_lines_of_one_invoice_and_product_are_merged(put: Callable[..., Path]) -> None:
    _, events, dropped = import_lines(
        put,
        line("1", "10001", "MUG", 1, 3.0, day="2011-01-05 10:01:00"),
        line("1", "10001", "MUG", 3, 1.0),
        line("1", "10001", "MUG", 3, 1.0),
    )
    assert events.select("quantity", "price", "event_time").row(0) == (
        1 + 3,
        (1 * 3.0 + 3 * 1.0) / 4,
        datetime(2011, 1, 5, 10, tzinfo=UTC),
    )
    assert dropped == {"line_repeated": 1}


def test_cancelled_and_negative_lines_are_returns(put: Callable[..., Path]) -> None:
    _, events, dropped = import_lines(
        put,
        line("1", "10001", "MUG", 5, 2.0),
        line("C2", "10001", "MUG", -2, 2.0),
        line("3", "10001", "MUG", -1, 2.0),
        line("C4", "10001", "MUG", -1, 2.0, customer=""),
        line("C5", "10009", "NEVER SOLD", -1, 2.0),
    )
    assert events.select("event_id", "quantity").rows() == [
        ("1:10001:purchase", 5.0),
        ("3:10001:return", 1.0),
        ("C2:10001:return", 2.0),
    ]
    assert dropped == {"return_without_customer": 1, "return_of_unknown_product": 1}


def test_a_sale_without_customer_is_kept(put: Callable[..., Path]) -> None:
    _, events, dropped = import_lines(put, line("1", "10001", "MUG", 5, 2.0, customer=""))
    assert events["user_id"].to_list() == [None]
    assert dropped == {}


@pytest.mark.parametrize("code", ["POST", "M", "gift_0001_20", "BANK CHARGES", "TEST001", "PADS", "1234", "23444"])
def test_codes_that_are_no_product(put: Callable[..., Path], code: str) -> None:
    products, events, dropped = import_lines(put, line("1", code, "X", 1, 2.0))
    assert (products.height, events.height, dropped) == (0, 0, {"not_a_product": 1})


@pytest.mark.parametrize("code", ["84029", "84029G", "15056BL", "DCGSSGIRL", "dcgs0003", " 84029 "])
def test_codes_of_products(put: Callable[..., Path], code: str) -> None:
    products, _, _ = import_lines(put, line("1", code, "X", 1, 2.0))
    assert products["product_id"].to_list() == [code.strip().upper()]


def test_bookkeeping_and_unreadable_lines_are_dropped(put: Callable[..., Path]) -> None:
    _, events, dropped = import_lines(
        put,
        line("1", "10001", "MUG", 0, 2.0),
        line("2", "10001", "damaged", -4, 0, customer=""),
        line("3", "10001", "found", 4, 0.0, customer=""),
        line("4", "10001", "MUG", 1, 0.0),
        line("5", "10001", "MUG", 1, -2.0, customer=""),
        line("6", "10001", "MUG", "many", 2.0),
        line("7", "10001", "MUG", 1, 2.0, day="soon"),
        line("8", "", "MUG", 1, 2.0),
        line("", "10001", "MUG", 1, 2.0),
        line("9", "10001", "MUG", 1, "nan"),
    )
    assert events.height == 0
    assert dropped == {"quantity_zero": 1, "stock_movement": 2, "price_not_positive": 2, "line_unreadable": 5}


@pytest.mark.parametrize("note", ["?", "Damaged", "check?", "FOUND", "", "20713", "thrown away"])
def test_a_stock_note_is_no_title(put: Callable[..., Path], note: str) -> None:
    products, _, dropped = import_lines(
        put,
        line("1", "10001", note, 1, 2.0),
        line("2", "10001", note, 2, 2.0),
        line("3", "10001", "LOST PROPERTY BOX", 1, 2.0),
        line("4", "10002", note, 1, 2.0),
    )
    assert products.select("product_id", "title").rows() == [("10001", "LOST PROPERTY BOX")]
    assert dropped == {"sale_without_title": 1}


def test_the_original_name_latin_1_and_american_times(put: Callable[..., Path]) -> None:
    content = HEADER + line("1", "10001", "MUG £5", 1, 2.0, customer="17850", day="12/1/2010 8:26")
    dump = read(put("Online Retail.csv", content, "latin-1"))
    assert dump.products["title"].to_list() == ["MUG £5"]
    assert dump.events is not None
    assert dump.events["event_time"].to_list() == [datetime(2010, 12, 1, 8, 26, tzinfo=UTC)]
    assert dump.events["user_id"].to_list() == ["17850"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"looked for transactions\.csv\[\.gz\] or Online Retail"):
        read(tmp_path)
    assert "transactions.csv" in FILES


def test_missing_columns_are_named(put: Callable[..., Path]) -> None:
    folder = put("transactions.csv.gz", "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,Country\n1,2,3,4,5,6\n")
    with pytest.raises(InputError, match="lacks the columns UnitPrice, CustomerID; it has InvoiceNo"):
        read(folder)


@pytest.mark.real
def test_real_counts(real: Callable[[str], Path]) -> None:
    dump = read(real("retail"))
    assert dict(dump.dropped) == {
        "line_repeated": 3621,
        "line_unreadable": 0,
        "not_a_product": 2569,
        "quantity_zero": 0,
        "stock_movement": 2153,
        "price_not_positive": 22,
        "return_without_customer": 148,
        "sale_without_title": 0,
        "return_of_unknown_product": 16,
    }
    assert dict(dump.counts) == {
        "lines": 431673,
        "lines_merged": 3553,
        "products": 3746,
        "events": 419591,
        "purchases": 412478,
        "returns": 7113,
        "purchases_without_customer": 104472,
    }
    assert 419591 + 3553 + sum(dump.dropped.values()) == 431673
    assert dump.events is not None
    assert dump.events["event_id"].is_unique().all()
