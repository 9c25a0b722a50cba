"""Whether probabilities are what they say: reliability bins, log loss, and calls at a threshold."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import log_loss, precision_recall_fscore_support

from indexer.arrays import Array, Doubles

BINS = 10
_LEAST = 1e-9


class Reliability(NamedTuple):
    """Rows in bins of about equal number, by rising probability: mean probability, share of positives, rows."""

    predicted: list[float]
    observed: list[float]
    rows: list[int]

    @property
    def error(self) -> float:
        """ECE: the mean distance of predicted and observed, by rows (Naeini et al., AAAI 2015; equal-mass bins)."""
        gaps = np.abs(np.subtract(self.predicted, self.observed))
        return float(np.average(gaps, weights=self.rows))


def reliability(probabilities: Doubles, positive: Array, bins: int = BINS) -> Reliability:
    """The calibration curve. Equal probabilities share a bin, so there may be fewer than `bins`."""
    edges = np.quantile(probabilities, np.linspace(0.0, 1.0, bins + 1)[1:-1])
    where = np.searchsorted(edges, probabilities)
    rows = np.bincount(where, minlength=bins)
    kept = rows > 0
    predicted = np.bincount(where, probabilities, bins)[kept] / rows[kept]
    observed = np.bincount(where, positive, bins)[kept] / rows[kept]
    return Reliability(predicted.tolist(), observed.tolist(), rows[kept].tolist())


def classification(probabilities: Doubles, positive: Array, threshold: float) -> dict[str, float]:
    """Log loss and ECE, and the calls made from `threshold` up. Empty where rows are all alike."""
    if positive.all() or not positive.any():
        return {}
    called = probabilities >= threshold
    precision, recall, f1, _ = precision_recall_fscore_support(positive, called, average="binary", zero_division=0.0)
    return {
        "log_loss": float(log_loss(positive, np.clip(probabilities, _LEAST, 1 - _LEAST))),
        "ece": reliability(probabilities, positive).error,
        "threshold": float(threshold),
        "accuracy": float((called == positive).mean()),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }
