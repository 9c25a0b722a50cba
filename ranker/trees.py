"""The LightGBM ranker over the feature matrix: LambdaMART, or cross-entropy where every row was answered or shown."""

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
    the lists' answers where their gains are weighed, and `looks` how often the place of each row is looked at, where
    every row was shown at one and not all places are alike (`ranker.examination`).
    """

    features: Floats
    grades: Array
    lengths: Sequence[int]
    start: Doubles | None = None
    answered: bool = False
    wanted: Answers | None = None
    looks: Doubles | None = None


def rows_of(examples: Sequence[Example]) -> Rows:
    """All rows of the examples."""
    weights = [example.weights for example in examples if example.weights is not None]
    shown = len(weights) == len(examples) and np.ptp(np.concatenate(weights)) > 0
    return Rows(
        np.concatenate([example.features for example in examples]),
        np.concatenate([example.grades for example in examples]),
        [len(example.rows) for example in examples],
        answered=all(example.answered for example in examples),
        wanted=answers(examples, np.inf) if weights else None,
        looks=1.0 / np.concatenate(weights) if shown else None,
    )


def fit_trees(train: Rows, later: Rows, names: Sequence[str], config: RankerConfig) -> lgb.Booster:
    """Trees on `train`, stopped where they are best on `later`.

    Lists drawn from recall: LambdaMART (Burges 2010), which learns from pairs within a list. Lists in which every row
    was answered: cross-entropy on the gain, since such short lists have few pairs and their grades compare across
    lists. Lists that were shown, where it is known how often their places are looked at: cross-entropy on the gain too,
    and the trees begin at the log of that, so they learn what is left when a place's share is taken out of a click (the
    examination hypothesis, Richardson et al., WWW 2007). Where not all lists were shown, or places did not tell:
    LambdaMART with a bias for each place beside the trees (lambdarank with positions), stopped by clicks that count as
    their weights say, since by plain ones of `later` trees seem the worse the more of that bias they leave out. The
    trees see every row at the first place, as in serving.
    """
    levels = np.unique(np.concatenate([train.grades, later.grades]))
    pointwise = _pointwise(train) and _pointwise(later)
    sets = [_dataset(rows, levels, names, pointwise=pointwise) for rows in (train, later)]
    stop = [lgb.early_stopping(config.tree_patience, verbose=False)] if config.tree_patience else []
    parameters, told = _parameters(levels, config, pointwise=pointwise), None
    if later.wanted is not None and not pointwise:
        parameters["metric"], told = "None", partial(_weighed_ndcg, later.wanted)
    return lgb.train(parameters, sets[0], config.trees, valid_sets=[sets[1]], feval=told, callbacks=stop)


def _pointwise(rows: Rows) -> bool:
    return rows.answered or rows.looks is not None


def _weighed_ndcg(wanted: Answers, scores: Array, _: lgb.Dataset) -> tuple[str, float, bool]:
    """LightGBM's own NDCG knows no weights within a list."""
    lists = np.split(scores, np.cumsum(wanted.lengths)[:-1])
    return "ndcg@10", float(np.nanmean(ranked.ndcg(lists, wanted))), True


def grow_trees(train: Rows, rounds: int, names: Sequence[str], config: RankerConfig) -> lgb.Booster:
    """So many trees on `train`, as `fit_trees` grows them."""
    levels = np.unique(train.grades)
    parameters = _parameters(levels, config, pointwise=_pointwise(train))
    return lgb.train(parameters, _dataset(train, levels, names, pointwise=_pointwise(train)), rounds)


def _dataset(rows: Rows, levels: Array, names: Sequence[str], *, pointwise: bool) -> lgb.Dataset:
    labels = (_shares if pointwise else _levels)(rows.grades, levels)
    made = lgb.Dataset(
        placed(rows.features, FIRST_PLACE),
        labels,
        group=np.array(rows.lengths),
        init_score=_start(rows, labels) if pointwise else rows.start,
        feature_name=list(names),
    )
    places = np.rint(np.exp(rows.features[:, list(names).index("position")])).astype(np.int64)
    if np.ptp(places) > 0 and not pointwise:
        made.set_position(places)
    return made


def _start(rows: Rows, labels: Array) -> Doubles | None:
    """The log-odds that cross-entropy starts from: of the looks at each row's place, as far as they are known."""
    if rows.looks is None:
        return rows.start
    # LightGBM starts from the mean by itself only where it is given nothing to start from.
    mean = labels.mean().clip(1e-6, 1 - 1e-6)
    start = np.log(mean / (1.0 - mean)) if rows.start is None else rows.start
    return np.asarray(start + np.log(rows.looks / rows.looks.mean()), np.float64)


def _parameters(levels: Array, config: RankerConfig, *, pointwise: bool) -> dict[str, Any]:
    objective = _POINTWISE if pointwise else _LISTWISE | {"label_gain": gains(levels).tolist()}
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
