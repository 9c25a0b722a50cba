"""Item to item by regression: what each product of a history adds to what all the others there already say."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import scipy.linalg
import scipy.sparse as sp

from indexer.arrays import Array, Doubles, Floats, Ints, mapped
from indexer.errors import SnapshotError
from ranker.history import DISLIKE, RETURN, History

# Products that are foretold and foretell, those that most users engaged with: a matrix of the square of their number is
# inverted, 100 MB for 5,000. With what is made of it on the way the fit holds some 600 MB.
_MODELLED = 5_000
# The ridge: as if so many users had engaged with each product and nothing else.
_RIDGE = 300.0
# Weights kept of those from one product, the largest of either sign.
_KEPT = 200

_FILE = "ease_{}.npy"


class Ease(NamedTuple):
    """The product at place p foretells those at places `targets[p]`, with `weights[p]`, some of them below 0.

    places int64 [products], -1 for a product that is not modelled; the others [modelled, kept], int64 and float32.
    """

    places: Ints
    targets: Ints
    weights: Floats

    def scores(self, history: History, rows: Ints) -> Doubles:
        """The sum of the weights from the distinct products of the history to each of `rows`, float64 [rows]."""
        if not len(self.targets):
            return np.zeros(len(rows))
        own, places = np.unique(self.places[list(history.rows)]), self.places[rows]
        own = own[own >= 0]
        weights = self.weights[own].ravel().astype(np.float64)
        sums = np.bincount(self.targets[own].ravel(), weights, len(self.targets))
        return np.where(places < 0, 0.0, sums[places])

    def with_added(self, count: int) -> "Ease":
        """The weights with so many rows behind their own, which are not modelled."""
        return self._replace(places=np.pad(self.places, (0, count), constant_values=-1))

    def carried(self, came_from: Ints) -> "Ease":
        """The weights for other rows, of which row i was `came_from[i]` here, -1 if it is new and not modelled."""
        return Ease(np.where(came_from >= 0, self.places[came_from], -1), self.targets, self.weights)

    def save(self, folder: Path) -> None:
        """Write the three arrays."""
        for name, array in self._asdict().items():
            np.save(folder / _FILE.format(name), array)


def load_ease(folder: Path) -> Ease:
    """Open what `Ease.save` wrote, memory-mapped. Raises `SnapshotError` where it is missing."""
    try:
        return Ease(*(mapped(folder / _FILE.format(name)) for name in Ease._fields))
    except FileNotFoundError as error:
        raise SnapshotError(
            f"{error.filename} is missing: the model is damaged, or an earlier one. Train again: `vitrine train`."
        ) from error


def empty_ease(products: int) -> Ease:
    """The weights of a log that tells nothing."""
    return Ease(np.full(products, -1), np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))


def fit_ease(engagements: pl.DataFrame, products: int) -> Ease:
    """The weights of a log with columns user_id, row, kind.

    EASE^R (Steck, WWW 2019): with G = X'X + ridge, X being 1 where a user engaged with a product, and P = G^-1, the
    weight from i to j is -P_ij / P_jj. No product foretells itself.
    """
    known = engagements.filter(pl.col("user_id").is_not_null() & ~pl.col("kind").is_in([RETURN, DISLIKE]))
    pairs = known.select(pl.col("user_id").rank("dense").cast(pl.Int64) - 1, "row").unique()
    rows, users = pairs["row"].to_numpy(), pairs["user_id"].to_numpy()
    modelled = _most(np.bincount(rows, minlength=products))
    if not len(modelled):
        return empty_ease(products)
    places = np.full(products, -1)
    places[modelled] = np.arange(len(modelled))
    mine = places[rows] >= 0
    ones = np.ones(int(mine.sum()), np.float32)
    seen = sp.csr_matrix((ones, (users[mine], places[rows[mine]])), (int(users.max()) + 1, len(modelled)))
    return Ease(places, *_largest(_weights((seen.T @ seen).toarray())))


def _most(users: Ints) -> Ints:
    """The products that at least two users engaged with, at most _MODELLED of them, by row."""
    order = np.lexsort((np.arange(len(users)), -users))[:_MODELLED]
    return np.sort(order[users[order] > 1])


def _weights(gram: Array) -> Array:
    """-P_ij / P_jj at [i, j], float32, 0 on the diagonal; `gram` is overwritten."""
    corner = np.diag_indices(len(gram))
    gram[corner] += _RIDGE
    lower = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    inverse = scipy.linalg.cho_solve(lower, np.eye(len(gram), dtype=np.float32), overwrite_b=True, check_finite=False)
    weights = inverse / -np.diag(inverse)
    weights[corner] = 0.0
    return np.asarray(weights, np.float32)


def _largest(weights: Array) -> tuple[Ints, Floats]:
    """The _KEPT largest weights of each row, in the order of their columns: columns and weights."""
    count = min(_KEPT, len(weights))
    kept = np.sort(np.argpartition(-np.abs(weights), count - 1, axis=1)[:, :count], axis=1)
    return kept, np.take_along_axis(weights, kept, axis=1)
