"""Masks of a search on a card: each distinct one once, a bit a row, unpacked where a block of scores is."""

from typing import NamedTuple

import numpy as np
import torch

from indexer.arrays import Ints
from indexer.masks import Masks

# Bytes of masks on a card at once: 447 masks of 1.2 million rows, 53 of ten million.
BITS = 64 * 2**20


class Packed(NamedTuple):
    """`bits` uint8 [masks, padded rows / 8] on the host, the first row in the lowest bit; `which` [all queries]."""

    bits: torch.Tensor
    which: Ints

    def on(self, device: torch.device) -> "Kept":
        """Uploaded."""
        shifts = torch.arange(8, dtype=torch.uint8, device=device)
        return Kept(self.bits.to(device, non_blocking=True), torch.ones_like(shifts) << shifts)


class Kept(NamedTuple):
    """The rows that may be found, on a device: `bits` as in `Packed`, the eight `powers` of two, `which` [queries].

    `which` is None where there is one mask for all.
    """

    bits: torch.Tensor
    powers: torch.Tensor
    which: torch.Tensor | None = None

    def of(self, which: Ints, count: int) -> "Kept":
        """For `count` queries, of which the first are under the masks `which`, the others under any."""
        if len(self.bits) == 1:
            return self
        padded = np.zeros(count, np.int64)
        padded[: len(which)] = which
        return self._replace(which=torch.from_numpy(padded).to(self.bits.device))

    def hide(self, scores: torch.Tensor, start: int) -> None:
        """-inf in `scores` [queries, rows from `start`] where a row may not be found; `start` is a multiple of 8."""
        bits = self.bits[:, start // 8 : (start + scores.shape[1]) // 8]
        if self.which is not None:
            bits = bits[self.which]
        # Zeros and ones of a byte each are booleans: no second matrix of them is made.
        banned = (bits[:, :, None] & self.powers).eq_(0).view(torch.bool)
        scores.masked_fill_(banned.flatten(1), -torch.inf)


def packed(masks: Masks, places: Ints, padded: int, pinned: bool) -> Packed | None:
    """The masks of the queries at `places`, over `padded` rows; None where they have none.

    A byte a row would be 307 MB for 256 masks of 1.2 million rows. To pack one of them takes 0.07 ms.
    """
    used = np.unique(masks.number[places])
    if all(masks.distinct[number] is None for number in used):
        return None
    bits = torch.empty((len(used), padded // 8), dtype=torch.uint8, pin_memory=pinned)
    for into, number in zip(bits.numpy(), used, strict=True):
        made = masks.packed(number)
        if made is None:
            made = np.packbits(np.ones(masks.rows, bool), bitorder="little")
        into[: len(made)] = made
        # What follows the last row is not to be found.
        into[len(made) :] = 0
    which = np.zeros(len(masks.distinct), np.int64)
    which[used] = np.arange(len(used))
    return Packed(bits, which[masks.number])
