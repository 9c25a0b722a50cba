"""Ranking metrics of one list: the plain definitions, which the arithmetic over many lists is tested against."""

import numpy as np

from indexer.arrays import Array, Doubles


def gains(grades: Array) -> Doubles:
    """2^grade - 1 (Burges et al., ICML 2005)."""
    return np.asarray(np.exp2(grades) - 1.0, np.float64)


def dcg(ranked: Doubles) -> float:
    """Sum of gain / log2(1 + rank), rank from 1 (Järvelin and Kekäläinen 2002)."""
    return float((ranked / np.log2(np.arange(2, len(ranked) + 2))).sum())


def ndcg(scores: Array, grades: Array, missed: Array, k: int = 10) -> float:
    """NDCG@k of a list ranked by `scores`; `missed` are grades of relevant products that are not in the list.

    They count in the ideal ranking, so recall's misses cost here. NaN where nothing has a gain.
    """
    ideal = dcg(np.sort(gains(np.concatenate([grades, missed])))[::-1][:k])
    if ideal == 0:
        return float("nan")
    return dcg(gains(grades)[_ranking(scores)][:k]) / ideal


def reciprocal_rank(scores: Array, positive: Array) -> float:
    """1 / rank of the first positive, 0 where there is none."""
    places = np.flatnonzero(positive[_ranking(scores)])
    return 1.0 / (places[0] + 1) if len(places) else 0.0


def recall(scores: Array, positive: Array, missed: int, k: int) -> float:
    """The share of all positives, `missed` ones included, among the first k. NaN where there is no positive."""
    total = int(positive.sum()) + missed
    return float(positive[_ranking(scores)][:k].sum() / total) if total else float("nan")


def hit(scores: Array, positive: Array, missed: int, k: int) -> float:
    """1 where a positive is among the first k, else 0: their mean is HR@k. NaN where there is no positive."""
    return float(positive[_ranking(scores)][:k].any()) if positive.any() or missed else float("nan")


def auc(scores: Array, positive: Array) -> float:
    """The chance that a positive is scored above a negative, ties half (Hanley and McNeil 1982). NaN without a pair."""
    above = scores[positive][:, None] - scores[~positive][None, :]
    return float((np.sign(above) + 1).mean() / 2) if above.size else float("nan")


def _ranking(scores: Array) -> Array:
    return np.argsort(-scores, kind="stable")
