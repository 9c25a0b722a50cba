"""Conditions over random columns, against an oracle that looks at one row after the other."""

import math
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from server.filters import All, AnyOf, Equals, Filter, In, Not, Range, column_types, rows_matching

ROWS = 200
COLOURS = ("red", "blue", "靴", "")


def table(seed: int) -> pa.Table:
    """Columns of every type, a fifth of their values null; the floats hold NaN and infinity too."""
    rng = np.random.default_rng(seed)

    def some(values: list[Any]) -> list[Any]:
        return [None if rng.random() < 0.2 else value for value in values]

    prices = [float(p) for p in rng.choice([1.0, 2.5, 10.0, math.inf, -math.inf, math.nan], ROWS)]
    return (
        pl.DataFrame(
            {
                "colour": some([str(c) for c in rng.choice(COLOURS, ROWS)]),
                "price": some(prices),
                "stock": some([int(n) for n in rng.choice([0, 1, 2, 2**60], ROWS)]),
                "new": some([bool(b) for b in rng.integers(0, 2, ROWS)]),
            },
            schema={"colour": pl.String, "price": pl.Float64, "stock": pl.Int64, "new": pl.Boolean},
        )
        .to_arrow()
        .combine_chunks()
    )


def holds(condition: Filter, row: dict[str, Any]) -> bool:
    """The oracle."""
    match condition:
        case Equals(column, value):
            return row[column] is not None and row[column] == value
        case In(column, values):
            return row[column] is not None and any(row[column] == value for value in values)
        case Range(column, least, most):
            value = row[column]
            return value is not None and (least is None or value >= least) and (most is None or value <= most)
        case All(parts):
            return all(holds(part, row) for part in parts)
        case AnyOf(parts):
            return any(holds(part, row) for part in parts)
        case Not(part):
            return not holds(part, row)


LEAVES: tuple[Filter, ...] = (
    Equals("colour", "red"),
    Equals("colour", ""),
    Equals("colour", "green"),
    Equals("price", 2.5),
    Equals("price", math.inf),
    Equals("stock", 1.0),
    Equals("stock", 1.5),
    Equals("stock", 1e300),
    Equals("new", True),
    Equals("new", False),
    In("colour", ["靴", "blue"]),
    In("price", [1.0, 10.0, -math.inf]),
    In("stock", [0.0, 2.0]),
    In("stock", [0.5, 1.0]),
    In("stock", [math.inf, 1e300]),
    In("new", [True, False]),
    Range("price", 2.0, None),
    Range("price", None, 2.5),
    Range("price", 1.0, 2.5),
    Range("price", 3.0, 2.0),
    Range("price", -math.inf, math.inf),
    Range("stock", 0.5, 1.5),
    Range("stock", 1.0, math.inf),
    Range("stock", None, 1e300),
)


def drawn(rng: np.random.Generator, depth: int) -> Filter:
    if depth == 0 or rng.random() < 0.3:
        return LEAVES[rng.integers(len(LEAVES))]
    parts = [drawn(rng, depth - 1) for _ in range(rng.integers(1, 4))]
    return (All(parts), AnyOf(parts), Not(parts[0]))[rng.integers(3)]


def check(condition: Filter, products: pa.Table) -> None:
    mask = rows_matching(condition, products)
    assert (mask.dtype, mask.shape) == (bool, (len(products),))
    assert mask.tolist() == [holds(condition, row) for row in products.to_pylist()]


@pytest.mark.parametrize("condition", LEAVES, ids=str)
def test_each_condition_agrees_with_the_oracle(condition: Filter) -> None:
    check(condition, table(0))
    check(Not(condition), table(1))


@pytest.mark.parametrize("seed", range(40))
def test_trees_of_conditions_agree_with_the_oracle(seed: int) -> None:
    check(drawn(np.random.default_rng(seed), 4), table(seed))


def test_a_product_without_a_value_fails_a_condition_and_passes_its_negation() -> None:
    products = pa.table({"brand": pa.array([None, "Acme", "Zeta"])})
    assert rows_matching(Equals("brand", "Acme"), products).tolist() == [False, True, False]
    assert rows_matching(Not(Equals("brand", "Acme")), products).tolist() == [True, False, True]


def test_what_a_filter_may_name() -> None:
    assert column_types(table(0)) == {"colour": "string", "price": "number", "stock": "number", "new": "bool"}


def test_columns_in_several_chunks() -> None:
    products = pa.concat_tables([table(0), table(1)])
    for condition in LEAVES:
        check(condition, products)


def test_no_rows() -> None:
    assert rows_matching(Equals("new", True), table(0).slice(0, 0)).tolist() == []
