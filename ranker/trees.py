"""The LightGBM ranker: LambdaMART over the feature matrix."""

from collections.abc import Sequence
from typing import NamedTuple

import lightgbm as lgb
import numpy as np

from indexer.arrays import Array, Doubles, Floats
from ranker.config import RankerConfig
from ranker.features import unplaced
from ranker.metrics import gains


class Rows(NamedTuple):
    """All rows of some lists: features, grades, the lists' lengths, and scores that the trees are to correct."""

    features: Floats
    grades: Array
    lengths: Sequence[int]
    start: Doubles | None = None


def fit_trees(train: Rows, later: Rows, names: Sequence[str], config: RankerConfig) -> lgb.Booster:
    """LambdaMART (Burges 2010) on `train`, stopped where NDCG@10 on `later` is best.

    Where `train` holds the places its rows were shown at, LightGBM estimates a bias for each place beside the trees
    (lambdarank with positions), and the trees themselves see every row at the first place, as in serving.
    """
    levels = np.unique(np.concatenate([train.grades, later.grades]))
    parameters = {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [10],
        "label_gain": gains(levels).tolist(),
        "lambdarank_truncation_level": 20,
        "learning_rate": 0.05,
        "num_leaves": config.leaves,
        "min_data_in_leaf": 50,
        "feature_fraction": 0.6,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "seed": config.seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    sets = [
        lgb.Dataset(
            unplaced(rows.features),
            np.searchsorted(levels, rows.grades),
            group=np.array(rows.lengths),
            init_score=rows.start,
            feature_name=list(names),
        )
        for rows in (train, later)
    ]
    places = np.rint(np.exp(train.features[:, list(names).index("position")])).astype(np.int64)
    if np.ptp(places) > 0:
        sets[0].set_position(places)
    stop = lgb.early_stopping(40, verbose=False)
    return lgb.train(parameters, sets[0], config.trees, valid_sets=[sets[1]], callbacks=[stop])


def score(trees: lgb.Booster, features: Floats) -> Doubles:
    """Raw scores float64 [rows]. One thread: LightGBM's pool and torch's would fight for the same cores."""
    return np.asarray(trees.predict(features, num_threads=1), np.float64)
