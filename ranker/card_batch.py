"""Some lists as one piece of memory of few shapes, so that a card is sent one thing and meets few of them."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from indexer.arrays import Array
from indexer.batches import power_of_two
from ranker.recent import RECENT, recent
from ranker.scoring import Scorable

# Engagements of every list, filled up to a multiple of eight, by which a card's matrix units count: to attend over all
# of them costs a card nothing that could be measured, and a shape for each length would.
_ENGAGEMENTS = -(-RECENT // 8) * 8


class Parts(NamedTuple):
    """B lists of C candidates, F features, d dimensions of the product space, and L engagements."""

    features: Tensor  # float32 [B, C, F], NaN where a feature does not apply
    queries: Tensor  # float32 [B, d], zeros where there is no query
    rows: Tensor  # int32 [B, C]
    history: Tensor  # int32 [B, L], rows; -1 where there is none
    ages: Tensor  # int32 [B, L]


class Shape(NamedTuple):
    """The numbers of `Parts`: B, C, F and d."""

    lists: int
    candidates: int
    features: int
    space: int

    def parts(self, memory: Tensor) -> Parts:
        """The parts that `memory` float32 [size], on any device, holds one after the other."""
        ends = accumulate((prod(shape) for shape in self._shapes()), initial=0)
        pieces = (memory[start:end] for start, end in pairwise(ends))
        features, queries, *whole = (piece.view(shape) for piece, shape in zip(pieces, self._shapes(), strict=True))
        # Row numbers and ages take four bytes too.
        return Parts(features, queries, *(part.view(torch.int32) for part in whole))

    @property
    def size(self) -> int:
        """Numbers of four bytes."""
        return sum(prod(shape) for shape in self._shapes())

    def _shapes(self) -> Iterator[tuple[int, ...]]:
        lists, candidates, features, space = self
        yield from ((lists, candidates, features), (lists, space), (lists, candidates))
        yield from ((lists, _ENGAGEMENTS), (lists, _ENGAGEMENTS))


def batched(lists: Sequence[Scorable], space: int, usual: int, *, pinned: bool = False) -> tuple[Shape, Tensor]:
    """Some lists side by side, filled up to one of few shapes: `usual` candidates and more; `space` dimensions.

    `pinned` memory is copied to a card without the driver's own copy before.
    """
    shape = Shape(
        power_of_two(len(lists)),
        candidates_of(max(usual, *(len(item.rows) for item in lists))),
        lists[0].features.shape[1],
        space,
    )
    # All zeros: the first product stands where a list is filled up.
    memory = torch.zeros(shape.size, pin_memory=pinned)
    features, queries, rows, history, ages = (part.numpy() for part in shape.parts(memory))
    history[:] = -1
    for i, item in enumerate(lists):
        told = recent(item.context.history, item.context.now)
        _fill(features[i], item.features)
        _fill(rows[i], item.rows)
        _fill(history[i], told.rows[0])
        _fill(ages[i], told.ages[0])
        if item.context.query_in_space is not None:
            queries[i] = item.context.query_in_space
    return shape, memory


def candidates_of(count: int) -> int:
    """The next power of two that is not below `count`, or three quarters of it: a third is filled up at most."""
    power = power_of_two(max(count, 32))
    return power * 3 // 4 if 32 < count <= power * 3 // 4 else power


def _fill(into: Array, values: Array) -> None:
    into[: len(values)] = values
