"""The products of an UpsertProducts request to the domain, checked against the columns of the live release."""

import math
from collections.abc import Mapping, Sequence, Set
from typing import NamedTuple

from vitrine.v1 import catalog_service_pb2, filter_pb2, product_pb2

from indexer.canonical import PRODUCTS
from indexer.readers import MOST_TITLE_CHARACTERS
from indexer.text import normalise
from ranker.upserts import Upsert, Value
from server import checks
from server.checks import Checks
from server.faults import ViolationError

Item = catalog_service_pb2.UpsertProductsRequest.Item

# Columns that a message names: a catalogue may have hundreds.
_MOST_NAMED = 20


class Columns(NamedTuple):
    """Columns of a release: their types, and those of the type number that hold `whole` numbers alone."""

    kinds: Mapping[str, str]
    whole: Set[str] = frozenset()


def checked(items: Sequence[Item], now: float, columns: Columns, faults: Checks) -> list[Upsert]:
    """The upserts of items, of the Unix second `now` where they do not say another; faults go to `faults`.

    `columns` are those of the live release.
    """
    further = columns._replace(kinds={name: kind for name, kind in columns.kinds.items() if name not in PRODUCTS})
    first: dict[str, int] = {}
    upserts = []
    for i, item in enumerate(items):
        upserts.append(_upsert(item, f"items[{i}]", now, further, faults))
        if first.setdefault(item.product.id, i) != i and item.product.id:
            faults.violations.append(
                ViolationError(
                    f"items[{i}].product.id", f"is that of items[{first[item.product.id]}] too; give it once"
                )
            )
    return upserts


def _upsert(item: Item, path: str, now: float, columns: Columns, faults: Checks) -> Upsert:
    product, moment = item.product, now
    if item.HasField("set_time"):
        moment = faults.run(checks.moment, item.set_time, f"{path}.set_time", now, default=now)
    name = faults.run(checks.identifier, product.id, f"{path}.product.id", required=True, default="")
    return Upsert(name, round(moment * 1e6), _values(product, f"{path}.product", columns, faults))


def _values(product: product_pb2.Product, path: str, columns: Columns, faults: Checks) -> dict[str, Value]:
    """Columns that have a value, as a catalogue file's are read."""
    values: dict[str, Value] = {"title": faults.run(_title, product.title, f"{path}.title", default="")}
    for name in ("category", "brand"):
        if text := normalise(getattr(product, name)):
            values[name] = text
    if product.HasField("price"):
        values["price"] = faults.run(checks.price, product.price, f"{path}.price", default=0.0)
    if product.HasField("in_stock"):
        values["in_stock"] = product.in_stock
    for name in sorted(product.attributes):
        where = f"{path}.attributes[{name[:64]}]"
        value = faults.run(_attribute, name, product.attributes[name], where, columns, default=None)
        if value is not None:
            values[name] = value
    return values


def _title(value: str, field: str) -> str:
    title = normalise(value)
    if not title:
        raise ViolationError(field, "is empty; every product has a title")
    if len(title) > MOST_TITLE_CHARACTERS:
        raise ViolationError(field, f"has {len(title)} characters; at most {MOST_TITLE_CHARACTERS:,} are accepted")
    return title


def _attribute(name: str, value: filter_pb2.Value, field: str, columns: Columns) -> Value | None:
    """A checked value of a further column, None where it is an empty text. Raises `ViolationError`."""
    if name not in columns.kinds:
        raise ViolationError(field, _unknown(name, columns.kinds))
    wanted, kind = columns.kinds[name], value.WhichOneof("kind")
    if kind != f"{wanted}_value":
        raise ViolationError(field, f"must be a {wanted}_value, as the column is a {wanted}")
    given: Value = getattr(value, kind)
    if isinstance(given, float) and not math.isfinite(given):
        raise ViolationError(field, "is not a finite number")
    if name in columns.whole and not (isinstance(given, float) and given.is_integer() and abs(given) < 2**63):
        raise ViolationError(field, f"is {given}; the column holds whole numbers of 64 bits")
    return None if given == "" else given


def _unknown(name: str, columns: Mapping[str, str]) -> str:
    if name in PRODUCTS:
        return "is no further column; it has a field of its own"
    if not columns:
        return "the live release has no further columns; one that its catalogue file gets can be given then"
    named = sorted(columns)[:_MOST_NAMED]
    rest = f" and {len(columns) - len(named)} more" if len(columns) > len(named) else ""
    return f"the live release has no such column; it has {', '.join(named)}{rest}"
