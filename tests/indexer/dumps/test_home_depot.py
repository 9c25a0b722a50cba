from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.canonical import JUDGMENTS, PRODUCTS
from indexer.dumps.home_depot import read
from indexer.errors import InputError

PRODUCTS_CSV = "product_uid,product_title\n1,Angle  Bracket \n2,\n1,Other\n,No id\n3,Shower\n"
JUDGMENTS_CSV = (
    "search_term,product_uid,relevance\n"
    "angle  bracket,1,2.33\nangle bracket,1,3\n,1,3\nshower,3,\nshower,9,1\nshower,2,1\nshower,3,1\n"
)
TRAIN_CSV = (
    '"id","product_uid","product_title","search_term","relevance"\n'
    '2,100001,"Bracket 5° ""L""","angle bracket",3\n'
    '3,100001,"Bracket 5° ""L""","l bracket",2.5\n'
    '9,100002,"Deck Coating","deck over",3\n'
)
ATTRIBUTES_CSV = (
    '"product_uid","name","value"\n'
    '100001,"MFG Brand Name","Acme "\n100001,"Color Family","Grey"\n,"MFG Brand Name","Nobody"\n'
)


def test_products_and_judgments(put: Callable[..., Path]) -> None:
    put("products.csv.gz", PRODUCTS_CSV)
    dump = read(put("judgments.csv", JUDGMENTS_CSV))
    assert dict(dump.products.schema) == PRODUCTS
    assert dump.products.select("product_id", "title", "brand").rows() == [
        ("1", "Angle Bracket", None),
        ("3", "Shower", None),
    ]
    assert dump.events is None
    assert dump.judgments is not None
    assert dict(dump.judgments.schema) == JUDGMENTS
    assert dump.judgments.rows() == [("angle bracket", "1", 2.33, None), ("shower", "3", 1.0, None)]


def test_every_dropped_row_is_counted(put: Callable[..., Path]) -> None:
    put("products.csv", PRODUCTS_CSV)
    dump = read(put("judgments.csv", JUDGMENTS_CSV))
    assert dict(dump.dropped) == {
        "product_without_id": 1,
        "product_without_title": 1,
        "product_repeated": 1,
        "judgment_without_query": 1,
        "judgment_without_grade": 1,
        "judgment_of_unknown_product": 2,
        "judgment_repeated": 1,
    }
    assert dict(dump.counts) == {"product_lines": 5, "judgment_lines": 7, "products": 2, "judgments": 2}


def test_kaggle_layout_with_brands(put: Callable[..., Path]) -> None:
    put("attributes.csv", ATTRIBUTES_CSV)
    dump = read(put("train.csv", TRAIN_CSV, "latin-1"))
    assert dump.products.select("product_id", "title", "brand").rows() == [
        ("100001", 'Bracket 5° "L"', "Acme"),
        ("100002", "Deck Coating", None),
    ]
    assert dump.judgments is not None
    assert dump.judgments.select("query", "product_id", "grade").rows() == [
        ("angle bracket", "100001", 3.0),
        ("l bracket", "100001", 2.5),
        ("deck over", "100002", 3.0),
    ]
    assert sum(dump.dropped.values()) == 0


def test_kaggle_layout_without_attributes(put: Callable[..., Path]) -> None:
    dump = read(put("train.csv.gz", TRAIN_CSV))
    assert dump.products["title"].to_list() == ['Bracket 5° "L"', "Deck Coating"]
    assert dump.products["brand"].to_list() == [None, None]


def test_missing_files_are_named(put: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"products\.csv\[\.gz\] and judgments\.csv\[\.gz\]; or Kaggle's train\.csv"):
        read(tmp_path)
    put("products.csv", PRODUCTS_CSV)
    with pytest.raises(InputError, match=r"looked for judgments\.csv\[\.gz\]"):
        read(tmp_path)


def test_missing_columns_are_named(put: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"train\.csv lacks the columns relevance"):
        read(put("train.csv", "id,product_uid,product_title,search_term\n"))


def test_a_file_that_is_no_csv(put: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match=r"train\.csv cannot be read: empty CSV"):
        read(put("train.csv", ""))


@pytest.mark.real
def test_real_counts(real: Callable[[str], Path]) -> None:
    dump = read(real("homedepot"))
    assert dict(dump.counts) == {
        "product_lines": 54667,
        "judgment_lines": 62788,
        "products": 54667,
        "judgments": 62786,
    }
    assert {reason: n for reason, n in dump.dropped.items() if n} == {"judgment_repeated": 2}
    assert dump.judgments is not None
    assert (dump.judgments["grade"].min(), dump.judgments["grade"].max()) == (1.0, 3.0)
