"""The catalogue's products as protobuf messages, each made when a page first shows it."""

from typing import Any

import pyarrow as pa
from vitrine.v1 import filter_pb2, product_pb2

# Canonical product columns that have a field of their own; all others are attributes.
_FIELDS = ("product_id", "title", "category", "brand", "price", "in_stock")
# A message takes about half a kilobyte: what is kept stays below 50 MB in a catalogue of any size.
_MOST = 100_000


class Shelf:
    """Messages by product row. They are shared: whoever takes one must not change it."""

    def __init__(self, products: pa.Table, most: int = _MOST) -> None:
        # One chunk a column, so that a value is found without a search for its chunk.
        self._columns = {name: _one_chunk(products.column(name)) for name in products.column_names}
        self._most = most
        self._made: dict[int, product_pb2.Product] = {}

    def __getitem__(self, row: int) -> product_pb2.Product:
        """The product of a row."""
        found = self._made.get(row)
        if found is None:
            if len(self._made) >= self._most:
                self._made.pop(next(iter(self._made)))
            found = self._made[row] = self._product(row)
        return found

    def _product(self, row: int) -> product_pb2.Product:
        values = {name: column[row].as_py() for name, column in self._columns.items()}
        made = product_pb2.Product(id=values.pop("product_id"), title=values.pop("title"))
        for name, value in values.items():
            if value is None:
                continue
            if name in _FIELDS:
                setattr(made, name, value)
            else:
                made.attributes[name].CopyFrom(_value(value))
        return made


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _value(value: Any) -> filter_pb2.Value:
    if isinstance(value, bool):
        return filter_pb2.Value(bool_value=value)
    if isinstance(value, (int, float)):
        return filter_pb2.Value(number_value=value)
    return filter_pb2.Value(string_value=str(value))
