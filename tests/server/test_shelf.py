"""Products as messages: every column in its place, and a bound on what is kept."""

from typing import Any

import polars as pl
import pyarrow as pa

from server.shelf import Shelf


def shelf(most: int = 10, **columns: Any) -> Shelf:
    return Shelf(pl.DataFrame({"product_id": ["p1"], "title": ["Boot"], **columns}).to_arrow(), most)


def test_a_columns_type_is_kept_and_what_is_absent_is_unset() -> None:
    made = shelf(
        category=["Shoes"],
        brand=pl.Series([None], dtype=pl.String),
        price=[0.0],
        in_stock=[False],
        colour=["red"],
        weight=[1.5],
        pieces=[3],
        organic=[False],
        note=pl.Series([None], dtype=pl.String),
    )[0]
    assert (made.id, made.title, made.category, made.price, made.in_stock) == ("p1", "Boot", "Shoes", 0.0, False)
    # Nought and no are values; only brand says nothing.
    assert [made.HasField(name) for name in ("category", "brand", "price", "in_stock")] == [True, False, True, True]
    kinds = {name: value.WhichOneof("kind") for name, value in made.attributes.items()}
    assert kinds == {
        "colour": "string_value",
        "weight": "number_value",
        "pieces": "number_value",
        "organic": "bool_value",
    }
    assert (made.attributes["pieces"].number_value, made.attributes["organic"].bool_value) == (3.0, False)


def test_a_message_is_made_once_and_the_oldest_gives_way() -> None:
    table = pa.table({"product_id": ["a", "b", "c"], "title": ["A", "B", "C"]})
    shelf = Shelf(pa.concat_tables([table.slice(0, 1), table.slice(1)]), most=2)
    first, second = shelf[0], shelf[1]
    assert shelf[0] is first
    assert shelf[2].id == "c"
    assert shelf[1] is second
    assert shelf[0] is not first
    assert [shelf[row].title for row in (0, 1, 2)] == ["A", "B", "C"]


def test_texts_are_read_from_any_table() -> None:
    texts = ["", "é", "防水登山靴", "boot"]
    for kind in (pa.large_string(), pa.string()):
        table = pa.table({"product_id": pa.array(texts, kind), "title": pa.array(texts, kind)})
        for part, wanted in (
            (table, texts),
            (table.slice(1), texts[1:]),
            (pa.concat_tables([table, table]), texts * 2),
        ):
            assert [Shelf(part)[row].title for row in range(len(part))] == wanted
    nothing = pa.table({"product_id": ["a"], "title": ["A"], "brand": pa.array([None], pa.large_string())})
    assert not Shelf(nothing)[0].HasField("brand")
