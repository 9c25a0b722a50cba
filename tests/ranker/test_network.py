"""The DNN's forward pass: what may and what may not change a logit."""

import numpy as np
import pytest
import torch

from ranker.network import Network, NetworkInput

FEATURES, SPACE = 6, 8


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network(FEATURES, SPACE, FEATURES - 1).eval()


def batch(*sizes: int, length: int = 5, seed: int = 0) -> NetworkInput:
    """Requests of some numbers of candidates, with histories of different lengths, the first one empty."""
    draw = torch.Generator().manual_seed(seed)
    rows, requests = sum(sizes), len(sizes)
    told = torch.arange(requests)[:, None] % (length + 1)
    return NetworkInput(
        features=torch.randn(rows, FEATURES, generator=draw),
        candidates=torch.randn(rows, SPACE, generator=draw),
        request=torch.repeat_interleave(torch.arange(requests), torch.tensor(sizes)),
        queries=torch.randn(requests, SPACE, generator=draw),
        history=torch.randn(requests, length, SPACE, generator=draw),
        ages=torch.randint(0, 12, (requests, length), generator=draw),
        present=torch.arange(length)[None, :] < told,
    )


def only(x: NetworkInput, request: int) -> NetworkInput:
    mine, one = x.request == request, slice(request, request + 1)
    return NetworkInput(
        x.features[mine],
        x.candidates[mine],
        torch.zeros(int(mine.sum()), dtype=torch.int64),
        x.queries[one],
        x.history[one],
        x.ages[one],
        x.present[one],
    )


def scores(network: Network, x: NetworkInput) -> np.ndarray:
    with torch.inference_mode():
        return network(x).numpy()


def test_one_logit_for_each_candidate(network: Network) -> None:
    out = network(batch(3, 1, 4))
    assert out.shape == (8,)
    assert out.dtype == torch.float32
    assert torch.isfinite(out).all()


def test_requests_of_a_batch_do_not_see_each_other(network: Network) -> None:
    x = batch(3, 1, 40, 0, 7)
    alone = np.concatenate([scores(network, only(x, request)) for request in range(5) if (x.request == request).any()])
    np.testing.assert_allclose(scores(network, x), alone, rtol=1e-4, atol=1e-5)


def test_candidates_of_a_request_do_not_see_each_other(network: Network) -> None:
    x = only(batch(2, 9), 1)
    turned = x._replace(features=x.features.flip(0), candidates=x.candidates.flip(0))
    np.testing.assert_allclose(scores(network, turned)[::-1], scores(network, x), rtol=1e-4, atol=1e-5)


def test_a_place_moves_all_rows_alike(network: Network) -> None:
    # Only its own term may see the place: what ranks the rows of one place ranks those of another alike.
    x = batch(5, 3)
    first, fifth = (x._replace(features=x.features.index_fill(1, torch.tensor([FEATURES - 1]), p)) for p in (0.0, 1.6))
    moved = scores(network, fifth) - scores(network, first)
    np.testing.assert_allclose(moved, moved[0], atol=1e-5)
    assert abs(moved[0]) > 1e-3


def test_padding_of_the_history_does_not_matter(network: Network) -> None:
    x = batch(3, 2, 4)
    padded = x._replace(
        history=torch.cat([x.history, torch.full((3, 4, SPACE), 9.0)], 1),
        ages=torch.cat([x.ages, torch.full((3, 4), 11)], 1),
        present=torch.cat([x.present, torch.zeros(3, 4, dtype=torch.bool)], 1),
    )
    np.testing.assert_allclose(scores(network, padded), scores(network, x), rtol=1e-4, atol=1e-5)


def test_what_is_not_present_does_not_matter(network: Network) -> None:
    x = batch(3, 2, 4)
    changed = torch.where(x.present[:, :, None], x.history, torch.full_like(x.history, -7.0))
    np.testing.assert_allclose(scores(network, x._replace(history=changed)), scores(network, x), rtol=1e-4, atol=1e-5)


def test_what_is_present_does_matter(network: Network) -> None:
    x = only(batch(3, 2, 4), 2)
    changed = torch.where(x.present[:, :, None], -x.history, x.history)
    assert np.abs(scores(network, x._replace(history=changed)) - scores(network, x)).min() > 1e-6


def test_a_feature_that_does_not_apply_is_its_mean(network: Network) -> None:
    x = batch(4)
    network.standardise(torch.randn(100, FEATURES) * 3 + 2)
    missing, mean = x.features.clone(), x.features.clone()
    missing[:, 2], mean[:, 2] = torch.nan, network.mean[2]
    np.testing.assert_array_equal(
        scores(network, x._replace(features=missing)), scores(network, x._replace(features=mean))
    )
    assert np.isfinite(scores(network, x._replace(features=torch.full_like(x.features, torch.nan)))).all()


def test_standardise_looks_past_what_is_missing(network: Network) -> None:
    columns = torch.tensor([[1.0, torch.nan, 5.0], [3.0, torch.nan, 5.0], [torch.nan, torch.nan, 5.0]])
    network.standardise(columns)
    # The mean of 1 and 3 is 2 and their deviation 1; nothing is known of the second; the third never varies.
    assert network.mean.tolist() == [2.0, 0.0, 5.0]
    assert network.deviation.tolist() == pytest.approx([1.0, 1.0, 1e-3])


def test_outliers_are_clamped(network: Network) -> None:
    x = batch(2)
    far, further = (x._replace(features=torch.full_like(x.features, value)) for value in (1e3, 1e6))
    np.testing.assert_array_equal(scores(network, far), scores(network, further))


def test_standardisation_is_saved(network: Network) -> None:
    network.standardise(torch.randn(100, FEATURES) * 3 + 2)
    other = Network(FEATURES, SPACE, FEATURES - 1).eval()
    other.load_state_dict(network.state_dict())
    x = batch(3, 2)
    np.testing.assert_array_equal(scores(other, x), scores(network, x))


def test_the_logit_is_float32_whatever_comes_before(network: Network) -> None:
    """Rounded to bfloat16, a hundred of these thousand would equal another."""
    x = batch(1_000)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        out = network(x)
    assert out.dtype == torch.float32
    assert len(torch.unique(out)) > 990
    exact = scores(network, x)
    assert 0 < np.abs(out.numpy() - exact).max() < 0.02
