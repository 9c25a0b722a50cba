"""The LightGBM ranker: LambdaMART over the feature matrix."""

from collections.abc import Sequence

import lightgbm as lgb
import numpy as np

from indexer.arrays import Array, Doubles, Floats
from ranker.config import RankerConfig
from ranker.features import unplaced
from ranker.metrics import gains


def fit_trees(
    train: tuple[Floats, Array, Sequence[int]],
    later: tuple[Floats, Array, Sequence[int]],
    names: Sequence[str],
    config: RankerConfig,
) -> lgb.Booster:
    """LambdaMART (Burges 2010) on (features, grades, list lengths), stopped where NDCG@10 on `later` is best.

    Where `train` holds the places its rows were shown at, LightGBM estimates a bias for each place beside the trees
    (lambdarank with positions), and the trees themselves see every row at the first place, as in serving.
    """
    levels = np.unique(np.concatenate([train[1], later[1]]))
    parameters = {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [10],
        "label_gain": gains(levels).tolist(),
        "lambdarank_truncation_level": 20,
        "learning_rate": 0.05,
        "num_leaves": config.leaves,
        "min_data_in_leaf": 50,
        "feature_fraction": 0.8,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "seed": config.seed,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    sets = [
        lgb.Dataset(unplaced(x), np.searchsorted(levels, grades), group=np.array(lengths), feature_name=list(names))
        for x, grades, lengths in (train, later)
    ]
    places = np.rint(np.exp(train[0][:, list(names).index("position")])).astype(np.int64)
    if np.ptp(places) > 0:
        sets[0].set_position(places)
    stop = lgb.early_stopping(40, verbose=False)
    return lgb.train(parameters, sets[0], config.trees, valid_sets=[sets[1]], callbacks=[stop])


def score(trees: lgb.Booster, features: Floats) -> Doubles:
    """Raw scores float64 [rows]. One thread: LightGBM's pool and torch's would fight for the same cores."""
    return np.asarray(trees.predict(features, num_threads=1), np.float64)
