"""LambdaMART on a toy whose order is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from ranker.config import RankerConfig
from ranker.features import NAMES
from ranker.metrics import ndcg
from ranker.trees import fit_trees, score

LIST = 12
SIGNAL, NOISE, POSITION = (NAMES.index(name) for name in ("bm25", "log_price", "position"))
Lists = tuple[np.ndarray, np.ndarray, Sequence[int]]


def lists(count: int, seed: int, grades: Sequence[float] = (0.0, 1.0, 2.0, 3.0)) -> Lists:
    """Lists whose grade grows with one feature, a tenth of it missing; one feature is noise, others constant."""
    rng = np.random.default_rng(seed)
    x = np.zeros((count * LIST, len(NAMES)), np.float32)
    x[:, SIGNAL], x[:, NOISE] = rng.normal(size=(2, len(x)))
    levels = np.digitize(x[:, SIGNAL] + 0.1 * rng.normal(size=len(x)), [0.5, 1.0, 1.5])
    x[rng.random(len(x)) < 0.1, SIGNAL] = np.nan
    return x, np.array(grades)[levels], [LIST] * count


def clicked(count: int, seed: int) -> Lists:
    """Lists as shown by price, whose clicks come to what has the signal and was looked at, the first places mostly."""
    rng = np.random.default_rng(seed)
    x, _, lengths = lists(count, seed)
    x[:, SIGNAL] = np.nan_to_num(x[:, SIGNAL])
    places = np.concatenate([np.argsort(np.argsort(-prices)) + 1 for prices in x[:, NOISE].reshape(-1, LIST)])
    x[:, POSITION] = np.log(places)
    seen = rng.random(len(x)) < 1 / places
    return x, (seen & (rng.random(len(x)) < 1 / (1 + np.exp(-2 * x[:, SIGNAL])))).astype(float), lengths


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
    assert scores.shape == (60 * LIST,)
    assert scores.dtype == np.float64
    assert mean_ndcg(scores, test) > 0.9
    assert mean_ndcg(np.random.default_rng(0).random(60 * LIST), test) < 0.7
    assert fitted.feature_name() == list(NAMES)
    gain = fitted.feature_importance("gain")
    assert gain[SIGNAL] > 10 * gain[NOISE]


def test_grades_need_not_be_whole_numbers(config: RankerConfig) -> None:
    grades = (1.0, 1.33, 2.67, 3.0)
    test = lists(60, 2, grades)
    fitted = fit_trees(lists(150, 0, grades), lists(60, 1, grades), NAMES, config)
    assert mean_ndcg(score(fitted, test[0]), test) > 0.9


def test_a_grade_only_the_later_slice_has(config: RankerConfig) -> None:
    fitted = fit_trees(lists(100, 0, (0.0, 0.0, 1.0, 1.0)), lists(60, 1), NAMES, config)
    assert mean_ndcg(score(fitted, lists(60, 2)[0]), lists(60, 2)) > 0.8


def test_one_more_column(config: RankerConfig) -> None:
    """The stacked trees read the network's logit behind the features; here it is the answer itself."""
    train, later = (
        (np.column_stack([x, grades]).astype(np.float32), grades, lengths)
        for x, grades, lengths in (lists(150, 0), lists(60, 1))
    )
    fitted = fit_trees(train, later, [*NAMES, "network_logit"], config)
    assert mean_ndcg(score(fitted, later[0]), later) > 0.99
    assert fitted.feature_name()[-1] == "network_logit"


def test_trees_do_not_learn_the_place(config: RankerConfig) -> None:
    """Clicks favour the first places, which were given by price: a place is accounted for beside the trees."""
    test = lists(100, 2)
    informed = fit_trees(clicked(400, 0), lists(100, 1), NAMES, config)
    x, clicks, lengths = clicked(400, 0)
    x[:, POSITION] = 0.0
    blind = fit_trees((x, clicks, lengths), lists(100, 1), NAMES, config)
    gain, misled = (fitted.feature_importance("gain") for fitted in (informed, blind))
    assert gain[POSITION] == 0
    assert gain[NOISE] / gain[SIGNAL] < 0.6 * misled[NOISE] / misled[SIGNAL]
    assert mean_ndcg(score(informed, test[0]), test) > mean_ndcg(score(blind, test[0]), test) + 0.03


def test_the_place_of_a_candidate_does_not_change_its_score(config: RankerConfig) -> None:
    x, _, _ = clicked(20, 2)
    fitted = fit_trees(clicked(200, 0), clicked(60, 1), NAMES, config)
    elsewhere = x.copy()
    elsewhere[:, POSITION] = np.log(7)
    np.testing.assert_array_equal(score(fitted, x), score(fitted, elsewhere))


def test_arguments_are_not_written_into(config: RankerConfig) -> None:
    train, later = clicked(60, 0), clicked(40, 1)
    before = train[0].copy()
    fit_trees(train, later, NAMES, config)
    np.testing.assert_array_equal(train[0], before)


def test_the_same_seed_gives_the_same_trees(config: RankerConfig) -> None:
    one, other = (fit_trees(lists(100, 0), lists(40, 1), NAMES, config) for _ in range(2))
    np.testing.assert_array_equal(score(one, lists(40, 2)[0]), score(other, lists(40, 2)[0]))
