"""Rows amended after an index was built, some of its own and some behind them: their vectors, and a search of all."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from indexer.arrays import Array, Floats, Ints, Mask
from indexer.index import NOTHING, Neighbours, Searchable

# A search without a mask that loses more than this share of what it found, since that is not there any more, is made
# again under one: under a mask that keeps nearly all it takes longer.
MOST_LOST = 0.1


class AmendedRows:
    """Which rows are said anew: `rows` int64, rising, of `built` there were; those from `built` on have no gap."""

    def __init__(self, rows: Ints, built: int) -> None:
        self.rows, self.built = rows, built
        # How many of them there were, and how many there are now.
        self.replaced = int(np.searchsorted(rows, built))
        self.total = built + len(rows) - self.replaced

    @cached_property
    def mask(self) -> Mask:
        """Whether a row is one of them [total]."""
        mask = np.zeros(self.total, bool)
        mask[self.rows] = True
        return mask

    def into(self, values: Array, amended: Array) -> Array:
        """A copy of `values` [built] with what is `amended` [rows] in place and behind, [total]."""
        made = np.empty(self.total, values.dtype)
        made[: self.built] = values
        made[self.rows] = amended
        return made


class Amended:
    """Vectors float32 [total, dimensions] in two parts, gathered by row number as from one array.

    The first part may be mapped from a file and gigabytes long: it is not copied. `second` [rows, dimensions] are the
    vectors of the amended rows.
    """

    def __init__(self, first: Floats, rows: AmendedRows, second: Floats) -> None:
        self._first, self._rows, self._second = first, rows, second
        self.shape = (rows.total, *first.shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: Ints | int) -> Floats:
        wanted = np.asarray(rows)
        places = np.searchsorted(self._rows.rows, wanted).clip(max=len(self._rows.rows) - 1)
        there = self._rows.rows[places] == wanted
        if not there.any():
            return np.asarray(self._first[rows])
        gathered = self._first[np.where(there, 0, wanted)]
        gathered[there] = self._second[places[there]]
        return gathered

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Both parts as one array, for whoever wants all of it."""
        made = np.empty(self.shape, dtype or np.float32)
        made[: self._rows.built] = self._first
        made[self._rows.rows] = self._second
        return made


# What row numbers are looked up in.
Vectors: TypeAlias = Floats | Amended


class AmendedIndex:
    """An index of any kind whose amended rows are searched exactly, by the vectors that they have now."""

    def __init__(self, index: Searchable, rows: AmendedRows, vectors: Floats) -> None:
        self._index, self._rows, self._vectors = index, rows, vectors
        # The last place is NOTHING's.
        self._stale = np.append(rows.mask[: rows.built], False)

    @property
    def kind(self) -> str:
        """That of the index."""
        return self._index.kind

    @property
    def dimensions(self) -> int:
        return self._index.dimensions

    def __len__(self) -> int:
        return self._rows.total

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """See `Searchable.search`."""
        return self.search_each(queries, k, [mask] * len(queries))

    def search_each(self, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours:
        """See `Searchable.search_each`."""
        # Equal masks of a batch are one array, and so are their parts: an index may look at each distinct one once.
        parts = {name: self._part(mask) for name, mask in {id(mask): mask for mask in masks}.items()}
        rows, scores = self._index.search_each(queries, k, [parts[id(mask)] for mask in masks])
        # What an index answers may be a view of what it received.
        rows, scores = rows.copy(), scores.copy()
        # What scores less than the last that was found may be worse than what was not.
        least, changed = self._without_stale(queries, rows, scores)
        amended = np.asarray(queries @ self._vectors.T)
        for mine, mask in zip(amended, masks, strict=True):
            if mask is not None:
                mine[~mask[self._rows.rows]] = -np.inf
        # Of equals the first row is the better, and -inf is what a mask leaves out.
        better = np.isfinite(amended) & (amended >= least[:, None])
        for query in np.flatnonzero(better.any(axis=1) | changed):
            places = np.flatnonzero(better[query])
            every = (
                np.concatenate([rows[query], self._rows.rows[places]]),
                np.concatenate([scores[query], amended[query, places]]),
            )
            best = np.lexsort((every[0], -every[1]))[:k]
            rows[query], scores[query] = every[0][best], every[1][best]
        return Neighbours(rows, scores)

    def _part(self, mask: Mask | None) -> Mask | None:
        """A mask for the index, which finds amended rows where they no longer are."""
        if mask is None:
            return None
        part = mask[: self._rows.built]
        return part & ~self._stale[:-1] if self._rows.replaced else part

    def _without_stale(self, queries: Floats, rows: Ints, scores: Floats) -> tuple[Floats, Mask]:
        """Take amended rows out of what was found, in place.

        Returns the least score that was found for each query, and whose answers are in no order now.
        """
        stale = self._stale[rows]
        lost = np.count_nonzero(stale, axis=1)
        poor = np.flatnonzero(lost > MOST_LOST * rows.shape[1])
        if len(poor):
            rows[poor], scores[poor] = self._index.search(queries[poor], rows.shape[1], ~self._stale[:-1])
            stale[poor], lost[poor] = False, 0
        least = scores[:, -1].copy()
        rows[stale], scores[stale] = NOTHING, -np.inf
        return least, np.asarray(lost > 0)
