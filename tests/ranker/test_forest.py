"""The compiled forest against `Booster.predict`, to the last bit."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from indexer.errors import SnapshotError
from ranker.forest import Forest

ROWS, WIDTH = 1200, 6
TINY = np.float32(1e-35)
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, TINY, -TINY, 2 * TINY, TINY / 2, -TINY / 2, 1e-44, -1e-44, 3.4e38]
CATEGORIES = [-np.inf, -1e10, -1.5, -1.0, -0.5, 0.5, 2.9, 31.0, 32.0, 63.0, 64.0, 99.0, 2.0**31, 2.0**40, np.inf]


def matrix(seed: int, rows: int = ROWS) -> np.ndarray:
    """Two smooth columns, one of small numbers, one mostly zero, and two of categories; a tenth is missing."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, WIDTH))
    x[:, 2] = np.round(2 * x[:, 2])
    x[:, 3] = np.maximum(x[:, 3] - 0.5, 0) - np.maximum(-x[:, 3] - 1.5, 0)
    x[:, 4:] = rng.integers(0, [5, 70], (rows, 2))
    x[rng.random(x.shape) < 0.1] = np.nan
    return x.astype(np.float32)


def grown(rounds: int = 40, categories: Sequence[int] = (), **parameters: Any) -> lgb.Booster:
    x, rng = matrix(0), np.random.default_rng(1)
    known = np.nan_to_num(x)
    y = known[:, 0] * known[:, 2] + np.abs(known[:, 1]) + 3 * np.isnan(x[:, 3]) + known[:, 3] + known[:, 5] % 3
    y += (known[:, 4] == 2) + 0.1 * rng.normal(size=ROWS)
    common = {"objective": "regression", "num_leaves": 31, "min_data_in_leaf": 5, "verbosity": -1, "num_threads": 1}
    rows = lgb.Dataset(x, y, params=parameters, categorical_feature=list(categories))
    return lgb.train(common | parameters, rows, rounds, keep_training_booster=True)


def split_values(booster: lgb.Booster) -> np.ndarray:
    """All thresholds of the text; those of categories among them are small whole numbers and do no harm."""
    lines = re.findall(r"^threshold=(.+)$", booster.model_to_string(), re.MULTILINE)
    return np.array(" ".join(lines).split(), np.float64)


def nasty(booster: lgb.Booster) -> np.ndarray:
    """Rows of what a comparison might get wrong: each threshold and the float32 around it, and special values."""
    with np.errstate(over="ignore"):
        at = np.unique(split_values(booster).astype(np.float32))
    around = [np.nextafter(at, np.float32(side)) for side in (-np.inf, np.inf)]
    values = np.concatenate([at, *around, np.array([*SPECIAL, *CATEGORIES], np.float32)])
    rng = np.random.default_rng(2)
    drawn = rng.choice(values, (2 * ROWS, booster.num_feature()))
    return np.where(rng.random(drawn.shape) < 0.3, matrix(3, 2 * ROWS), drawn)


def expected(booster: lgb.Booster, x: np.ndarray) -> np.ndarray:
    return np.asarray(booster.predict(x, num_threads=1, raw_score=True))


def assert_same(booster: lgb.Booster) -> None:
    forest = Forest.of(booster)
    for x in (matrix(4), nasty(booster)):
        np.testing.assert_array_equal(forest.score(x), expected(booster, x))


@pytest.fixture(scope="module")
def booster() -> lgb.Booster:
    return grown()


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"use_missing": False},
        {"zero_as_missing": True},
        {"categories": [4, 5], "max_cat_to_onehot": 4},
        {"categories": [4, 5], "max_cat_to_onehot": 100},
        {"categories": [4, 5], "use_missing": False},
        {"categories": [4, 5], "zero_as_missing": True},
        {"num_leaves": 400, "min_data_in_leaf": 1},
        {"num_leaves": 2},
        {"boosting": "dart"},
        {"feature_fraction": 0.5, "bagging_freq": 1, "bagging_fraction": 0.5},
    ],
    ids=str,
)
def test_scores_are_those_of_the_booster(parameters: dict[str, Any]) -> None:
    assert_same(grown(**parameters))


def rewritten(text: str, seed: int) -> lgb.Booster:
    """The same shapes with other decisions: every missing type and side, thresholds at and beside what float32 has."""
    rng = np.random.default_rng(seed)
    thresholds = np.array([0.0, 1e-35, *SPECIAL[1:], 1e300, -1e300, 1e-320, 0.1, np.float32(0.1), 1 / 3, -1 / 3, 2.0])

    def redraw(line: re.Match[str]) -> str:
        size = len(line[2].split())
        if line[1] == "decision_type":
            return f"decision_type={' '.join(map(str, rng.choice([0, 2, 4, 6, 8, 10], size)))}"
        return f"threshold={' '.join(repr(float(value)) for value in rng.choice(thresholds, size))}"

    text = re.sub(r"^(decision_type|threshold)=(.+)$", redraw, text, flags=re.MULTILINE)
    return lgb.Booster(model_str=re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE))


@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_decision(booster: lgb.Booster, seed: int) -> None:
    assert_same(rewritten(booster.model_to_string(), seed))


def test_one_feature_with_two_kinds_of_missing(booster: lgb.Booster) -> None:
    x = matrix(0)
    zero = {"zero_as_missing": True}
    more = lgb.train(
        {"verbosity": -1, "objective": "regression"} | zero,
        lgb.Dataset(x, np.nan_to_num(x[:, 3]), params=zero, free_raw_data=False),
        20,
        init_model=booster,
    )
    assert_same(more)


def test_deep_trees() -> None:
    x = np.arange(64, dtype=np.float32)[:, None]
    parameters = {"num_leaves": 64, "min_data_in_leaf": 1, "min_data_in_bin": 1, "min_sum_hessian_in_leaf": 0}
    deep = lgb.train(parameters | {"verbosity": -1}, lgb.Dataset(x, 3.0 ** x[:, 0].astype(float)), 5)
    np.testing.assert_array_equal(Forest.of(deep).score(x), expected(deep, x))


def test_trees_of_one_leaf() -> None:
    stump = grown(min_data_in_leaf=ROWS)
    forest = Forest.of(stump)
    np.testing.assert_array_equal(forest.score(matrix(4)), expected(stump, matrix(4)))


def test_no_trees() -> None:
    x = matrix(0)
    none = lgb.Booster({"verbosity": -1}, lgb.Dataset(x, np.arange(ROWS)))
    np.testing.assert_array_equal(Forest.of(none).score(x), 0.0)


def test_only_the_best_iterations_count() -> None:
    whole, cut = grown(), grown()
    cut.best_iteration = 7
    assert cut.num_trees() == 40
    assert_same(cut)
    assert np.any(Forest.of(cut).score(matrix(4)) != Forest.of(whole).score(matrix(4)))


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 300])
def test_any_number_of_rows(booster: lgb.Booster, rows: int) -> None:
    x = matrix(4)
    scores = Forest.of(booster).score(x[:rows])
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, expected(booster, x)[:rows])


def test_any_layout_in_memory(booster: lgb.Booster) -> None:
    forest, x = Forest.of(booster), matrix(4)
    scores = expected(booster, x)
    np.testing.assert_array_equal(forest.score(np.asfortranarray(x)), scores)
    np.testing.assert_array_equal(forest.score(x[::-3]), scores[::-3])
    np.testing.assert_array_equal(forest.score(np.column_stack([x, x])[:, :WIDTH]), scores)
    x.setflags(write=False)
    np.testing.assert_array_equal(forest.score(x), scores)
    unaligned = np.frombuffer(b"." + x.tobytes(), np.float32, offset=1).reshape(x.shape)
    np.testing.assert_array_equal(forest.score(unaligned), scores)


def test_arguments_are_not_written_into(booster: lgb.Booster) -> None:
    x = matrix(4)
    Forest.of(booster).score(x)
    np.testing.assert_array_equal(x, matrix(4))


def test_several_threads(booster: lgb.Booster) -> None:
    forest, x = Forest.of(booster), matrix(4)
    with ThreadPoolExecutor(8) as pool:
        for scores in pool.map(forest.score, [x] * 32):
            np.testing.assert_array_equal(scores, expected(booster, x))


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, WIDTH + 1), np.float32), np.zeros(WIDTH, np.float32), np.zeros((3, WIDTH))], ids=str
)
def test_another_matrix_is_refused(booster: lgb.Booster, wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=rf"fitted on float32 \[rows, {WIDTH}\]"):
        Forest.of(booster).score(wrong)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, "averaged"),
        ({"linear_tree": True}, "linear models"),
    ],
)
def test_what_is_no_plain_sum_is_refused(parameters: dict[str, Any], reason: str) -> None:
    with pytest.raises(SnapshotError, match=reason):
        Forest.of(grown(rounds=3, **parameters))


def test_several_scores_for_a_row_are_refused() -> None:
    x = matrix(0)
    classes = lgb.train(
        {"objective": "multiclass", "num_class": 3, "verbosity": -1}, lgb.Dataset(x, np.arange(ROWS) % 3), 2
    )
    with pytest.raises(SnapshotError, match="3 scores for each row"):
        Forest.of(classes)


def test_another_format_is_refused() -> None:
    newer = SimpleNamespace(best_iteration=-1, model_to_string=lambda num_iteration: "tree\nversion=v5\n")
    with pytest.raises(SnapshotError, match="format v5, not v4"):
        Forest.of(newer)
