"""Metrics against scikit-learn's and against arithmetic."""

from math import isnan, log2

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from ranker.metrics import bootstrap, dcg, gains, ndcg, recall, reciprocal_rank

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


def test_bootstrap_covers_the_mean_and_narrows() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 3_200)
    few, many = bootstrap(values[:50]), bootstrap(values)
    for interval, drawn in ((few, values[:50]), (many, values)):
        assert interval.mean == pytest.approx(drawn.mean())
        assert interval.low < interval.mean < interval.high
    # The deviation of a mean falls with the root of the sample: 1.96 * 2 / sqrt(3200) is the expected width.
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(3_200), rel=0.15)
    assert (few.high - few.low) > 4 * (many.high - many.low)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [bootstrap(rng.normal(size=60), resamples=300) for _ in range(200)]
    covered = np.mean([low <= 0.0 <= high for _, low, high in intervals])
    assert 0.88 < covered < 0.99


def test_bootstrap_leaves_out_what_is_not_a_number() -> None:
    assert bootstrap(np.array([0.5, np.nan, 0.5])) == (0.5, 0.5, 0.5)
    assert all(isnan(value) for value in bootstrap(np.array([np.nan])))


def test_bootstrap_is_repeatable() -> None:
    values = np.random.default_rng(0).normal(size=40)
    assert bootstrap(values) == bootstrap(values) != bootstrap(values, seed=1)
