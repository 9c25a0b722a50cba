"""What every index can do. Scores are inner products, which are cosines for unit vectors; larger is nearer."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from indexer.arrays import Floats, Ints, Mask

# The row of a place that could not be filled.
NOTHING = -1


class Neighbours(NamedTuple):
    """`rows` int64 [queries, k], best first, filled up with NOTHING; `scores` float32 [queries, k], -inf there."""

    rows: Ints
    scores: Floats


class Searchable(Protocol):
    """A set of vectors that can be asked for the nearest; a vector's id is its row."""

    @property
    def kind(self) -> str:
        """`exact`, the FAISS factory string, or where it is searched: `exact on cuda:0 (float16)`."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    def __len__(self) -> int:
        """Number of vectors."""

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """The k nearest rows to each query [queries, dimensions]; with `mask` [rows], only rows where it is true."""

    def search_each(self, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours:
        """As `search`, under a mask for each query: what several requests ask at once."""


class Index(Searchable, Protocol):
    """What is built, kept in a file and opened again."""

    def save(self, folder: Path) -> None:
        """Write what `open_index` needs, beside vectors.npy, into `folder`."""


def one_by_one(index: Index, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours:
    """`search_each` where a batch is no faster than its queries: each gets the bits it would have got alone."""
    found = Neighbours(np.full((len(queries), k), NOTHING, np.int64), np.full((len(queries), k), -np.inf, np.float32))
    for place, mask in enumerate(masks):
        found.rows[place], found.scores[place] = index.search(queries[place : place + 1], k, mask)
    return found
