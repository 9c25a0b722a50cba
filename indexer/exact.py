"""Exact search: one matrix product. It is the oracle of every test and of every measured recall."""

from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np

from indexer.arrays import Floats, Ints, Mask
from indexer.index import NOTHING, Neighbours, one_by_one

# Rows scored at a time, so that a batch of 64 queries needs 64 x 65,536 x 4 bytes = 16 MiB and not the whole catalogue.
_BLOCK = 65_536
# Up to so many queries, kept rows are scored where they are: to copy a tenth of 100,000 vectors for one product takes
# 15 ms, to score them in place 1 ms.
_FEW = 4


class ExactIndex:
    """All of `vectors` float32 [rows, dimensions], which may be memory-mapped."""

    kind = "exact"

    def __init__(self, vectors: Floats) -> None:
        self.vectors = np.ascontiguousarray(vectors, np.float32)

    @property
    def dimensions(self) -> int:
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """See `Index.search`. Ties are broken by row, so that answers are repeatable."""
        allowed = None if mask is None else np.flatnonzero(mask)
        total = len(self.vectors) if allowed is None else len(allowed)
        rows = np.empty((len(queries), 0), np.int64)
        scores = np.empty((len(queries), 0), np.float32)
        for start in range(0, total, _BLOCK):
            block = None if allowed is None else allowed[start : start + _BLOCK]
            places, near = _best(self._scores(queries, start, block), k)
            rows = np.hstack([rows, places + start if block is None else block[places]])
            scores = np.hstack([scores, near])
            kept, scores = _best(scores, k)
            rows = np.take_along_axis(rows, kept, 1)
        return Neighbours(*_sorted(*_filled_up(rows, scores, k)))

    def search_each(self, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours:
        """See `Index.search_each`."""
        return one_by_one(self, queries, k, masks)

    def among(self, queries: Floats, candidates: Ints, k: int) -> Neighbours:
        """The k best of each query's own `candidates` [queries, any number of rows], where NOTHING is none."""
        queries, candidates = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(candidates)
        scores = np.empty(candidates.shape, np.float32)
        # It gives -inf where there is NOTHING.
        faiss.fvec_inner_products_by_idx(
            *map(faiss.swig_ptr, (scores, queries, self.vectors, candidates)), self.dimensions, *candidates.shape
        )
        places, scores = _best(scores, k)
        rows = np.take_along_axis(candidates, places, 1)
        return Neighbours(*_sorted(*_filled_up(rows, scores, k)))

    def _scores(self, queries: Floats, start: int, block: Ints | None) -> Floats:
        """Of the rows of `block`, or of the _BLOCK rows from `start`: [queries, rows]."""
        if block is None:
            return queries @ self.vectors[start : start + _BLOCK].T
        if len(queries) > _FEW:
            return queries @ self.vectors[block].T
        scores = np.empty((len(queries), len(block)), np.float32)
        queries, ids = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(block)
        for query, into in zip(queries, scores, strict=True):
            faiss.fvec_inner_products_by_idx(
                *map(faiss.swig_ptr, (into, query, self.vectors, ids)), self.dimensions, 1, len(ids)
            )
        return scores

    def save(self, folder: Path) -> None:
        """Nothing: vectors.npy is the index."""


def _best(scores: Floats, k: int) -> Neighbours:
    """The places in `scores` [queries, rows] of the k best of each query, in no order, and their scores."""
    wide = scores.shape[1]
    if wide <= k:
        return Neighbours(np.broadcast_to(np.arange(wide), scores.shape), scores)
    places = np.argpartition(scores, wide - k, axis=1)[:, wide - k :]
    return Neighbours(places, np.take_along_axis(scores, places, 1))


def _filled_up(rows: Ints, scores: Floats, k: int) -> Neighbours:
    missing = k - rows.shape[1]
    if missing <= 0:
        return Neighbours(rows, scores)
    fill = ((0, 0), (0, missing))
    return Neighbours(np.pad(rows, fill, constant_values=NOTHING), np.pad(scores, fill, constant_values=-np.inf))


def _sorted(rows: np.ndarray, scores: np.ndarray) -> Neighbours:
    order = np.lexsort((rows, -scores), axis=1)
    return Neighbours(np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1))
