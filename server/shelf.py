"""The catalogue's products as protobuf messages, each made when a page first shows it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from vitrine.v1 import filter_pb2, product_pb2

# Canonical product columns that have a field of their own; all others are attributes.
_FIELDS = ("product_id", "title", "category", "brand", "price", "in_stock")
# A message takes about half a kilobyte: what is kept stays below 50 MB in a catalogue of any size.
_MOST = 100_000


class Shelf:
    """Messages by product row. They are shared: whoever takes one must not change it."""

    def __init__(self, products: pa.Table, most: int = _MOST) -> None:
        self._columns = {name: _reader(products.column(name)) for name in products.column_names}
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
        values = {name: read(row) for name, read in self._columns.items()}
        made = product_pb2.Product(id=values.pop("product_id"), title=values.pop("title"))
        for name, value in values.items():
            if value is None:
                continue
            if name in _FIELDS:
                setattr(made, name, value)
            else:
                _set(made.attributes[name], value)
        return made


def _reader(column: pa.ChunkedArray) -> Callable[[int], Any]:
    """The value of a row. Texts are cut from Arrow's own buffer, which takes a fifth of the time of its scalars."""
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    if not pa.types.is_large_string(array.type) or array.null_count or array.offset:
        return lambda row: array[row].as_py()
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, np.int64)
    text = memoryview(data) if data else memoryview(b"")
    return lambda row: str(text[starts[row] : starts[row + 1]], "utf-8")


def _set(made: filter_pb2.Value, value: Any) -> None:
    if isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, (int, float)):
        made.number_value = value
    else:
        made.string_value = str(value)
