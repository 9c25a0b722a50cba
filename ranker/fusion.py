"""Fusing the members' scores: calibrate each, then weigh them; alpha is found by gradient descent."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from indexer.arrays import Array, Doubles


class Platt(NamedTuple):
    """p = sigmoid(slope * score + offset) (Platt 1999)."""

    slope: float
    offset: float

    def __call__(self, scores: Array) -> Doubles:
        """Probabilities of scores."""
        return np.asarray(expit(self.slope * scores + self.offset), np.float64)


class Fusion(NamedTuple):
    """`weighted`: alpha p_network + (1 - alpha) p_trees; `stacking`: trees that read the network's logit.

    `calibration` and `thresholds` are by scorer: network, trees, weighted, stacking. A threshold is the probability
    from which a row is called positive, chosen for the best F1 on the validation slice.
    """

    kind: str
    alpha: float
    calibration: Mapping[str, Platt]
    thresholds: Mapping[str, float]

    def weighted(self, network: Doubles, trees: Doubles) -> Doubles:
        """The weighted score of the members' raw scores."""
        return weigh(self.alpha, self.calibration["network"](network), self.calibration["trees"](trees))

    def probabilities(self, scorer: str, scores: Doubles) -> Doubles:
        """Scores of `scorer` as probabilities; the weighted score is one already."""
        return scores if scorer == "weighted" else self.calibration[scorer](scores)


def weigh(alpha: float, network: Doubles, trees: Doubles) -> Doubles:
    """r = alpha r1 + (1 - alpha) r2."""
    return alpha * network + (1.0 - alpha) * trees


def fit_platt(scores: Array, positive: Array) -> Platt:
    """Calibration of `scores` on labelled rows; a constant where the labels are all alike."""
    if positive.all() or not positive.any():
        return Platt(0.0, 10.0 if positive.all() else -10.0)
    scale = float(np.std(scores)) or 1.0
    fitted = LogisticRegression(C=1e6).fit(scores[:, None] / scale, positive)
    return Platt(float(fitted.coef_[0, 0]) / scale, float(fitted.intercept_[0]))


def fit_alpha(network: Doubles, trees: Doubles, positive: Array, steps: int = 200) -> float:
    """The alpha of least log loss, by gradient descent (Adam) on its logit; inputs are probabilities [rows]."""
    p1, p2 = (torch.from_numpy(p) for p in (network, trees))
    labels = torch.from_numpy(positive.astype(np.float64))
    logit = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([logit], lr=0.1)
    for _ in range(steps):
        alpha = torch.sigmoid(logit)
        loss = F.binary_cross_entropy((alpha * p1 + (1 - alpha) * p2).clamp(1e-9, 1 - 1e-9), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return float(torch.sigmoid(logit).item())


def best_threshold(probabilities: Doubles, positive: Array) -> float:
    """The probability from which calling a row positive gives the best F1."""
    if not len(probabilities):
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(positive[order])
    # Equal probabilities are called together, so only the last of them can be a threshold.
    last = np.flatnonzero(np.diff(ranked, append=-np.inf))
    f1 = 2 * hits[last] / (last + 1 + positive.sum())
    return float(ranked[last][int(np.argmax(f1))])
