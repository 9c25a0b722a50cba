"""Weights of the recall channels: never worse than equal ones, and noise is silenced."""

import numpy as np
import pytest

from ranker.recall import Channel
from ranker.recall_weights import Sample, fit_weights, mean_recall


def channel(name: str, rows: np.ndarray | list[int]) -> Channel:
    return Channel(name, np.array(rows, np.int64), np.zeros(len(rows)))


def drawn(seed: int, samples: int = 25) -> list[Sample]:
    """Three channels that find the wanted rows more or less early, each absent now and then."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(samples):
        wanted = rng.choice(200, 3, replace=False)
        channels = [channel("always", rng.permutation(200)[:30])]
        for name, share in (("good", 0.9), ("fair", 0.5), ("poor", 0.1)):
            if rng.random() < 0.8:
                hits = wanted[rng.random(3) < share]
                rows = rng.permutation(np.concatenate([hits, rng.permutation(200)[:20]]))
                channels.append(channel(name, rows[np.sort(np.unique(rows, return_index=True)[1])]))
        made.append(Sample(channels, wanted))
    return made


@pytest.mark.parametrize("depth", [5, 15])
@pytest.mark.parametrize("seed", range(6))
def test_never_worse_than_equal_weights(seed: int, depth: int) -> None:
    samples = drawn(seed)
    weights = fit_weights(samples, depth)
    assert set(weights) == {"always", "good", "fair", "poor"}
    assert mean_recall(samples, weights, depth) >= mean_recall(samples, dict.fromkeys(weights, 1.0), depth)


def test_a_channel_of_noise_is_silenced() -> None:
    """What is wanted stands in the first channel; the second fills the places with other rows."""
    samples = [
        Sample([channel("right", [i, i + 1]), channel("noise", [50, 60, 70])], np.array([i, i + 1])) for i in range(9)
    ]
    weights = fit_weights(samples, 2)
    assert weights["noise"] < weights["right"]
    assert mean_recall(samples, weights, 2) == 1.0
    assert mean_recall(samples, {"right": 1.0, "noise": 1.0}, 2) == 0.5


def test_what_chance_alone_would_move_stays_equal() -> None:
    """Weights that make no difference are left at 1, and so is the only channel there is."""
    twice = [Sample([channel("one", [1, 2]), channel("other", [1, 2])], np.array([1]))]
    assert fit_weights(twice) == {"one": 1.0, "other": 1.0}
    assert fit_weights([Sample([channel("one", [1, 2])], np.array([9]))]) == {"one": 1.0}
    assert fit_weights([]) == {}


def test_mean_recall_is_the_mean_share_found() -> None:
    samples = [
        Sample([channel("a", [1, 2, 3])], np.array([1, 3])),
        Sample([channel("a", [4, 5])], np.array([5, 6, 7])),
        Sample([channel("a", [8])], np.empty(0, np.int64)),
    ]
    assert mean_recall(samples, {}, 2) == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert mean_recall([], {}) == 0.0
