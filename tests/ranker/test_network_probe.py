"""Lists made up for a network: of all kinds, of the features' own scale, and the same each time."""

import numpy as np
import torch

from ranker.network import Network
from ranker.network_probe import probe
from ranker.recent import RECENT

FEATURES, SPACE = 5, 8


def network(place: int | None) -> Network:
    made = Network(FEATURES, SPACE, place)
    made.mean, made.deviation = torch.tensor([0.0, 1e3, -5.0, 0.0, 7.0]), torch.tensor([1.0, 1e2, 1e-3, 1.0, 1.0])
    return made.eval()


SPACED = np.random.default_rng(0).normal(size=(40, SPACE)).astype(np.float32)


def test_lists_of_all_kinds() -> None:
    lists = probe(network(None), SPACED, 6, 30)
    kinds = {(len(each.context.history.rows), each.context.query_in_space is not None) for each in lists}
    assert kinds == {(engagements, query) for engagements in (0, 10, RECENT) for query in (True, False)}
    assert (len(lists[0].context.history.rows), lists[0].context.query_in_space is not None) == (10, True)
    assert {len(each.rows) for each in lists} == {30}
    rows = np.concatenate([np.append(each.rows, each.context.history.rows) for each in lists])
    assert (rows.min(), rows.max()) == (0, len(SPACED) - 1)
    assert all(max(each.context.history.times, default=0.0) < each.context.now for each in lists)


def test_features_are_of_the_training_slices_scale() -> None:
    x = np.concatenate([each.features for each in probe(network(4), SPACED, 10, 300)])
    assert x.dtype == np.float32
    assert 0.08 < np.isnan(x[:, :4]).mean() < 0.12
    mean, deviation = np.array([0.0, 1e3, -5.0]), np.array([1.0, 1e2, 1e-3])
    np.testing.assert_allclose((np.nanmean(x[:, :3], 0) - mean) / deviation, 0.0, atol=0.1)
    np.testing.assert_allclose(np.nanstd(x[:, :3], 0), deviation, rtol=0.05)
    # A served row is at the first place.
    assert (x[:, 4] == 0.0).all()


def test_the_same_each_time() -> None:
    one, other = (probe(network(4), SPACED, 3, 20) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.features, second.features)
        np.testing.assert_array_equal(first.rows, second.rows)
        assert first.context.history == second.context.history
