"""Products as the contract's messages, serialised when the index is built: an answer copies bytes and makes nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from vitrine.v1 import filter_pb2, product_pb2

from indexer.amended import AmendedRows
from indexer.arrays import Array, Doubles, Ints, Mask, mapped
from indexer.errors import SnapshotError

_MESSAGES, _OFFSETS = "rendered.bin", "rendered_offsets.npy"
# Canonical product columns that have a field of their own; all others are attributes.
_FIELDS = ("product_id", "title", "category", "brand", "price", "in_stock")
# Rows rendered at a time: their messages are in memory beside their bytes.
_BLOCK = 10_000


class Inventory(NamedTuple):
    """Price and stock of every row, NaN where nothing is known; `priced` and `stocked` say where they are live ones."""

    price: Doubles
    in_stock: Doubles
    priced: Mask
    stocked: Mask

    @property
    def live(self) -> Mask:
        """Where either is."""
        return self.priced | self.stocked


class Reworded(NamedTuple):
    """The messages of rows that were amended since; `rows` says of each row whether it is one of them."""

    rows: Mask
    messages: Mapping[int, bytes]


class Rendered(NamedTuple):
    """Row i is the serialised `vitrine.v1.Product` `messages[offsets[i]:offsets[i + 1]]`, uint8.

    Rows that are `reworded` have the messages there. Where `inventory` has something else, the product's price and
    stock are from there.
    """

    messages: Array
    offsets: Ints
    inventory: Inventory | None = None
    reworded: Reworded | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1 if self.reworded is None else len(self.reworded.rows)

    def stocked(self, inventory: Inventory) -> "Rendered":
        """The same products with the prices and stock of `inventory`."""
        return Rendered(self.messages, self.offsets, inventory, self.reworded)

    def amended(self, rows: AmendedRows, messages: Sequence[bytes]) -> "Rendered":
        """The products as they were built, with these messages in some rows."""
        reworded = Reworded(rows.mask, dict(zip(rows.rows.tolist(), messages, strict=True)))
        return Rendered(self.messages, self.offsets, None, reworded)

    def holds(self, rows: Ints) -> bool:
        """Whether all these rows are as they were rendered when the index was built, but for price and stock."""
        return self.reworded is None or not self.reworded.rows[rows].any()

    def as_built(self, rows: Ints) -> bool:
        """Whether the bytes of all these rows, which it `holds`, are what they are now."""
        now = self.inventory
        return now is None or not (now.priced[rows] | now.stocked[rows]).any()

    def product(self, row: int) -> product_pb2.Product:
        """The product of a row, as it is now."""
        message = product_pb2.Product()
        message.ParseFromString(self._message(row))
        # What is set of a product is never taken back.
        if self.inventory is not None and self.inventory.priced[row]:
            message.price = self.inventory.price[row]
        if self.inventory is not None and self.inventory.stocked[row]:
            message.in_stock = bool(self.inventory.in_stock[row])
        return message

    def _message(self, row: int) -> bytes:
        if self.reworded is not None and self.reworded.rows[row]:
            return self.reworded.messages[row]
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
