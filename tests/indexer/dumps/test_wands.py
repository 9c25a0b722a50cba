from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.dumps.wands import read
from indexer.errors import InputError

PRODUCT = (
    "product_id\tproduct_name\tproduct_class\tcategory hierarchy\tproduct_description\tproduct_features"
    "\trating_count\taverage_rating\treview_count\n"
    '0\tsolid  wood bed\tBeds|Kids Beds\tFurniture / Beds\t"a ""fine"" bed\nof wood"\toverall : 1\t15.0\t4.5\t14.0\n'
    "1\tslow cooker\t\tKitchen / Cookers / Slow Cookers\tx\ty\t\t\t\n"
    "2\todd thing\t\t\tx\ty\t100.0\t3.0\t98.0\n"
    "3\t \tBeds\tFurniture\tx\ty\t1\t1\t1\n"
    "0\tagain\tBeds\tFurniture\tx\ty\t1\t1\t1\n"
    "\tno id\tBeds\tFurniture\tx\ty\t1\t1\t1\n"
)
QUERY = "query_id\tquery\tquery_class\n0\tsalon  chair\tMassage Chairs\n1\tslow cooker\tSlow Cookers\n"
LABEL = (
    "id\tquery_id\tproduct_id\tlabel\n"
    "0\t0\t0\tExact\n1\t0\t1\tIrrelevant\n2\t1\t1\tPartial\n"
    "3\t0\t0\tPartial\n4\t9\t1\tExact\n5\t0\t7\tExact\n6\t0\t2\tPerhaps\n"
)


@pytest.fixture
def folder(put: Callable[..., Path]) -> Path:
    put("product.csv.gz", PRODUCT)
    put("query.csv", QUERY)
    return put("label.csv", LABEL)


def test_products(folder: Path) -> None:
    products = read(folder).products
    columns = ("product_id", "title", "category", "category_hierarchy", "rating_count", "average_rating")
    assert products.select(columns, review_count="review_count").rows() == [
        ("0", "solid wood bed", "Beds", "Furniture / Beds", 15, 4.5, 14),
        ("1", "slow cooker", "Slow Cookers", "Kitchen / Cookers / Slow Cookers", None, None, None),
        ("2", "odd thing", None, None, 100, 3.0, 98),
    ]


def test_judgments(folder: Path) -> None:
    judgments = read(folder).judgments
    assert judgments is not None
    assert judgments.rows() == [
        ("salon chair", "0", 1.0, None),
        ("salon chair", "1", 0.0, None),
        ("slow cooker", "1", 0.5, None),
    ]


def test_every_dropped_row_is_counted(folder: Path) -> None:
    dump = read(folder)
    assert dict(dump.dropped) == {
        "product_without_id": 1,
        "product_without_title": 1,
        "product_repeated": 1,
        "judgment_without_query": 1,
        "judgment_without_grade": 1,
        "judgment_of_unknown_product": 1,
        "judgment_repeated": 1,
    }
    assert dict(dump.counts) == {
        "product_lines": 6,
        "query_lines": 2,
        "judgment_lines": 7,
        "products": 3,
        "judgments": 3,
    }


def test_optional_columns_may_be_absent(folder: Path, put: Callable[..., Path]) -> None:
    put("product.csv", "product_id\tproduct_name\n0\tbed\n")
    assert read(folder).products.select("product_id", "category", "rating_count").rows() == [("0", None, None)]


@pytest.mark.parametrize("name", ["query.csv", "label.csv"])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"looked for {name}"):
        read(folder)


def test_missing_columns_are_named(folder: Path, put: Callable[..., Path]) -> None:
    put("label.csv", "id,query_id,product_id,label\n")
    with pytest.raises(InputError, match=r"label\.csv lacks the columns query_id, product_id, label"):
        read(folder)
