"""Masks of a search, a query each, of which every distinct one is handled once."""

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from indexer.arrays import Bits, Ints, Mask


class Masks:
    """The masks of the queries of a search: bool [rows] or packed to `Bits` each, or None, which keeps every row.

    `distinct` has each array once, however many queries it is given for, and `number` [queries] is whose is which.
    Raises `ValueError` for a mask of another shape.
    """

    def __init__(self, masks: Sequence[Mask | Bits | None], rows: int) -> None:
        self.distinct = list({id(mask): mask for mask in masks}.values())
        numbers = {id(mask): number for number, mask in enumerate(self.distinct)}
        self.number = np.array([numbers[id(mask)] for mask in masks], np.int64)
        self.rows = rows
        for mask in self.distinct:
            expected = -(-rows // 8) if mask is not None and mask.dtype == np.uint8 else rows
            if mask is not None and mask.shape != (expected,):
                raise ValueError(f"a mask has the shape {mask.shape}, ({expected},) expected")

    def unpacked(self, number: int) -> Mask | None:
        """One of the distinct masks, a boolean a row."""
        mask = self.distinct[number]
        if mask is None or mask.dtype == np.bool_:
            return cast(Mask | None, mask)
        return np.unpackbits(cast(Bits, mask), count=self.rows, bitorder="little").view(np.bool_)

    def packed(self, number: int) -> Bits | None:
        """One of the distinct masks, a bit a row."""
        mask = self.distinct[number]
        if mask is None or mask.dtype == np.uint8:
            return cast(Bits | None, mask)
        return np.packbits(cast(Mask, mask), bitorder="little")

    def parts(self, queries: int, masks: int) -> Iterator[Ints]:
        """The queries that may find something: at most `queries` at once, rising, under at most `masks` masks."""
        keeps = np.array([mask is None or mask.any() for mask in self.distinct], bool)
        left = np.flatnonzero(keeps[self.number])
        left = left[np.argsort(self.number[left], kind="stable")]
        while len(left):
            numbers = self.number[left[:queries]]
            taken = int(np.searchsorted(numbers, numbers[0] + masks))
            yield np.sort(left[:taken])
            left = left[taken:]
