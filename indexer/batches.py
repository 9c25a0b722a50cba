"""How large a batch of texts is, and the few shapes that batches are filled up to on a card."""

import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Up to so many texts a batch on a card is filled up to a power of two.
FEW = 256


class Limits(NamedTuple):
    """The most texts and tokens (with padding) of a batch, and how many texts are tokenised at a time.

    Nothing is embedded while the `first` window is tokenised, so it is shorter than each `window` after it.
    """

    texts: int
    tokens: int
    first: int
    window: int


# Beyond 64 titles a batch costs the CPU no less a title, and padding grows; in 4,096 it is a hundredth of the tokens.
CPU = Limits(64, sys.maxsize, 512, 4_096)
# A card wants much at once; a window holds several batches, so that each is of titles of like lengths.
CARD = Limits(4_096, 65_536, 4_096, 32_768)


def parts(lengths: Sequence[int], limits: Limits) -> Iterator[slice]:
    """Rows of ascending `lengths` cut into batches within `limits`; one row at least."""
    start = 0
    while start < len(lengths):
        count = min(limits.texts, len(lengths) - start)
        # Fewer rows are no longer, so that this ends.
        while count > 1 and count * padded_length(lengths[start + count - 1]) > limits.tokens:
            count = min(count - 1, max(limits.tokens // padded_length(lengths[start + count - 1]), 1))
        yield slice(start, start + count)
        start += count


def padded_length(length: int) -> int:
    """The least of 8, 16, 24, 32, 48, 64, 96, 128, 192, ... that is not below: a third of it is padding at most."""
    step = max(power_of_two(length) // 4, 8)
    return max(-(-length // step), 1) * step


def padded_texts(texts: int) -> int:
    """A power of two up to FEW; more than that are as many as they are."""
    return power_of_two(texts) if texts <= FEW else texts


def power_of_two(count: int) -> int:
    """The least power of two that is not below `count`."""
    return 1 << max(count - 1, 0).bit_length()
