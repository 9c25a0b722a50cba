from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from indexer.canonical import EVENTS, PRODUCTS
from indexer.dumps.movielens import GENRES, read
from indexer.errors import InputError

ITEM_TSV = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    '1\tA "Toy"\t1995\tAnimation Children\'s\n'
    "2\tGolden\tV\tAction\n"
    "3\tNameless\t1996\tunknown\n"
    "4\t\t1996\tDrama\n"
    "1\tAgain\t1996\tDrama\n"
    "\tNo id\t1996\tDrama\n"
)
INTER_TSV = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "196\t1\t3\t881250949\n"
    "196\t1\t4\t881250949\n"
    "196\t4\t4\t881250949\n"
    "196\t2\tgood\t881250949\n"
    "186\t2\t4.5\t891717742\n"
)
FILMS = ["product_id", "title", "category", "genres", "year"]


def read_typed(put: Callable[..., Path]) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    put("item.tsv", ITEM_TSV)
    dump = read(put("inter.tsv.gz", INTER_TSV))
    assert dump.events is not None
    return dump.products, dump.events, dict(dump.dropped)


def test_typed_header_films(put: Callable[..., Path]) -> None:
    products, _, _ = read_typed(put)
    assert products.columns[: len(PRODUCTS)] == list(PRODUCTS)
    assert products.select(FILMS).rows() == [
        ("1", 'A "Toy" (1995)', "Animation", "Animation|Children's", 1995),
        ("2", "Golden", "Action", "Action", None),
        ("3", "Nameless (1996)", None, None, 1996),
    ]


def test_typed_header_ratings(put: Callable[..., Path]) -> None:
    _, events, _ = read_typed(put)
    assert dict(events.schema) == EVENTS
    columns = ("event_id", "event_time", "event_type", "user_id", "product_id", "value")
    assert events.select(columns).rows() == [
        ("196:1:881250949000", datetime(1997, 12, 4, 15, 55, 49, tzinfo=UTC), "rating", "196", "1", 3.0),
        ("186:2:891717742000", datetime(1998, 4, 4, 19, 22, 22, tzinfo=UTC), "rating", "186", "2", 4.5),
    ]


def test_every_dropped_row_is_counted(put: Callable[..., Path]) -> None:
    _, _, dropped = read_typed(put)
    assert dropped == {
        "product_without_id": 1,
        "product_without_title": 1,
        "product_repeated": 1,
        "rating_unreadable": 1,
        "rating_of_unknown_product": 1,
        "rating_repeated": 1,
    }


def test_comma_separated(put: Callable[..., Path]) -> None:
    put("movies.csv", 'movieId,title,genres\n1,"Net, The (1995)",Sci-Fi|Thriller\n2,Untold,(no genres listed)\n')
    dump = read(put("ratings.csv", "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,2,0.5,964982704\n"))
    assert dump.products.select(FILMS).rows() == [
        ("1", "Net, The (1995)", "Sci-Fi", "Sci-Fi|Thriller", 1995),
        ("2", "Untold", None, None, None),
    ]
    assert dump.events is not None
    assert dump.events.select("event_id", "value").rows() == [("1:1:964982703000", 4.0), ("1:2:964982704000", 0.5)]


def test_hundred_thousand(put: Callable[..., Path]) -> None:
    flags = "|".join("1" if genre in ("Crime", "Drama") else "0" for genre in GENRES)
    put("u.item", f"1|Misérables, Les (1995)|01-Jan-1995||http://x|{flags}\n", "latin-1")
    dump = read(put("u.data", "196\t1\t3\t881250949\n"))
    assert dump.products.select(FILMS).rows() == [("1", "Misérables, Les (1995)", "Crime", "Crime|Drama", 1995)]
    assert dump.events is not None
    assert dump.events["event_id"].to_list() == ["196:1:881250949000"]


def test_missing_files_are_named(put: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"inter\.tsv\[\.gz\] and item\.tsv\[\.gz\]; or ratings\.csv"):
        read(tmp_path)
    put("inter.tsv", INTER_TSV)
    with pytest.raises(InputError, match=r"looked for item\.tsv\[\.gz\]"):
        read(tmp_path)


def test_missing_columns_are_named(put: Callable[..., Path]) -> None:
    put("movies.csv", "movieId,title\n1,Untold\n")
    with pytest.raises(InputError, match=r"movies\.csv lacks the columns genres"):
        read(put("ratings.csv", "userId,movieId,rating,timestamp\n"))
    put("u.item", "1|Untold\n")
    (put("u.data", "1\t1\t1\t1\n") / "ratings.csv").unlink()
    with pytest.raises(InputError, match=r"u\.item lacks the columns release, video"):
        read(put("u.data", "1\t1\t1\t1\n"))


@pytest.mark.real
def test_real_counts(real: Callable[[str], Path]) -> None:
    dump = read(real("movielens"))
    assert dict(dump.counts) == {"product_lines": 1682, "rating_lines": 100000, "products": 1682, "events": 100000}
    assert sum(dump.dropped.values()) == 0
    assert dump.events is not None
    assert dump.events["user_id"].n_unique() == 943
    assert dump.events["event_id"].is_unique().all()
