"""A catalogue file as products of the contract, in requests that a server takes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from vitrine.v1 import catalog_service_pb2, filter_pb2, product_pb2

from indexer.canonical import PRODUCTS
from indexer.errors import ConfigError, InputError
from indexer.readers import Reject, read_catalogue
from server.checks import MOST_PRODUCTS

Item = catalog_service_pb2.UpsertProductsRequest.Item

# Half of the bytes that gRPC takes in a request.
_MOST_BYTES = 2 * 1024 * 1024
_MOST_REJECTS_TOLD = 20


def renamed(pairs: Sequence[str]) -> dict[str, str]:
    """Canonical column -> the file's, of `title=name` and the like. Raises `ConfigError`."""
    columns = {}
    for pair in pairs:
        ours, equals, yours = pair.partition("=")
        if ours not in PRODUCTS or not equals or not yours:
            raise ConfigError(f"--column {pair}: say one of {', '.join(PRODUCTS)}, then = and the file's name for it.")
        columns[ours] = yours
    return columns


def read(path: Path, columns: Mapping[str, str]) -> pl.DataFrame:
    """Canonical products, further columns as text; `columns` maps canonical names to the file's.

    Raises `InputError` where the file cannot be read, holds no product, or any row of it cannot be used.
    """
    # A few products say little of what type a column is: that is for the server to tell.
    products, rejects = read_catalogue(path, columns, typed=False)
    if rejects:
        raise InputError(_told(path, rejects, len(products) + len(rejects)))
    if products.is_empty():
        raise InputError(f"{path} holds no product. Nothing was sent.")
    return products


def requests(products: pl.DataFrame, kinds: Mapping[str, str]) -> Iterator[catalog_service_pb2.UpsertProductsRequest]:
    """All products in turn, in requests; `kinds` are the types of the server's columns: string, number or bool."""
    items: list[Item] = []
    size = 0
    for row in products.iter_rows(named=True):
        item = Item(product=_product(row, kinds))
        if items and (len(items) == MOST_PRODUCTS or size + item.ByteSize() > _MOST_BYTES):
            yield catalog_service_pb2.UpsertProductsRequest(items=items)
            items, size = [], 0
        items.append(item)
        size += item.ByteSize()
    yield catalog_service_pb2.UpsertProductsRequest(items=items)


def _told(path: Path, rejects: Sequence[Reject], rows: int) -> str:
    lines = [f"  line {line}{f' ({name})' if name else ''}: {reason}" for line, name, reason in rejects]
    if len(lines) > _MOST_REJECTS_TOLD:
        lines[_MOST_REJECTS_TOLD:] = [f"  and {len(lines) - _MOST_REJECTS_TOLD} more"]
    head = f"{len(rejects)} of {rows} rows of {path} cannot be used, and nothing was sent: mend them or take them out."
    return "\n".join([head, *lines])


def _product(row: Mapping[str, Any], kinds: Mapping[str, str]) -> product_pb2.Product:
    attributes = {
        name: value
        for name in row
        if name not in PRODUCTS and (value := _value(row[name], kinds.get(name, "string"))) is not None
    }
    fields = {name: row[name] for name in PRODUCTS if name != "product_id"}
    return product_pb2.Product(id=row["product_id"], attributes=attributes, **fields)


def _value(text: str | None, kind: str) -> filter_pb2.Value | None:
    """A text as a value of a type, None where it is none; one that is not of the type is sent as text, and refused."""
    if text is None:
        return None
    if kind == "bool" and text.lower() in ("true", "false"):
        return filter_pb2.Value(bool_value=text.lower() == "true")
    if kind == "number" and (number := _number(text)) is not None:
        # What other programs write for no value.
        return None if math.isnan(number) else filter_pb2.Value(number_value=number)
    return filter_pb2.Value(string_value=text)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
