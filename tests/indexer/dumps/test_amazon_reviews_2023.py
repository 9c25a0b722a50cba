import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from indexer.canonical import EVENTS
from indexer.dumps.amazon_reviews_2023 import read
from indexer.errors import InputError

METAS: list[dict[str, Any]] = [
    {
        "parent_asin": "B01",
        "title": " Red  mug ",
        "main_category": "Home",
        "categories": ["Home", "Mugs"],
        "store": "Acme",
        "price": 12.5,
        "average_rating": 4.5,
        "rating_number": 7,
        "details": {"Colour": "red"},
    },
    {"parent_asin": "B02", "title": "Blue mug", "main_category": "Home", "categories": [], "price": "None"},
    {"parent_asin": "B03", "title": "Set", "main_category": None, "categories": None, "price": "$1,299.00"},
    {"parent_asin": "B04", "title": "Bowl", "main_category": " ", "categories": [], "price": "from 3.99"},
    {"parent_asin": "B05", "title": "Cup", "categories": ["Cups"], "price": None},
    {"parent_asin": "B01", "title": "Again", "price": 1},
    {"parent_asin": "B06", "title": "", "price": 1},
    {"parent_asin": None, "title": "No id", "price": 1},
]
REVIEWS: list[dict[str, Any]] = [
    {"user_id": "U1", "parent_asin": "B01", "asin": "B01x", "rating": 5.0, "timestamp": 1588687728923, "text": "!"},
    {"user_id": "U1", "parent_asin": "B01", "asin": "B01y", "rating": 4.0, "timestamp": 1588687728923},
    {"user_id": "U1", "parent_asin": "B01", "asin": "B01y", "rating": 4.0, "timestamp": 1588687729000},
    {"user_id": "U1", "parent_asin": "B99", "asin": "B99", "rating": 4.0, "timestamp": 1588687728923},
    {"user_id": None, "parent_asin": "B01", "asin": "B01", "rating": 4.0, "timestamp": 1588687728923},
    {"user_id": "U2", "parent_asin": None, "asin": "B02", "rating": 1, "timestamp": 0},
]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_products(put: Callable[..., Path]) -> None:
    put("meta_Home.jsonl.gz", lines(METAS))
    dump = read(put("Home.jsonl", lines(REVIEWS)))
    columns = ("product_id", "title", "category", "brand", "price", "average_rating", "rating_number")
    assert dump.products.select(columns).rows() == [
        ("B01", "Red mug", "Mugs", "Acme", 12.5, 4.5, 7),
        ("B02", "Blue mug", "Home", None, None, None, None),
        ("B03", "Set", None, None, 1299.0, None, None),
        ("B04", "Bowl", None, None, None, None, None),
        ("B05", "Cup", "Cups", None, None, None, None),
    ]
    assert dump.counts["products_without_price"] == 3


def test_ratings(put: Callable[..., Path]) -> None:
    put("meta/meta_Home.jsonl", lines(METAS))
    dump = read(put("reviews/Home.jsonl.gz", lines(REVIEWS)))
    assert dump.events is not None
    assert dict(dump.events.schema) == EVENTS
    assert dump.events.select("event_id", "event_time", "event_type", "user_id", "product_id", "value").rows() == [
        ("U2:B02:0", datetime(1970, 1, 1, tzinfo=UTC), "rating", "U2", "B02", 1.0),
        ("U1:B01:1588687728923", datetime(2020, 5, 5, 14, 8, 48, 923000, UTC), "rating", "U1", "B01", 5.0),
        ("U1:B01:1588687729000", datetime(2020, 5, 5, 14, 8, 49, tzinfo=UTC), "rating", "U1", "B01", 4.0),
    ]


def test_every_dropped_row_is_counted(put: Callable[..., Path]) -> None:
    put("meta_Home.jsonl", lines(METAS))
    dump = read(put("Home.jsonl", lines(REVIEWS)))
    assert dict(dump.dropped) == {
        "product_without_id": 1,
        "product_without_title": 1,
        "product_repeated": 1,
        "rating_unreadable": 1,
        "rating_of_unknown_product": 1,
        "rating_repeated": 1,
    }
    assert (dump.counts["product_lines"], dump.counts["review_lines"]) == (8, 6)


def test_several_categories_are_one_catalogue(put: Callable[..., Path]) -> None:
    put("meta_A.jsonl", lines([{"parent_asin": "A", "title": "a"}]))
    put("meta_B.jsonl", lines([{"parent_asin": "B", "title": "b"}]))
    review = {"user_id": "U", "parent_asin": "B", "rating": 5, "timestamp": 1}
    put("A.jsonl", lines([review | {"parent_asin": "A"}]))
    dump = read(put("B.jsonl", lines([review])))
    assert dump.products["product_id"].to_list() == ["A", "B"]
    assert dump.counts["events"] == 2


def test_missing_files_are_named(put: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"looked for meta_\*\.jsonl\[\.gz\] \(products\)"):
        read(tmp_path)
    with pytest.raises(InputError, match=r"the other \*\.jsonl\[\.gz\] \(reviews\)"):
        read(put("meta_Home.jsonl", lines(METAS)))


def test_missing_columns_are_named(put: Callable[..., Path]) -> None:
    put("meta_Home.jsonl", lines(METAS))
    with pytest.raises(InputError, match=r"Home\.jsonl lacks the columns user_id, timestamp"):
        read(put("Home.jsonl", lines([{"parent_asin": "B01", "rating": 1}])))


def test_files_that_are_no_json_lines(put: Callable[..., Path], tmp_path: Path) -> None:
    put("meta_Home.jsonl", lines(METAS))
    with pytest.raises(InputError, match=r"Home\.jsonl cannot be read"):
        read(put("Home.jsonl", "not json\n"))
    (tmp_path / "Home.jsonl").unlink()
    (tmp_path / "Home.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(InputError, match=r"Home\.jsonl\.gz cannot be read"):
        read(tmp_path)
