"""Fusing the members' scores: calibrate each, then weigh them; alpha is found by gradient descent."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from indexer.arrays import Array, Doubles
from ranker.metrics import gains

if TYPE_CHECKING:
    import torch

KINDS = ("weighted", "stacking", "residual", "rank")
# The constant of reciprocal-rank fusion (Cormack et al., SIGIR 2009).
_RRF = 60.0
# What the recall's order adds where members were fitted on shown lists alone: log-odds for each e-fold of the rank, and
# a share of its reciprocal where the members' are summed (decision 31).
_PRIOR, _PRIOR_SHARE = 0.1, 0.1


class Platt(NamedTuple):
    """Log-odds of a score: slope * score + offset (Platt 1999)."""

    slope: float
    offset: float

    def log_odds(self, scores: Array) -> Doubles:
        """Calibrated log-odds of scores."""
        return np.asarray(self.slope * scores + self.offset, np.float64)


class Isotonic(NamedTuple):
    """A rising step function from scores to probabilities (Zadrozny and Elkan, KDD 2002), by its corners."""

    scores: Sequence[float]
    probabilities: Sequence[float]

    def __call__(self, scores: Array) -> Doubles:
        """Probabilities of scores, between the corners on a straight line."""
        return np.interp(scores, self.scores, self.probabilities)


class Fusion(NamedTuple):
    """How the members' scores become one.

    `weighted`: alpha z_network + (1 - alpha) z_trees on calibrated log-odds; `stacking`: trees that read the network's
    logit; `residual`: trees that correct the network's logit; `rank`: reciprocal ranks, nothing fitted.
    `log_odds` are the members' calibrations on one slice; `calibration` (to probabilities) and `thresholds` are by
    scorer, fitted on a later one. A threshold is the probability from which a row is called positive, at the best F1.
    """

    kind: str
    alpha: float
    log_odds: Mapping[str, Platt]
    calibration: Mapping[str, Isotonic]
    thresholds: Mapping[str, float]

    def weighted(self, network: Doubles, trees: Doubles) -> Doubles:
        """The weighted score of the members' raw scores."""
        return weigh(self.alpha, self.log_odds["network"].log_odds(network), self.log_odds["trees"].log_odds(trees))

    def prior(self, recalled: Doubles, *, network: bool) -> Doubles:
        """What the order by `recalled` adds to a list's fused scores; to the trees' where the network was left out."""
        ranks = _ranks(recalled)
        if self.kind == "rank" and network:
            return _PRIOR_SHARE / (_RRF + ranks)
        # Trees' own scores are no log-odds.
        slope = 1.0 if network and self.kind in ("weighted", "residual") else self.log_odds["trees"].slope
        return np.asarray(-_PRIOR * np.log(ranks) / (slope if slope > 0 else 1.0), np.float64)

    def probabilities(self, scorer: str, scores: Doubles) -> Doubles:
        """Raw scores of `scorer` as probabilities."""
        return self.calibration[scorer](scores)


def weigh(alpha: float, network: Doubles, trees: Doubles) -> Doubles:
    """r = alpha r1 + (1 - alpha) r2."""
    return alpha * network + (1.0 - alpha) * trees


def by_rank(network: Doubles, trees: Doubles) -> Doubles:
    """The sum of 1 / (60 + rank) of one list's two orders."""
    return sum((1.0 / (_RRF + _ranks(scores)) for scores in (network, trees)), np.zeros(len(network)))


def _ranks(scores: Doubles) -> Doubles:
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def fit_platt(scores: Array, positive: Array) -> Platt:
    """Calibration of `scores` on labelled rows; a constant where the labels are all alike."""
    if positive.all() or not positive.any():
        return Platt(0.0, 10.0 if positive.all() else -10.0)
    # Imported here: only the training needs it, and a server starts half a second earlier without.
    from sklearn.linear_model import LogisticRegression

    scale = float(np.std(scores)) or 1.0
    fitted = LogisticRegression(C=1e6).fit(scores[:, None] / scale, positive)
    return Platt(float(fitted.coef_[0, 0]) / scale, float(fitted.intercept_[0]))


def fit_isotonic(scores: Array, positive: Array) -> Isotonic:
    """The rising function of least squared error on labelled rows."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(scores, positive.astype(np.float64))
    return Isotonic(fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist())


def fit_alpha(
    network: Sequence[Doubles],
    trees: Sequence[Doubles],
    grades: Sequence[Doubles],
    weights: Sequence[Doubles | float] | None = None,
    steps: int = 200,
) -> float:
    """The alpha that ranks best by gradient descent (Adam), on the members' calibrated log-odds of each list.

    Loss: softmax cross-entropy of each list against its normalised gains (ListNet, Cao et al., ICML 2007); a scale of
    the scores is fitted beside alpha, since the loss is not about their size. `weights` are what the rows of each list
    count, or all of them alike; 1 where there are none.
    """
    # Imported here, as scikit-learn is.
    import torch

    z1, z2 = _padded(network, -1e4), _padded(trees, -1e4)
    counts: Sequence[Doubles | float] = [1.0] * len(grades) if weights is None else weights
    plain = _padded([gains(each) for each in grades], 0.0)
    worth = _padded([gains(each) * count for each, count in zip(grades, counts, strict=True)], 0.0)
    told = plain.sum(1) > 0
    z1, z2, worth = z1[told], z2[told], worth[told] / plain[told].sum(1, keepdim=True)
    # As large as without weights, for which the steps are meant.
    worth = worth / worth.sum(1).mean()
    logit, scale = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    optimiser = torch.optim.Adam([logit, scale], lr=0.1)
    for _ in range(steps if len(worth) else 0):
        alpha = torch.sigmoid(logit)
        scores = scale.exp() * (alpha * z1 + (1 - alpha) * z2)
        loss = -(worth * scores.log_softmax(1)).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return float(torch.sigmoid(logit).item())


def _padded(lists: Sequence[Doubles], fill: float) -> "torch.Tensor":
    import torch

    table = np.full((len(lists), max(map(len, lists), default=0)), fill)
    for i, values in enumerate(lists):
        table[i, : len(values)] = values
    return torch.from_numpy(table)


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
