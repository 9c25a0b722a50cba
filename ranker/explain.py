"""Why a row has its score: what each feature, and the DNN, adds to it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexer.arrays import Doubles, Floats, Ints
from ranker import features
from ranker.boosted import Trees
from ranker.model import Members, stacked_features

# What stands for the DNN, and for the recall's order, beside the names of the features.
NETWORK = "network"
RECALL = "recall_rank"


class Prior(NamedTuple):
    """Places of some rows in the recall's order, 1 is the first, and what these added to their scores [rows]."""

    ranks: Ints
    added: Doubles


class Evidence(NamedTuple):
    """What some rows of a list were scored by: `matrix` float32 [rows, features.NAMES], and the DNN's logits [rows].

    `usual` is the mean logit of the whole list. `network` is None, and `usual` 0, where the DNN was left out; `recall`
    is None where the recall's order added nothing.
    """

    matrix: Floats
    network: Doubles | None
    usual: float
    recall: Prior | None = None


class Explanation(NamedTuple):
    """A row's score is `base` and the sum of its `contributions` [rows, names]; `values` [rows, names] are what it had.

    The score is the fused one where `fused` is true, and the trees' where the fusion adds no scores up.
    """

    fused: bool
    base: float
    names: Sequence[str]
    values: Floats
    contributions: Doubles


def explain(members: Members, evidence: Evidence) -> Explanation:
    """Split the scores of some rows, of one at least.

    What the recall's order added is one contribution, where the rest adds up to the fused score. The trees' part is
    split by TreeSHAP (Lundberg et al., Nature Machine Intelligence 2020) against what they expect of a row they were
    fitted on. The DNN, whose inside does not add up, is one contribution against the list's mean.
    """
    told = _of_members(members, evidence)
    if evidence.recall is None or not told.fused:
        return told
    ranks, added = evidence.recall
    return Explanation(
        True,
        told.base,
        (*told.names, RECALL),
        np.column_stack([told.values, ranks]).astype(np.float32),
        np.column_stack([told.contributions, added]),
    )


def _of_members(members: Members, evidence: Evidence) -> Explanation:
    matrix, network, usual, _ = evidence
    fusion, kind = members.fusion, members.fusion.kind
    if kind == "stacking":
        logits = np.full(len(matrix), np.nan) if network is None else network
        return _of_trees(members.stacked, stacked_features(matrix, logits))
    if kind == "rank" or network is None:
        return _of_trees(members.trees, matrix)._replace(fused=network is None)
    calibrated = fusion.log_odds[NETWORK]
    if kind == "residual":
        trees, share, scale, offset = members.residual, 1.0, 1.0, 0.0
    else:
        trees, share = members.trees, fusion.alpha
        scale, offset = ((1.0 - share) * each for each in fusion.log_odds["trees"])
    told = _of_trees(trees, matrix)
    away = share * calibrated.slope * (network - usual)
    return Explanation(
        True,
        share * (calibrated.slope * usual + calibrated.offset) + scale * told.base + offset,
        (*features.NAMES, NETWORK),
        np.column_stack([matrix, network]).astype(np.float32),
        np.column_stack([scale * told.contributions, away]),
    )


def _of_trees(trees: Trees, matrix: Floats) -> Explanation:
    # One thread, as everything that is served.
    parts = np.asarray(trees.booster.predict(matrix, pred_contrib=True, num_threads=1), np.float64)
    names = (*features.NAMES, NETWORK)[: matrix.shape[1]]
    # The last column is what the trees expect, the same for every row.
    return Explanation(True, float(parts[0, -1]), names, matrix, parts[:, :-1])
