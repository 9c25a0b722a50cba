"""Whether an index fits on a card: beside what is there already, and leaving room for the one that will follow it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import torch

from indexer.owner import owner_of

# Kept free for what else uses the card: 0.5 GiB a context and a search's own memory, the encoder, the networks.
RESERVE = 2 * 2**30
_GIB = 2**30

# What of the vectors is on a card: float32 beside half precision, half precision alone, or codes in inverted lists.
Form = Literal["full", "half", "codes"]
_FORMS: tuple[Form, ...] = get_args(Form)


class Resident(NamedTuple):
    """An index on a card, of `size` bytes. `shelf` is what it is an index of: the next release has one of the same."""

    shelf: str
    size: int
    form: Form


class Verdict(NamedTuple):
    """The form in which an index is admitted, None where it is not; `told` has the numbers."""

    form: Form | None
    told: str


# The free bytes and all bytes of a card.
Memory = Callable[[torch.device], tuple[int, int]]


def needed(rows: int, dimensions: int) -> dict[Form, int]:
    """The bytes of an exact index: two a component in half precision, four more for the float32 vectors."""
    return {"full": rows * dimensions * 6, "half": rows * dimensions * 2}


def needed_for_codes(rows: int, code: int, lists: int, dimensions: int) -> int:
    """The bytes of `lists` inverted lists: of each row its code of so many bytes and its number, of each list a centre.

    What the values of the codes stand for is left out: 100 KB.
    """
    return rows * (code + 4) + lists * (4 * dimensions + 8)


def verdict(
    what: str,
    sizes: Mapping[Form, int],
    shelf: str,
    there: Sequence[Resident],
    memory: tuple[int, int],
    reserve: int = RESERVE,
) -> Verdict:
    """Whether an index fits into the free of `memory` (free, total), and in which of the forms of `sizes`, best first.

    At a swap two releases are there. The first index of a shelf is therefore admitted where all that is there and
    itself would fit once more; a later one has had its room kept, if it does not take more than the one before it: it
    gets no better form. `what` it is stands in `told`.
    """
    free, total = memory
    before = [resident for resident in there if resident.shelf == shelf]
    follows = bool(before)
    held = sum(resident.size for resident in there)
    best = max((_FORMS.index(resident.form) for resident in before), default=0)
    told = ""
    for form, size in sizes.items():
        if _FORMS.index(form) < best:
            told = f"{what} were on the card as {_FORMS[best]} before, and get no better form"
            continue
        # Float32 vectors, which may stay on the host, leave what an index of the other shelf needs without them, twice.
        another = 2 * sizes["half"] if form == "full" else 0
        wanted = size + reserve + (0 if follows else held + size + another)
        if wanted <= free:
            return Verdict(form, f"{_gib(size)} of {_gib(free)} free")
        beside = "" if follows else f", as much again ({_gib(held + size)}) for the release that follows"
        told = (
            f"{what} need {_gib(size)}{beside} and {_gib(reserve)} of reserve; {_gib(free)} of {_gib(total)} are free"
        )
    return Verdict(None, told)


def card_memory(device: torch.device) -> tuple[int, int]:
    """See `Memory`. What PyTorch keeps of freed tensors is given back first, for it to count as free."""

    def look() -> tuple[int, int]:
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        return int(free), int(total)

    return owner_of(device).run(look)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
