"""Whether an index fits on a card: beside what is there already, and leaving room for the one that will follow it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from indexer.owner import owner_of

# Kept free for what else uses the card: 0.5 GiB a context and a search's own memory, the encoder, the networks.
RESERVE = 2 * 2**30
_GIB = 2**30


class Resident(NamedTuple):
    """An index on a card, of `size` bytes, `full` with its float32 vectors.

    `shelf` is what it is an index of: the next release has one of the same.
    """

    shelf: str
    size: int
    full: bool


class Verdict(NamedTuple):
    """Whether an index is admitted, with or without its float32 vectors; `told` has the numbers."""

    admitted: bool
    full: bool
    told: str


# The free bytes and all bytes of a card.
Memory = Callable[[torch.device], tuple[int, int]]


def needed(rows: int, dimensions: int, full: bool) -> int:
    """The bytes of an index: two a component in half precision, four more for the float32 vectors."""
    return rows * dimensions * (6 if full else 2)


def verdict(
    rows: int, dimensions: int, shelf: str, there: Sequence[Resident], memory: tuple[int, int], reserve: int = RESERVE
) -> Verdict:
    """Whether an index fits into the free of `memory` (free, total), and how much of it.

    At a swap two releases are there. The first index of a shelf is therefore admitted where all that is there and
    itself would fit once more; a later one has had its room kept, if it does not take more than the one before it.
    """
    free, total = memory
    before = [resident for resident in there if resident.shelf == shelf]
    follows = bool(before)
    held = sum(resident.size for resident in there)
    for full in (True, False) if all(resident.full for resident in before) else (False,):
        size = needed(rows, dimensions, full)
        # Float32 vectors, which may stay on the host, leave what an index of the other shelf needs without them, twice.
        another = 2 * needed(rows, dimensions, False) if full else 0
        wanted = size + reserve + (0 if follows else held + size + another)
        if wanted <= free:
            return Verdict(True, full, f"{_gib(size)} of {_gib(free)} free")
    beside = "" if follows else f", as much again ({_gib(held + size)}) for the release that follows"
    told = f"{rows:,} vectors of {dimensions} need {_gib(size)}{beside} and {_gib(reserve)} of reserve"
    return Verdict(False, False, f"{told}; {_gib(free)} of {_gib(total)} are free")


def card_memory(device: torch.device) -> tuple[int, int]:
    """See `Memory`. What PyTorch keeps of freed tensors is given back first, for it to count as free."""

    def look() -> tuple[int, int]:
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        return int(free), int(total)

    return owner_of(device).run(look)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
