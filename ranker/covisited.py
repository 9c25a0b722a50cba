"""Item to item: which products are engaged with by the same users, close together, mostly in this order."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import scipy.sparse as sp

from indexer.arrays import Doubles, Ints, mapped
from ranker.history import DISLIKE, RETURN, History

# Neighbours kept of a product.
_KEPT = 100
# Engagements of one user that lie at most so many steps apart count as visited together.
_WINDOW = 20
# What a pair counts for each step it lies apart, and the share of it that counts against the order of time.
_STEP, _BACKWARD = 0.95, 0.7
# w_ij = n_ij / (n_i^0.6 n_j^0.4 + 10): cosine normalisation with shrinkage (Deshpande and Karypis, TOIS 2004), tilted
# against popular sources. Chosen on a tenth of the games set's last items: see decision 10.
_SOURCE, _SHRINKAGE = 0.6, 10.0
# Engagements of a history that are looked up, and what each step back in it is worth.
RECENT = 20
DECAY = 0.8

_FILES = ("covisited_offsets.npy", "covisited_rows.npy", "covisited_weights.npy")


class Covisited(NamedTuple):
    """The neighbours of product i are `rows[offsets[i]:offsets[i + 1]]` (int64), with `weights` (float64)."""

    offsets: Ints
    rows: Ints
    weights: Doubles

    def spread(self, history: History, last: int = RECENT, decay: float = DECAY) -> tuple[Ints, Doubles]:
        """Neighbours of the newest `last` distinct products, with repeats: rows and weight x decay^(steps back)."""
        newest = np.array(list(dict.fromkeys(reversed(history.rows)))[:last], np.int64)
        starts, ends = self.offsets[newest], self.offsets[newest + 1]
        lengths = ends - starts
        places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
        return self.rows[places], self.weights[places] * np.repeat(decay ** np.arange(len(newest)), lengths)

    def scores(self, history: History, rows: Ints, last: int = RECENT) -> Doubles:
        """How strongly each of `rows` is tied to the history, float64 [rows]; 0 where it is not."""
        found, weights = self.spread(history, last)
        distinct, where = np.unique(rows, return_inverse=True)
        if not len(distinct):
            return np.zeros(0)
        places = np.searchsorted(distinct, found).clip(max=len(distinct) - 1)
        sums = np.bincount(places, weights * (distinct[places] == found), minlength=len(distinct))
        return np.asarray(sums[where], np.float64)

    def with_added(self, count: int) -> "Covisited":
        """The table with so many rows behind its own, which have no neighbours and are nobody's."""
        return self._replace(offsets=np.pad(self.offsets, (0, count), mode="edge"))

    def carried(self, came_from: Ints) -> "Covisited":
        """The table of other rows, of which row i was `came_from[i]` here, -1 if it is new and has no neighbours.

        Neighbours that are none of them are left out.
        """
        known = came_from >= 0
        goes_to = np.full(len(self.offsets) - 1, -1, np.int64)
        goes_to[came_from[known]] = np.flatnonzero(known)
        starts = np.where(known, self.offsets[came_from], 0)
        lengths = np.where(known, self.offsets[came_from + 1], 0) - starts
        places = np.repeat(starts - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))
        rows, owners = goes_to[self.rows[places]], np.repeat(np.arange(len(came_from)), lengths)
        kept = rows >= 0
        offsets = np.searchsorted(owners[kept], np.arange(len(came_from) + 1))
        return Covisited(offsets, rows[kept], self.weights[places][kept])

    def save(self, folder: Path) -> None:
        """Write the three arrays."""
        for name, array in zip(_FILES, self, strict=True):
            np.save(folder / name, array)


def load_covisited(folder: Path) -> Covisited:
    """Open what `Covisited.save` wrote, memory-mapped."""
    return Covisited(*(mapped(folder / name) for name in _FILES))


def fit_covisited(engagements: pl.DataFrame, products: int) -> Covisited:
    """The table of a log with columns user_id, row, kind, time, in time order."""
    known = engagements.filter(pl.col("user_id").is_not_null() & ~pl.col("kind").is_in([RETURN, DISLIKE]))
    known = known.sort("user_id", maintain_order=True)
    rows, users = known["row"].to_numpy(), known["user_id"].rle_id().to_numpy()
    together = sp.csr_matrix((products, products))
    for step in range(1, _WINDOW + 1):
        same = users[:-step] == users[step:]
        pair = rows[:-step][same], rows[step:][same]
        together += sp.csr_matrix((np.full(len(pair[0]), _STEP ** (step - 1)), pair), together.shape)
    together = (together + _BACKWARD * together.T).tocoo()
    counts = np.maximum(np.bincount(rows, minlength=products), 1.0)
    of, to = together.row.astype(np.int64), together.col.astype(np.int64)
    weights = together.data / (counts[of] ** _SOURCE * counts[to] ** (1.0 - _SOURCE) + _SHRINKAGE)
    return _nearest(of, to, weights, products)


def _nearest(of: Ints, to: Ints, weights: Doubles, products: int) -> Covisited:
    """The _KEPT heaviest neighbours of each product; no product is its own neighbour."""
    other = of != to
    of, to, weights = of[other], to[other], weights[other]
    order = np.lexsort((to, -weights, of))
    of, to, weights = of[order], to[order], weights[order]
    starts = np.searchsorted(of, np.arange(products + 1))
    kept = np.arange(len(of)) - starts[of] < _KEPT
    return Covisited(np.searchsorted(of[kept], np.arange(products + 1)), to[kept], weights[kept])
