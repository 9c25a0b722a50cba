from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from indexer.canonical import EVENTS
from indexer.dumps.retrotech import read
from indexer.errors import InputError

PRODUCTS = (
    '"upc","name","manufacturer","short_description","long_description"\n'
    '"0096","TV -  40\\" Class","Acme","3.1\\" fan, quiet","Two\nlines, one \\"quoted\\""\n'
    '"0043","Film - DVD", , , \n'
    '"43","Film - Again", , , \n'
    '"77", , , , \n'
    '"000","No id", , , \n'
    '"88","Short"\n'
)
SESSIONS = "sess_id,query,rank,clicked_doc_id,clicked\n"
LCD = SESSIONS + (
    "3,lcd  tv,0.0,96,True\n3,lcd  tv,1.0,00043,False\n3,lcd  tv,1.0,43,True\n"
    "4,lcd tv,2.0,43,True\n4,lcd tv,3.0,999,True\n4,lcd tv,x,43,True\n4,lcd tv,5.0,43,perhaps\n"
)
DVD = SESSIONS + "3,dvd,0.0,43,False\n"


@pytest.fixture
def folder(put: Callable[..., Path]) -> Path:
    put("products.csv.gz", PRODUCTS)
    put("sessions/dvd_sessions.csv", DVD)
    return put("sessions/lcd_sessions.gz", LCD)


def test_products(folder: Path) -> None:
    assert read(folder).products.select("product_id", "title", "brand", "description").rows() == [
        ("96", 'TV - 40" Class', "Acme", '3.1" fan, quiet'),
        ("43", "Film - DVD", None, None),
    ]


def test_impressions_and_clicks(folder: Path) -> None:
    events = read(folder).events
    assert events is not None
    assert dict(events.schema) == EVENTS
    # Two queries use sess_id 3: the request is named by both, and each session has its own second. The one session of
    # "dvd" is in the middle of the period, those of "lcd tv" at a quarter and at three quarters.
    start = datetime(2012, 1, 1, tzinfo=UTC)
    first, second, third = (start + timedelta(seconds=n) for n in range(3))
    columns = ("event_id", "event_time", "event_type", "request_id", "query", "product_id", "position")
    assert events.select(columns).rows() == [
        ("lcd tv:3:1:impression", first, "impression", "lcd tv:3", "lcd tv", "96", 1),
        ("lcd tv:3:2:impression", first, "impression", "lcd tv:3", "lcd tv", "43", 2),
        ("lcd tv:3:1:click", first, "click", "lcd tv:3", "lcd tv", "96", 1),
        ("dvd:3:1:impression", second, "impression", "dvd:3", "dvd", "43", 1),
        ("lcd tv:4:3:impression", third, "impression", "lcd tv:4", "lcd tv", "43", 3),
        ("lcd tv:4:3:click", third, "click", "lcd tv:4", "lcd tv", "43", 3),
    ]
    assert events["user_id"].null_count() == events.height


def test_queries_take_turns_whatever_their_session_numbers(put: Callable[..., Path]) -> None:
    put("products.csv", PRODUCTS)
    for query, numbers in {"dvd": (100, 7), "lcd": (9, 8, 11, 10), "tv": (1, 2)}.items():
        put(f"sessions/{query}.csv", SESSIONS + "".join(f"{n},{query},0.0,43,False\n" for n in numbers))
    events = read(put("sessions/none.csv", SESSIONS)).events
    assert events is not None
    # (i + 0.5) / n: 1/8 lcd, 1/4 dvd and tv, 3/8 lcd, 5/8 lcd, 3/4 dvd and tv, 7/8 lcd.
    expected = ["lcd:8", "dvd:7", "tv:1", "lcd:9", "lcd:10", "dvd:100", "tv:2", "lcd:11"]
    assert events["request_id"].to_list() == expected
    start = datetime(2012, 1, 1, tzinfo=UTC)
    assert events["event_time"].to_list() == [start + timedelta(seconds=n) for n in range(8)]


def test_every_dropped_row_is_counted(folder: Path) -> None:
    dump = read(folder)
    assert dict(dump.dropped) == {
        "product_line_malformed": 1,
        "product_without_id": 1,
        "product_without_title": 1,
        "product_repeated": 1,
        "impression_unreadable": 2,
        "impression_of_unknown_product": 1,
        "impression_repeated": 1,
    }
    assert dict(dump.counts) == {
        "product_lines": 6,
        "impression_lines": 8,
        "products": 2,
        "requests": 3,
        "impressions": 4,
        "clicks": 2,
        "events": 6,
    }


def test_missing_files_are_named(put: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"looked for products\.csv\[\.gz\]"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"sessions/\*\.gz or sessions/\*\.csv"):
        read(put("products.csv", PRODUCTS))


def test_missing_columns_are_named(folder: Path, put: Callable[..., Path]) -> None:
    put("sessions/other.csv", "sess_id,query,rank\n")
    with pytest.raises(InputError, match=r"other\.csv lacks the columns clicked_doc_id, clicked"):
        read(folder)
    put("products.csv", '"upc","name"\n')
    with pytest.raises(InputError, match=r"products\.csv lacks the columns manufacturer, short_description"):
        read(folder)


def test_an_empty_catalogue_file(folder: Path, put: Callable[..., Path]) -> None:
    put("products.csv", "")
    with pytest.raises(InputError, match=r"products\.csv cannot be read"):
        read(folder)


@pytest.mark.real
def test_real_counts(real: Callable[[str], Path]) -> None:
    dump = read(real("retrotech"))
    assert dict(dump.counts) == {
        "product_lines": 48194,
        "impression_lines": 1775000,
        "products": 48194 - 2038,
        "requests": 65000,
        "impressions": 1775000 - 65000,
        "clicks": 48636,
        "events": 1775000 - 65000 + 48636,
    }
    dropped = {reason: n for reason, n in dump.dropped.items() if n}
    assert dropped == {"product_repeated": 2038, "impression_of_unknown_product": 65000}
    assert dump.events is not None
    assert dump.events["event_id"].is_unique().all()
    assert dump.events["event_time"].is_sorted()
    # Whatever the last tenth of the requests is, it is of every query.
    late = dump.events.filter(pl.col("event_time") >= datetime(2012, 1, 1, tzinfo=UTC) + timedelta(seconds=58_500))
    assert set(late.unique("request_id")["query"].value_counts()["count"]) == {500}
    assert dump.products["description"].count() == 22425
