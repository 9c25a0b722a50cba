"""LambdaMART on a toy whose order is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from ranker.config import RankerConfig
from ranker.metrics import ndcg
from ranker.trees import fit_trees, score

NAMES = ("signal", "noise", "constant")
Lists = tuple[np.ndarray, np.ndarray, Sequence[int]]


def lists(count: int, seed: int, grades: Sequence[float] = (0.0, 1.0, 2.0, 3.0)) -> Lists:
    """Lists of 12 whose grade grows with the first feature; a tenth of it is missing."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(size=(count * 12, 2)), np.ones(count * 12)]).astype(np.float32)
    levels = np.digitize(x[:, 0] + 0.1 * rng.normal(size=len(x)), [0.5, 1.0, 1.5])
    x[rng.random(len(x)) < 0.1, 0] = np.nan
    return x, np.array(grades)[levels], [12] * count


@pytest.fixture(scope="module")
def config() -> RankerConfig:
    return RankerConfig(trees=40, leaves=7)


def mean_ndcg(scores: np.ndarray, of: Lists) -> float:
    pairs = zip(np.split(scores, len(of[2])), np.split(of[1], len(of[2])), strict=True)
    return float(np.nanmean([ndcg(s, g, np.empty(0)) for s, g in pairs]))


def test_learns_the_order(config: RankerConfig) -> None:
    later, test = lists(60, 1), lists(60, 2)
    fitted = fit_trees(lists(150, 0), later, NAMES, config)
    scores = score(fitted, test[0])
    assert scores.shape == (720,)
    assert scores.dtype == np.float64
    assert mean_ndcg(scores, test) > 0.9
    assert mean_ndcg(np.random.default_rng(0).random(720), test) < 0.7
    assert fitted.feature_name() == list(NAMES)
    gain = fitted.feature_importance("gain")
    assert gain[0] > 10 * gain[1] >= gain[2]


def test_grades_need_not_be_whole_numbers(config: RankerConfig) -> None:
    grades = (1.0, 1.33, 2.67, 3.0)
    test = lists(60, 2, grades)
    fitted = fit_trees(lists(150, 0, grades), lists(60, 1, grades), NAMES, config)
    assert mean_ndcg(score(fitted, test[0]), test) > 0.9


def test_a_grade_only_the_later_slice_has(config: RankerConfig) -> None:
    fitted = fit_trees(lists(100, 0, (0.0, 0.0, 1.0, 1.0)), lists(60, 1), NAMES, config)
    assert mean_ndcg(score(fitted, lists(60, 2)[0]), lists(60, 2)) > 0.8


def test_the_same_seed_gives_the_same_trees(config: RankerConfig) -> None:
    one, other = (fit_trees(lists(100, 0), lists(40, 1), NAMES, config) for _ in range(2))
    np.testing.assert_array_equal(score(one, lists(40, 2)[0]), score(other, lists(40, 2)[0]))
