from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from indexer.canonical import EVENTS, PRODUCTS, Dump
from indexer.dumps.recbole import LAST_DAY, read
from indexer.errors import InputError

ITEM = 'item_id:token\ttitle:token_seq\n0\tPuzzle  "Deluxe"\n1\tRacer\n2\tChess\n3\t \n1\tAgain\n\tNo id\n'
HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
DAY = timedelta(days=1)


def read_rows(put: Callable[..., Path], rows: str, name: str = "valid.inter.tsv.gz") -> Dump:
    put("item.tsv.gz", ITEM)
    return read(put(name, HEADER + rows))


def events_of(dump: Dump) -> pl.DataFrame:
    assert dump.events is not None
    return dump.events


def taken(dump: Dump) -> dict[str, list[str]]:
    """The products of each user in the order of their times."""
    grouped = events_of(dump).sort("event_time").group_by("user_id").agg("product_id")
    return dict(grouped.iter_rows())


def test_products(put: Callable[..., Path]) -> None:
    products = read_rows(put, "a\t0\t1\n").products
    assert products.columns == list(PRODUCTS)
    assert products.select("product_id", "title").rows() == [("0", 'Puzzle "Deluxe"'), ("1", "Racer"), ("2", "Chess")]


def test_a_step_is_a_purchase(put: Callable[..., Path]) -> None:
    events = events_of(read_rows(put, "a\t2 0\t1\n"))
    assert dict(events.schema) == EVENTS
    assert events.select("event_id", "event_time", "event_type", "user_id", "product_id").rows() == [
        ("a:1", LAST_DAY - 2 * DAY, "purchase", "a", "2"),
        ("a:2", LAST_DAY - DAY, "purchase", "a", "0"),
        ("a:3", datetime(2018, 1, 1, tzinfo=UTC), "purchase", "a", "1"),
    ]


def test_last_steps_come_after_all_others_and_no_two_events_at_once(put: Callable[..., Path]) -> None:
    rows = "".join(f"{user}\t{' '.join('012'[: 1 + user % 3])}\t0\n" for user in range(700))
    events = events_of(read_rows(put, rows))
    assert events["event_time"].is_unique().all()
    assert events["event_time"].is_sorted()
    last = pl.col("event_time") == pl.col("event_time").max().over("user_id")
    assert events.filter(~last)["event_time"].max() < LAST_DAY  # type: ignore[operator]
    ends = events.filter(last)["event_time"]
    assert len(ends) == 700
    assert ends.min() == LAST_DAY
    # Spread over the whole day, and no further.
    assert LAST_DAY + 0.99 * DAY < ends.max() < LAST_DAY + DAY  # type: ignore[operator]


def test_the_order_of_the_file_is_not_that_of_the_day(put: Callable[..., Path]) -> None:
    """A file sorted by length would put all long sequences before the short ones, and into another slice."""
    rows = [f"{user}\t0\t1\n" for user in range(1_000)]
    users = events_of(read_rows(put, "".join(rows))).filter(pl.col("event_time") >= LAST_DAY)["user_id"].cast(pl.Int64)
    assert 400 < users.head(500).mean() < 600  # type: ignore[operator]
    again = events_of(read_rows(put, "".join(rows[::-1]))).filter(pl.col("event_time") >= LAST_DAY)["user_id"]
    assert again.cast(pl.Int64).to_list() == users.to_list()


def test_of_several_files_the_longest_sequence_of_a_user_counts(put: Callable[..., Path]) -> None:
    put("train.inter.tsv", HEADER + "a\t0\t1\na\t\t0\nb\t2\t1\n")
    put("test.inter.tsv", HEADER + "a\t0 1 2\t0\n")
    dump = read_rows(put, "a\t0 1\t2\n")
    assert taken(dump) == {"a": ["0", "1", "2", "0"], "b": ["2", "1"]}
    assert dump.dropped["sequence_repeated"] == 3
    assert (dump.counts["sequence_lines"], dump.counts["users"]) == (5, 2)


def test_a_sequence_may_be_one_item(put: Callable[..., Path]) -> None:
    assert taken(read_rows(put, "a\t\t1\n")) == {"a": ["1"]}


def test_an_unknown_product_leaves_its_day_empty(put: Callable[..., Path]) -> None:
    events = events_of(read_rows(put, "a\t0 9 1\t3\n"))
    assert events.select("event_id", "product_id", "event_time").rows() == [
        ("a:1", "0", LAST_DAY - 3 * DAY),
        ("a:3", "1", LAST_DAY - DAY),
    ]


def test_every_dropped_row_is_counted(put: Callable[..., Path]) -> None:
    dump = read_rows(put, "a\t0 9\t1\n\t0\t1\nb\t0\t\n")
    assert dict(dump.dropped) == {
        "product_without_id": 1,
        "product_without_title": 1,
        "product_repeated": 1,
        "sequence_unreadable": 2,
        "sequence_repeated": 0,
        "step_of_unknown_product": 1,
    }
    assert dict(dump.counts) == {"product_lines": 6, "sequence_lines": 3, "products": 3, "users": 1, "events": 2}


def test_no_sequence_at_all(put: Callable[..., Path]) -> None:
    assert events_of(read_rows(put, "")).is_empty()


@pytest.mark.parametrize(("item", "inter"), [("Games.item", "Games.train.inter"), ("item.tsv", "inter.tsv")])
def test_names_of_files(put: Callable[..., Path], item: str, inter: str) -> None:
    put(item, ITEM)
    assert taken(read(put(inter, HEADER + "a\t0\t1\n"))) == {"a": ["0", "1"]}


def test_missing_files_are_named(put: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"looked for one item\.tsv or \*\.item, and at least one inter\.tsv"):
        read(tmp_path)
    put("item.tsv", ITEM)
    with pytest.raises(InputError, match="at least one"):
        read(tmp_path)
    put("inter.tsv", HEADER)
    with pytest.raises(InputError, match="looked for one item"):
        read(put("Other.item", ITEM))


def test_missing_columns_are_named(put: Callable[..., Path]) -> None:
    put("item.tsv", ITEM)
    with pytest.raises(InputError, match=r"inter\.tsv lacks the columns item_id_list:token_seq"):
        read(put("inter.tsv", "user_id:token\titem_id:token\trating:float\n"))
    with pytest.raises(InputError, match=r"item\.tsv lacks the columns title:token_seq"):
        read(put("item.tsv", "item_id:token\n"))


@pytest.mark.real
def test_real_counts(real: Callable[[str], Path]) -> None:
    dump = read(real("games"))
    assert dict(dump.counts) == {
        "product_lines": 16859,
        "sequence_lines": 50546,
        "products": 16859,
        "users": 50546,
        "events": 389718,
    }
    assert sum(dump.dropped.values()) == 0
    events = events_of(dump)
    assert events["event_id"].is_unique().all()
    assert events["event_time"].is_unique().all()
    assert events.filter(pl.col("event_time") >= LAST_DAY)["user_id"].n_unique() == 50546
    assert events.filter(pl.col("event_time") >= LAST_DAY).height == 50546
