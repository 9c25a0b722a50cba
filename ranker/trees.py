"""The LightGBM ranker over the feature matrix: LambdaMART, or cross-entropy where every row was answered."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np

from indexer.arrays import Array, Doubles, Floats
from ranker import ranked
from ranker.config import RankerConfig
from ranker.examples import Example
from ranker.features import FIRST_PLACE, placed
from ranker.metrics import gains
from ranker.ranked import Answers, answers

_COMMON = {
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
_LISTWISE = {"objective": "lambdarank", "metric": "ndcg", "eval_at": [10], "lambdarank_truncation_level": 20}
_POINTWISE = {"objective": "cross_entropy", "metric": "cross_entropy", "learning_rate": 0.03, "lambda_l2": 10.0}


class Rows(NamedTuple):
    """All rows of some lists: features, grades, the lists' lengths, and scores that the trees are to correct.

    `answered`: every row was judged or rated, so that a grade of 0 means no, not that nobody was asked. `wanted` are
    the lists' answers where their gains are weighed (`ranker.examination`).
    """

    features: Floats
    grades: Array
    lengths: Sequence[int]
    start: Doubles | None = None
    answered: bool = False
    wanted: Answers | None = None


def rows_of(examples: Sequence[Example]) -> Rows:
    """All rows of the examples."""
    return Rows(
        np.concatenate([example.features for example in examples]),
        np.concatenate([example.grades for example in examples]),
        [len(example.rows) for example in examples],
        answered=all(example.answered for example in examples),
        wanted=answers(examples, np.inf) if any(example.weights is not None for example in examples) else None,
    )


def fit_trees(train: Rows, later: Rows, names: Sequence[str], config: RankerConfig) -> lgb.Booster:
    """Trees on `train`, stopped where they are best on `later`.

    Lists drawn from recall or logged: LambdaMART (Burges 2010), which learns from pairs within a list. Where `train`
    holds the places its rows were shown at, LightGBM estimates a bias for each place beside the trees (lambdarank with
    positions), and the trees themselves see every row at the first place, as in serving. By plain clicks of `later`
    they would seem the worse the more of that bias they leave out, so those count there as its weights say. Lists in
    which every row was answered: cross-entropy on the gain, since such short lists have few pairs and their grades
    compare across lists.
    """
    levels = np.unique(np.concatenate([train.grades, later.grades]))
    answered = train.answered and later.answered
    sets = [_dataset(rows, levels, names, answered=answered) for rows in (train, later)]
    stop = [lgb.early_stopping(config.tree_patience, verbose=False)] if config.tree_patience else []
    parameters, told = _parameters(levels, config, answered=answered), None
    if later.wanted is not None:
        parameters["metric"], told = "None", partial(_weighed_ndcg, later.wanted)
    return lgb.train(parameters, sets[0], config.trees, valid_sets=[sets[1]], feval=told, callbacks=stop)


def _weighed_ndcg(wanted: Answers, scores: Array, _: lgb.Dataset) -> tuple[str, float, bool]:
    """LightGBM's own NDCG knows no weights within a list."""
    lists = np.split(scores, np.cumsum(wanted.lengths)[:-1])
    return "ndcg@10", float(np.nanmean(ranked.ndcg(lists, wanted))), True


def grow_trees(train: Rows, rounds: int, names: Sequence[str], config: RankerConfig) -> lgb.Booster:
    """So many trees on `train`, as `fit_trees` grows them."""
    levels = np.unique(train.grades)
    parameters = _parameters(levels, config, answered=train.answered)
    return lgb.train(parameters, _dataset(train, levels, names, answered=train.answered), rounds)


def _dataset(rows: Rows, levels: Array, names: Sequence[str], *, answered: bool) -> lgb.Dataset:
    label = _shares if answered else _levels
    made = lgb.Dataset(
        placed(rows.features, FIRST_PLACE),
        label(rows.grades, levels),
        group=np.array(rows.lengths),
        init_score=rows.start,
        feature_name=list(names),
    )
    places = np.rint(np.exp(rows.features[:, list(names).index("position")])).astype(np.int64)
    if np.ptp(places) > 0:
        made.set_position(places)
    return made


def _parameters(levels: Array, config: RankerConfig, *, answered: bool) -> dict[str, Any]:
    objective = _POINTWISE if answered else _LISTWISE | {"label_gain": gains(levels).tolist()}
    return _COMMON | objective | {"num_leaves": config.leaves, "seed": config.seed}


def _levels(grades: Array, levels: Array) -> Array:
    """Whole numbers for the distinct grades, as LightGBM's ranking wants."""
    return np.asarray(np.searchsorted(levels, grades), np.int64)


def _shares(grades: Array, levels: Array) -> Array:
    """Gains as shares of the largest."""
    return np.asarray(gains(grades) / gains(levels).max(), np.float64)


def score(trees: lgb.Booster, features: Floats) -> Doubles:
    """Raw scores float64 [rows]. One thread: LightGBM's pool and torch's would fight for the same cores."""
    return np.asarray(trees.predict(features, num_threads=1, raw_score=True), np.float64)
