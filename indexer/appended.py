"""Rows that came after an index was built, behind its own: vectors in two parts, and a search of both."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from indexer.arrays import Floats, Ints, Mask
from indexer.index import Neighbours, Searchable


class Appended:
    """Vectors float32 [rows, dimensions] in two parts, gathered by row number as from one array.

    The first part may be mapped from a file and gigabytes long: it is not copied.
    """

    def __init__(self, first: Floats, second: Floats) -> None:
        self._first, self._second = first, second
        self.shape = (len(first) + len(second), *first.shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Ints | int) -> Floats:
        behind = np.asarray(rows) - len(self._first)
        there = behind >= 0
        if not there.any():
            return np.asarray(self._first[rows])
        gathered = self._first[np.where(there, 0, rows)]
        gathered[there] = self._second[behind[there]]
        return gathered

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Both parts as one array, for whoever wants all of it."""
        return np.concatenate([self._first, self._second]).astype(dtype or np.float32, copy=False)


# What row numbers are looked up in.
Vectors: TypeAlias = Floats | Appended


class AppendedIndex:
    """An index of any kind, and behind its rows a few more that are searched exactly."""

    def __init__(self, index: Searchable, added: Floats) -> None:
        self._index, self._added = index, added

    @property
    def kind(self) -> str:
        """That of the index."""
        return self._index.kind

    @property
    def dimensions(self) -> int:
        return self._index.dimensions

    def __len__(self) -> int:
        return len(self._index) + len(self._added)

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """See `Searchable.search`."""
        return self.search_each(queries, k, [mask] * len(queries))

    def search_each(self, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours:
        """See `Searchable.search_each`."""
        count = len(self._index)
        # Equal masks of a batch are one array, and so are their parts: an index may look at each distinct one once.
        parts = {id(mask): None if mask is None else mask[:count] for mask in masks}
        rows, scores = self._index.search_each(queries, k, [parts[id(mask)] for mask in masks])
        added = np.asarray(queries @ self._added.T)
        for mine, mask in zip(added, masks, strict=True):
            if mask is not None:
                mine[~mask[count:]] = -np.inf
        # Of equals the first row is the better.
        better = added > scores[:, -1:]
        if better.any():
            # What an index answers may be a view of what it received.
            rows, scores = rows.copy(), scores.copy()
        for query in np.flatnonzero(better.any(axis=1)):
            places = np.flatnonzero(better[query])
            every = np.concatenate([rows[query], places + count]), np.concatenate([scores[query], added[query, places]])
            best = np.lexsort((every[0], -every[1]))[:k]
            rows[query], scores[query] = every[0][best], every[1][best]
        return Neighbours(rows, scores)
