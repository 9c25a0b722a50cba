"""Exact search: one matrix product. It is the oracle of every test and of every measured recall."""

from pathlib import Path

import numpy as np

from indexer.arrays import Floats, Mask
from indexer.index import NOTHING, Neighbours

# Rows scored at a time, so that a batch of 64 queries needs 64 x 65,536 x 4 bytes = 16 MiB and not the whole catalogue.
_BLOCK = 65_536


class ExactIndex:
    """All of `vectors` float32 [rows, dimensions], which may be memory-mapped."""

    kind = "exact"

    def __init__(self, vectors: Floats) -> None:
        self.vectors = vectors

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """See `Index.search`. Ties are broken by row, so that answers are repeatable."""
        allowed = None if mask is None else np.flatnonzero(mask)
        total = len(self.vectors) if allowed is None else len(allowed)
        rows = np.full((len(queries), 0), NOTHING, np.int64)
        scores = np.full((len(queries), 0), -np.inf, np.float32)
        for start in range(0, total, _BLOCK):
            stop = min(start + _BLOCK, total)
            block = np.arange(start, stop) if allowed is None else allowed[start:stop]
            vectors = self.vectors[start:stop] if allowed is None else self.vectors[block]
            rows = np.hstack([rows, np.broadcast_to(block, (len(queries), len(block)))])
            scores = np.hstack([scores, queries @ vectors.T])
            rows, scores = _best(rows, scores, k)
        missing = k - rows.shape[1]
        if missing > 0:
            rows = np.pad(rows, ((0, 0), (0, missing)), constant_values=NOTHING)
            scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
        return Neighbours(*_sorted(rows, scores))

    def save(self, folder: Path) -> None:
        """Nothing: vectors.npy is the index."""


def _best(rows: np.ndarray, scores: np.ndarray, k: int) -> Neighbours:
    if scores.shape[1] <= k:
        return Neighbours(rows, scores)
    places = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return Neighbours(np.take_along_axis(rows, places, 1), np.take_along_axis(scores, places, 1))


def _sorted(rows: np.ndarray, scores: np.ndarray) -> Neighbours:
    order = np.lexsort((rows, -scores), axis=1)
    return Neighbours(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))
