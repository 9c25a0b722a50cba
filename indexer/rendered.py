"""Products as the contract's messages, serialised when the index is built: an answer copies bytes and makes nothing."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from vitrine.v1 import filter_pb2, product_pb2

from indexer.arrays import Array, Doubles, Ints, Mask, mapped
from indexer.errors import SnapshotError

_MESSAGES, _OFFSETS = "rendered.bin", "rendered_offsets.npy"
# Canonical product columns that have a field of their own; all others are attributes.
_FIELDS = ("product_id", "title", "category", "brand", "price", "in_stock")
# Rows rendered at a time: their messages are in memory beside their bytes.
_BLOCK = 10_000


class Inventory(NamedTuple):
    """Price and stock of every row as they are now, NaN where nothing is known; `live` where they are not as built."""

    price: Doubles
    in_stock: Doubles
    live: Mask


class Rendered(NamedTuple):
    """Row i is the serialised `vitrine.v1.Product` `messages[offsets[i]:offsets[i + 1]]`, uint8.

    `added` are the messages of the rows behind those. Where `inventory` has something else, the product's price and
    stock are from there.
    """

    messages: Array
    offsets: Ints
    inventory: Inventory | None = None
    added: Sequence[bytes] = ()

    def __len__(self) -> int:
        return self.built + len(self.added)

    @property
    def built(self) -> int:
        """How many rows were rendered when the index was built."""
        return len(self.offsets) - 1

    def stocked(self, inventory: Inventory) -> "Rendered":
        """The same products with the prices and stock of `inventory`."""
        return Rendered(self.messages, self.offsets, inventory, self.added)

    def with_added(self, messages: Sequence[bytes]) -> "Rendered":
        """The products as they were built, with the messages of further ones behind them."""
        return Rendered(self.messages, self.offsets, None, messages)

    def holds(self, rows: Ints) -> bool:
        """Whether all these rows were rendered when the index was built."""
        return not self.added or bool((rows < self.built).all())

    def as_built(self, rows: Ints) -> bool:
        """Whether the bytes of all these rows, which it `holds`, are what they are now."""
        return self.inventory is None or not self.inventory.live[rows].any()

    def product(self, row: int) -> product_pb2.Product:
        """The product of a row, as it is now."""
        message = product_pb2.Product()
        message.ParseFromString(self._message(row))
        if self.inventory is not None and self.inventory.live[row]:
            # What is known of a product is never taken back.
            if not math.isnan(price := self.inventory.price[row]):
                message.price = price
            if not math.isnan(in_stock := self.inventory.in_stock[row]):
                message.in_stock = bool(in_stock)
        return message

    def _message(self, row: int) -> bytes:
        if row >= self.built:
            return self.added[row - self.built]
        return self.messages[self.offsets[row] : self.offsets[row + 1]].tobytes()


def write_rendered(products: pl.DataFrame, folder: Path) -> None:
    """Render every product of a catalogue into `folder`."""
    lengths = [0]
    with (folder / _MESSAGES).open("wb") as file:
        for block in products.iter_slices(_BLOCK):
            messages = rendered(block)
            file.write(b"".join(messages))
            lengths += map(len, messages)
    np.save(folder / _OFFSETS, np.cumsum(lengths, dtype=np.int64))


def rendered(products: pl.DataFrame) -> list[bytes]:
    """The message of each product."""
    return [_product(products.columns, row).SerializeToString(deterministic=True) for row in products.iter_rows()]


def open_rendered(folder: Path) -> Rendered:
    """What `write_rendered` wrote, memory-mapped. Raises `SnapshotError` where it is missing or damaged."""
    try:
        made = Rendered(np.asarray(np.memmap(folder / _MESSAGES, np.uint8, "r")), mapped(folder / _OFFSETS))
    except FileNotFoundError as error:
        raise SnapshotError(
            f"{error.filename} is missing: the index is damaged, or of a version that rendered no products. "
            "Build the index again."
        ) from error
    except (OSError, EOFError, ValueError) as error:
        raise SnapshotError(f"{folder} is damaged: {error}. Build the index again.") from error
    # Compiled loops copy by these numbers without looking at their bounds.
    offsets = made.offsets
    if not len(offsets) or offsets[0] != 0 or offsets[-1] != len(made.messages) or (np.diff(offsets) < 0).any():
        raise SnapshotError(f"{folder / _OFFSETS} does not fit {_MESSAGES}. Build the index again.")
    return made


def _product(columns: Sequence[str], row: Sequence[Any]) -> product_pb2.Product:
    values = dict(zip(columns, row, strict=True))
    made = product_pb2.Product(id=values.pop("product_id"), title=values.pop("title"))
    for name, value in values.items():
        if value is None:
            continue
        if name in _FIELDS:
            setattr(made, name, value)
        else:
            _set(made.attributes[name], value)
    return made


def _set(made: filter_pb2.Value, value: Any) -> None:
    if isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, (int, float)):
        made.number_value = value
    else:
        made.string_value = str(value)
