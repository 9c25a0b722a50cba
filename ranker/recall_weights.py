"""What each recall channel's vote counts, fitted on requests whose wanted products are known."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexer.arrays import Ints
from ranker.recall import Channel, fuse

# Found by coordinate ascent over these, so many times round.
_STEPS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
_ROUNDS = 2
# Places of the fused list that count.
_DEPTH = 100


class Sample(NamedTuple):
    """What the channels proposed for one request, and the rows that were wanted."""

    channels: Sequence[Channel]
    wanted: Ints


def fit_weights(samples: Sequence[Sample], depth: int = _DEPTH, kind: str = "user") -> dict[str, float]:
    """The weights, by channel, of the greatest mean recall among the first `depth` that coordinate ascent finds.

    A channel keeps its weight unless another one is better, so that chance alone moves nothing.
    """
    weights = {channel.name: 1.0 for sample in samples for channel in sample.channels}
    best = mean_recall(samples, weights, depth, kind)
    for _ in range(_ROUNDS):
        for name in weights:
            for step in _STEPS:
                tried = weights | {name: step}
                if any(tried.values()) and (recall := mean_recall(samples, tried, depth, kind)) > best:
                    weights, best = tried, recall
    return weights


def mean_recall(samples: Sequence[Sample], weights: dict[str, float], depth: int = _DEPTH, kind: str = "user") -> float:
    """The mean share of the wanted rows among the first `depth` fused candidates; 0 without samples."""
    shares = [np.isin(s.wanted, fuse(s.channels, depth, weights, kind).rows).mean() for s in samples if len(s.wanted)]
    return float(np.mean(shares)) if shares else 0.0
