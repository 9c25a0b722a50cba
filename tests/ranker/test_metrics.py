"""Metrics against scikit-learn's, against ir-measures' and against arithmetic."""

from math import isnan, log2

import numpy as np
import pytest
from ir_measures import RR, Qrel, R, ScoredDoc, Success, calc_aggregate, nDCG
from sklearn.metrics import ndcg_score, roc_auc_score

from ranker.metrics import auc, dcg, gains, hit, ndcg, recall, reciprocal_rank

NONE = np.empty(0)


def test_gains_are_powers_of_two_less_one() -> None:
    assert gains(np.array([0.0, 1.0, 2.0, 3.0])).tolist() == [0.0, 1.0, 3.0, 7.0]


def test_dcg_discounts_by_rank() -> None:
    assert dcg(np.array([7.0, 0.0, 3.0])) == pytest.approx(7 / log2(2) + 0 / log2(3) + 3 / log2(4))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("k", [1, 5, 10])
def test_ndcg_agrees_with_scikit_learn(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    grades, scores = rng.integers(0, 4, 30).astype(float), rng.normal(size=30)
    expected = ndcg_score(gains(grades)[None], scores[None], k=k)
    assert ndcg(scores, grades, NONE, k) == pytest.approx(expected)


def test_missed_products_count_in_the_ideal_ranking() -> None:
    scores, grades, missed = np.array([0.9, 0.5, 0.1]), np.array([0.0, 1.0, 0.0]), np.array([3.0, 1.0])
    found = 0 / log2(2) + 1 / log2(3) + 0 / log2(4)
    ideal = 7 / log2(2) + 1 / log2(3) + 1 / log2(4)
    assert ndcg(scores, grades, missed) == pytest.approx(found / ideal)
    assert ndcg(scores, grades, NONE) == pytest.approx(found / (1 / log2(2)))


def test_ndcg_without_a_gain_is_not_a_number() -> None:
    assert isnan(ndcg(np.array([1.0, 2.0]), np.zeros(2), NONE))
    assert ndcg(np.array([1.0, 2.0]), np.zeros(2), np.array([1.0])) == 0.0


def test_reciprocal_rank_of_the_first_positive() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.3])
    assert reciprocal_rank(scores, np.array([True, False, False, True])) == 1 / 3
    assert reciprocal_rank(scores, np.array([False, True, False, False])) == 1 / 1
    assert reciprocal_rank(scores, np.zeros(4, bool)) == 0.0


def test_recall_is_the_share_of_all_positives() -> None:
    scores, positive = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, True])
    assert recall(scores, positive, 0, 2) == pytest.approx(1 / 3)
    assert recall(scores, positive, 2, 3) == pytest.approx(2 / 5)
    assert recall(scores, positive, 0, 50) == 1.0
    assert recall(scores, np.zeros(4, bool), 1, 2) == 0.0
    assert isnan(recall(scores, np.zeros(4, bool), 0, 2))


def test_a_hit_is_any_positive_among_the_first() -> None:
    scores, positive = np.array([0.9, 0.8, 0.7]), np.array([False, True, True])
    assert [hit(scores, positive, 0, k) for k in (1, 2, 3)] == [0.0, 1.0, 1.0]
    assert hit(scores, np.zeros(3, bool), 1, 2) == 0.0
    assert isnan(hit(scores, np.zeros(3, bool), 0, 2))


@pytest.mark.parametrize("seed", range(5))
def test_auc_agrees_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.3
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    assert isnan(auc(scores, np.ones(40, bool)))


# The public measures' names for ours; binary ones count a product of grade 2 and up.
MEASURES = {"mrr": RR(rel=2), "hr@10": Success(rel=2) @ 10, "recall@10": R(rel=2) @ 10}


@pytest.mark.parametrize("seed", range(10))
def test_metrics_agree_with_ir_measures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grades, scores, missed = rng.integers(0, 4, 30), rng.normal(size=30), rng.integers(1, 4, seed % 4)
    everything = np.concatenate([grades, missed])
    # The listed products by place, then those that only the judgments know; gains instead of grades for NDCG.
    judged = [Qrel("q", str(i), int(grade)) for i, grade in enumerate(everything)]
    gained = [Qrel("q", str(i), int(gain)) for i, gain in enumerate(gains(everything))]
    run = [ScoredDoc("q", str(i), float(score)) for i, score in enumerate(scores)]
    expected = calc_aggregate(MEASURES.values(), judged, run)
    positive, unseen = grades >= 2, int((missed >= 2).sum())
    found = {
        "mrr": reciprocal_rank(scores, positive),
        "hr@10": hit(scores, positive, unseen, 10),
        "recall@10": recall(scores, positive, unseen, 10),
    }
    assert found == pytest.approx({name: expected[measure] for name, measure in MEASURES.items()})
    assert ndcg(scores, grades, missed) == pytest.approx(calc_aggregate([nDCG @ 10], gained, run)[nDCG @ 10])
