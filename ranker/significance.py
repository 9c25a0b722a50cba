"""How sure a mean over requests is: bootstrap intervals, and paired tests with a correction for their number."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from indexer.arrays import Array, Doubles, Ints

RESAMPLES = 1_000
DRAWS = 10_000
# Random numbers of one block, so that memory does not grow with the number of requests.
_BLOCK = 4_000_000


class Interval(NamedTuple):
    """A mean and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired mean difference with its 95 % bootstrap interval; p, two-sided, alone and corrected for its family."""

    mean: float
    low: float
    high: float
    p: float
    p_holm: float


def bootstrap(values: Array, seed: int = 0, resamples: int = RESAMPLES, groups: Ints | None = None) -> list[Interval]:
    """Means of the columns of `values` [requests, figures] with percentile intervals (Efron and Tibshirani 1993).

    All columns are resampled with the same requests, or with the same `groups` of them, by their numbers [requests]:
    requests of one user are alike, and as many others would say more. NaN marks a request that a figure does not apply
    to.
    """
    known = ~np.isnan(values)
    filled = _summed(np.where(known, values, 0.0), groups)
    weights = _summed(known.astype(np.float64), groups)
    means = np.concatenate([_ratio(w @ filled, w @ weights) for w in _resamples(len(filled), resamples, seed)])
    centres = _ratio(filled.sum(0), weights.sum(0))
    return [_interval(centre, column) for centre, column in zip(centres, means.T, strict=True)]


def flip_test(differences: Array, seed: int = 0, draws: int = DRAWS, groups: Ints | None = None) -> Doubles:
    """Two-sided p of each column of paired `differences` [requests, comparisons], by flipping signs at random.

    If neither order were better, a difference would as soon have the other sign (Fisher 1935; for ranking, Smucker et
    al., CIKM 2007); those of one of the `groups`, by their numbers [requests], are flipped together. p = (b + 1) /
    (draws + 1), b the draws at least as far from 0 as what was seen, so it is never 0 (Phipson and Smyth 2010). NaN
    differences are left out; p is 1 where none is left.
    """
    filled = _summed(np.nan_to_num(differences, nan=0.0), groups)
    seen = np.abs(filled.sum(0))
    # Sums of the same numbers in another order differ in their last bits.
    least = seen - 1e-9 * np.abs(filled).sum(0)
    reached = np.zeros(filled.shape[1])
    for signs in _signs(len(filled), draws, seed):
        reached += (np.abs(signs @ filled) >= least).sum(0)
    return (reached + 1.0) / (draws + 1.0)


def holm(p: Array) -> Doubles:
    """p values corrected for being one family (Holm 1979): step down, so that one false alarm stays as rare as said."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    out = np.empty(len(p))
    out[order] = np.minimum(stepped, 1.0)
    return out


def paired(mine: Doubles, others: Array, groups: Ints | None = None) -> list[Difference]:
    """`mine` [requests] minus each column of `others` [requests, comparisons]; the comparisons are one family.

    `groups` are as in `bootstrap`.
    """
    differences = mine[:, None] - others
    p = flip_test(differences, groups=groups)
    rows = zip(bootstrap(differences, groups=groups), p, holm(p), strict=True)
    return [Difference(*interval, float(alone), float(corrected)) for interval, alone, corrected in rows]


def _summed(values: Array, groups: Ints | None) -> Array:
    """Sums of the rows of each group, [groups, columns]; the rows themselves where each is its own."""
    if groups is None or not len(groups):
        return values
    # Of a part of the requests some groups are not there.
    _, where = np.unique(groups, return_inverse=True)
    return np.column_stack([np.bincount(where, column) for column in values.T])


def _ratio(top: Array, bottom: Array) -> Doubles:
    return np.asarray(np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0), np.float64)


def _interval(centre: float, means: Doubles) -> Interval:
    means = means[~np.isnan(means)]
    if not len(means):
        return Interval(float("nan"), float("nan"), float("nan"))
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(centre), float(low), float(high))


def _resamples(requests: int, resamples: int, seed: int) -> Iterator[Doubles]:
    """How often each request is drawn, float64 [some resamples, requests]."""
    rng = np.random.default_rng(seed)
    for count in _blocks(requests, resamples):
        drawn = [np.bincount(rng.integers(0, requests, requests), minlength=requests) for _ in range(count)]
        yield np.array(drawn, np.float64)


def _signs(requests: int, draws: int, seed: int) -> Iterator[Doubles]:
    """-1 or 1 for each request, float64 [some draws, requests]."""
    rng = np.random.default_rng(seed)
    for count in _blocks(requests, draws):
        bits = np.unpackbits(rng.integers(0, 256, (count, -(-requests // 8)), np.uint8), axis=1, count=requests)
        yield bits.astype(np.float64) * 2.0 - 1.0


def _blocks(requests: int, total: int) -> Iterator[int]:
    size = max(_BLOCK // max(requests, 1), 1)
    for start in range(0, total, size):
        yield min(size, total - start)
