"""The contract's filters, diversity and orders to the domain's, checked against the catalogue's columns."""

import math
from collections.abc import Mapping
from typing import Any

from vitrine.v1 import filter_pb2

from server.diversity import Diversity
from server.faults import ViolationError
from server.filters import All, AnyOf, Equals, Filter, In, Not, Range, Scalar
from server.ordering import Ordering

_MOST_CONDITIONS = 100
_DEEPEST = 10
# How many of the best are put in order where a request does not say, and at most.
_AMONG, _MOST_AMONG = 50, 10_000


def condition(request: Any, columns: Mapping[str, str]) -> Filter | None:
    """The request's filter in the domain, None without one. Raises `ViolationError` with the faulty part's path."""
    if not request.HasField("filter"):
        return None
    return _condition(request.filter, "filter", columns, [_MOST_CONDITIONS], _DEEPEST)


def diversity(request: Any, columns: Mapping[str, str]) -> Diversity | None:
    """The diversity that a request asks for, None without one. Raises `ViolationError`."""
    if not request.HasField("diversity"):
        return None
    if request.diversity.most < 1:
        raise ViolationError("diversity.most", "must be 1 or more")
    return Diversity(column(request.diversity.column, "diversity", columns), int(request.diversity.most))


def ordering(request: Any, columns: Mapping[str, str]) -> Ordering | None:
    """The order that a request asks for, None for that of the scores. Raises `ViolationError`."""
    if not request.HasField("order_by"):
        return None
    wanted = request.order_by
    if request.HasField("diversity"):
        raise ViolationError("order_by", "cannot go with diversity: each says how hits are ordered; give one of them")
    name = _number(wanted.column, "order_by", columns, "an order")
    if not 0 <= wanted.among <= _MOST_AMONG:
        raise ViolationError("order_by.among", f"must be from 0, which means {_AMONG}, to {_MOST_AMONG:,}")
    return Ordering(name, bool(wanted.descending), int(wanted.among) or _AMONG)


def column(name: str, path: str, columns: Mapping[str, str]) -> str:
    """A column that is there; `path` names what asks for it. Raises `ViolationError`."""
    if name not in columns:
        raise ViolationError(
            f"{path}.column", f"there is no column {name[:64]!r}; there are: {', '.join(sorted(columns))}"
        )
    return name


def _condition(part: Any, path: str, columns: Mapping[str, str], left: list[int], depth: int) -> Filter:
    left[0] -= 1
    if left[0] < 0 or depth == 0:
        raise ViolationError(path, f"the filter has over {_MOST_CONDITIONS} parts or is over {_DEEPEST} deep")
    kind = part.WhichOneof("kind")
    path = f"{path}.{kind}"
    match kind:
        case "all" | "any":
            parts = getattr(part, kind).filters
            if not parts:
                raise ViolationError(path, "is empty; give at least one filter")
            made = [_condition(p, f"{path}.filters[{i}]", columns, left, depth - 1) for i, p in enumerate(parts)]
            return All(made) if kind == "all" else AnyOf(made)
        case "none":
            return Not(_condition(part.none, path, columns, left, depth - 1))
        case "equals":
            name = column(part.equals.column, path, columns)
            return Equals(name, _scalar(part.equals.value, f"{path}.value", columns[name]))
        case "in":
            inside = getattr(part, "in")
            name = column(inside.column, path, columns)
            if not inside.values:
                raise ViolationError(f"{path}.values", "is empty; give at least one value")
            return In(name, [_scalar(v, f"{path}.values[{i}]", columns[name]) for i, v in enumerate(inside.values)])
        case "range":
            return _range(part.range, path, columns)
        case _:
            raise ViolationError(path.removesuffix(".None"), "has no kind; give all, any, none, equals, in or range")


def _range(part: filter_pb2.Range, path: str, columns: Mapping[str, str]) -> Range:
    name = _number(part.column, path, columns, "a range")
    least = part.min if part.HasField("min") else None
    most = part.max if part.HasField("max") else None
    if least is None and most is None:
        raise ViolationError(path, "has neither min nor max")
    if any(bound is not None and math.isnan(bound) for bound in (least, most)):
        raise ViolationError(path, "has a bound that is NaN")
    return Range(name, least, most)


def _number(name: str, path: str, columns: Mapping[str, str], what: str) -> str:
    """A column of numbers."""
    if columns[column(name, path, columns)] != "number":
        raise ViolationError(f"{path}.column", f"{name!r} is a {columns[name]}; {what} needs a number")
    return name


def _scalar(value: filter_pb2.Value, path: str, wanted: str) -> Scalar:
    kind = value.WhichOneof("kind")
    if kind != f"{wanted}_value":
        raise ViolationError(path, f"must be a {wanted}_value, as the column is a {wanted}")
    scalar: Scalar = getattr(value, kind)
    if isinstance(scalar, float) and math.isnan(scalar):
        raise ViolationError(path, "is NaN")
    return scalar
