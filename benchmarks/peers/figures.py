"""The figures of a ranking over a whole catalogue: HR, NDCG and recall from its first hundred rows."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from indexer.arrays import Doubles, Ints
from ranker.metrics import dcg, gains
from ranker.significance import bootstrap

DEPTH = 100
NAMES = ("hr@10", "ndcg@10", "recall@100")


class Figures(NamedTuple):
    """HR@10, NDCG@10 and recall@100 of one request; NaN where nothing was wanted."""

    hr: float
    ndcg: float
    recall: float


NOTHING_WANTED = Figures(float("nan"), float("nan"), float("nan"))


class Order:
    """The first rows by score. Ties fall in one random order for all peers: row numbers may carry the answer."""

    def __init__(self, products: int, seed: int = 0) -> None:
        self._place: Ints = np.random.default_rng(seed).permutation(products)

    def first(self, scores: Doubles, k: int = DEPTH) -> Ints:
        """The k best rows, best first; rows scored -inf are left out."""
        k = min(k, len(scores))
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero((scores >= least) & (scores > -np.inf))
        return self.of(rows, scores[rows])[:k]

    def of(self, rows: Ints, scores: Doubles) -> Ints:
        """`rows` in the order of their own `scores`, best first."""
        return rows[np.lexsort((self._place[rows], -scores))]


def figures(ranked: Ints, wanted: Mapping[int, float]) -> Figures:
    """Figures of `ranked` (rows, best first) where `wanted` maps rows to grades above 0.

    NDCG has gains 2^grade - 1 (Burges et al., ICML 2005) and the ideal order of all wanted products.
    """
    if not wanted:
        return NOTHING_WANTED
    ideal = dcg(np.sort(gains(np.array(list(wanted.values()))))[::-1][:10])
    if ideal == 0:
        return NOTHING_WANTED
    top = ranked[:10].tolist()
    grades = np.array([wanted.get(row, 0.0) for row in top])
    found = sum(row in wanted for row in ranked[:DEPTH].tolist())
    return Figures(float((grades > 0).any()), dcg(gains(grades)) / ideal, found / len(wanted))


def intervals(each: Sequence[Figures], names: Sequence[str] = NAMES) -> dict[str, object]:
    """Mean and 95 % bootstrap interval of the named figures, over the requests where something was wanted."""
    table = np.array(each, np.float64).reshape(-1, len(NAMES))[:, [NAMES.index(name) for name in names]]
    found = zip(names, bootstrap(table), strict=True)
    plain = {name: {key: round(value, 5) for key, value in each._asdict().items()} for name, each in found}
    return {"requests": int((~np.isnan(table)).any(axis=1).sum()), **plain}
