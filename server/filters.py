"""Conditions on catalogue columns, and the rows that meet them."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.arrays import Mask

Scalar: TypeAlias = str | float | bool


class Equals(NamedTuple):
    """The column has this value."""

    column: str
    value: Scalar


class In(NamedTuple):
    """The column has one of these values."""

    column: str
    values: Sequence[Scalar]


class Range(NamedTuple):
    """The column lies between the bounds, both inclusive; None leaves a side open."""

    column: str
    least: float | None
    most: float | None


class All(NamedTuple):
    """Every part is true."""

    parts: Sequence["Filter"]


class AnyOf(NamedTuple):
    """Some part is true."""

    parts: Sequence["Filter"]


class Not(NamedTuple):
    """The part is not true; a row without a value fails a condition, so it passes its negation."""

    part: "Filter"


Filter: TypeAlias = Equals | In | Range | All | AnyOf | Not


def column_types(products: pa.Table) -> dict[str, str]:
    """What a filter may name: column -> `string`, `number` or `bool`."""
    kinds = {}
    for field in products.schema:
        if pa.types.is_boolean(field.type):
            kinds[field.name] = "bool"
        elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            kinds[field.name] = "number"
        else:
            kinds[field.name] = "string"
    return kinds


def whole_numbers(products: pa.Table) -> frozenset[str]:
    """The columns that hold whole numbers alone."""
    return frozenset(field.name for field in products.schema if pa.types.is_integer(field.type))


def rows_matching(condition: Filter, products: pa.Table) -> Mask:
    """bool [rows]: where `condition` holds."""
    match condition:
        case Equals(column, value):
            return _mask(pc.equal(values_of(products, column), value))
        case In(column, values):
            known = values_of(products, column)
            return _mask(pc.is_in(known, pa.array(values, known.type)))
        case Range(column, least, most):
            mask = np.ones(len(products), bool)
            if least is not None:
                mask &= _mask(pc.greater_equal(values_of(products, column), least))
            if most is not None:
                mask &= _mask(pc.less_equal(values_of(products, column), most))
            return mask
        case All(parts):
            return np.asarray(np.logical_and.reduce([rows_matching(part, products) for part in parts]), bool)
        case AnyOf(parts):
            return np.asarray(np.logical_or.reduce([rows_matching(part, products) for part in parts]), bool)
        case Not(part):
            return ~rows_matching(part, products)


def values_of(products: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as it is compared: numbers as float64, which is what the contract's values and bounds are."""
    column = products.column(name)
    # Arrow refuses to compare 1.5 with whole numbers, or whole numbers beyond 2^53 with any float.
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return pc.cast(column, pa.float64(), safe=False) if is_number else column


def _mask(values: pa.ChunkedArray) -> Mask:
    return np.asarray(pc.fill_null(values, False).to_numpy(), bool)
