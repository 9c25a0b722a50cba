"""The DNN of serving against the network it is made from."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ranker.compiled_network import CompiledNetwork
from ranker.features import Context
from ranker.history import CLICK, EMPTY, VIEW, History
from ranker.network import Network, network_input
from ranker.recent import RECENT
from ranker.scoring import Scorable

NOW = 1_000_000_000.0
FEATURES, SPACE, PRODUCTS = 11, 16, 300


def trained(place: int | None, seed: int = 0, scale: float = 2.0) -> Network:
    """A network with features of all scales, one that is never known and one that never varies."""
    torch.manual_seed(seed)
    network = Network(FEATURES, SPACE, place)
    for weights in network.parameters():
        # Untrained ones are so small that half of the network could be missing unseen.
        weights.data.mul_(scale)
    columns = torch.randn(200, FEATURES) * torch.logspace(-2, 4, FEATURES) + torch.logspace(3, -2, FEATURES)
    columns[:, 3], columns[:, 4] = torch.nan, 7.0
    network.standardise(columns)
    return network.eval()


@pytest.fixture(params=[FEATURES - 1, 2, None])
def network(request: pytest.FixtureRequest) -> Network:
    return trained(request.param)


@pytest.fixture(scope="module")
def space() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(PRODUCTS, SPACE)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def item(network: Network, rows: int, engagements: int, query: bool, seed: int = 0) -> Scorable:
    """One list, a tenth of whose features do not apply; others lie far out."""
    rng = np.random.default_rng([rows, engagements, query, seed])
    x = network.mean.numpy() + network.deviation.numpy() * 3 * rng.normal(size=(rows, FEATURES))
    x[rng.random(x.shape) < 0.1] = np.nan
    x[rng.random(x.shape) < 0.02] = np.inf
    times = tuple(np.sort(NOW - 10 ** rng.uniform(1, 8, engagements)).tolist())
    kinds = tuple(rng.choice([VIEW, CLICK], engagements).tolist())
    history = History(tuple(rng.integers(0, PRODUCTS, engagements).tolist()), kinds, times)
    context = Context(NOW, history, query_in_space=rng.normal(size=SPACE).astype(np.float32) if query else None)
    return Scorable(context, rng.integers(0, PRODUCTS, rows), x.astype(np.float32))


def exact(network: Network, lists: Sequence[Scorable], space: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(network_input(lists, space)).numpy()


def check(network: Network, lists: Sequence[Scorable], space: np.ndarray) -> None:
    out, expected = CompiledNetwork.of(network).logits(lists, space), exact(network, lists, space)
    assert out.dtype == np.float64
    assert expected.std() > 0.3 or len(expected) < 10
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("query", [False, True])
@pytest.mark.parametrize("engagements", [0, 1, 7, RECENT, RECENT + 30])
@pytest.mark.parametrize("rows", [1, 60])
def test_its_logits_are_the_network_s(
    network: Network, space: np.ndarray, rows: int, engagements: int, query: bool
) -> None:
    check(network, [item(network, rows, engagements, query)], space)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_weights(space: np.ndarray, seed: int) -> None:
    network = trained(FEATURES - 1, seed, scale=1.0 + seed / 4)
    check(network, [item(network, 40, 9, True, seed), item(network, 40, 20, False, seed)], space)


def test_lists_of_all_kinds_in_one_batch(network: Network, space: np.ndarray) -> None:
    kinds = [(60, 0, False), (1, 80, True), (200, 12, False), (0, 3, True), (3, 0, True), (30, 50, True)]
    lists = [item(network, *kind) for kind in kinds]
    check(network, lists, space)
    compiled = CompiledNetwork.of(network)
    alone = np.concatenate([compiled.logits([each], space) for each in lists])
    np.testing.assert_array_equal(compiled.logits(lists, space), alone)


def test_the_served_size(space: np.ndarray) -> None:
    torch.manual_seed(0)
    network = Network(75, SPACE, 74)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1_000, 75)).astype(np.float32)
    lists = [Scorable(Context(NOW, EMPTY), rng.integers(0, PRODUCTS, 1_000), features)]
    np.testing.assert_allclose(
        CompiledNetwork.of(network).logits(lists, space), exact(network.eval(), lists, space), atol=1e-4
    )


def test_no_query_is_a_query_of_zeros(network: Network, space: np.ndarray) -> None:
    none = item(network, 30, 9, False)
    zeros = none._replace(context=none.context._replace(query_in_space=np.zeros(SPACE, np.float32)))
    compiled = CompiledNetwork.of(network)
    np.testing.assert_allclose(compiled.logits([none], space), compiled.logits([zeros], space), atol=1e-4)


def test_nothing_known_of_a_list(network: Network, space: np.ndarray) -> None:
    known = item(network, 30, 9, True)
    check(network, [known._replace(features=np.full_like(known.features, np.nan))], space)


def test_places_that_differ_by_row(space: np.ndarray) -> None:
    network = trained(FEATURES - 1)
    shown = item(network, 30, 9, True)
    shown.features[:, FEATURES - 1] = np.linspace(0.0, 3.0, 30)
    check(network, [shown], space)


def test_a_mapped_space_will_do(network: Network, space: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "products.npy", space)
    lists = [item(network, 30, 9, True)]
    mapped = np.load(tmp_path / "products.npy", mmap_mode="r")
    compiled = CompiledNetwork.of(network)
    np.testing.assert_array_equal(compiled.logits(lists, mapped), compiled.logits(lists, space))


def test_what_it_is_given_stays_as_it_is(network: Network, space: np.ndarray) -> None:
    given = item(network, 30, 9, True)
    assert given.context.query_in_space is not None
    for array in (given.features, given.rows, given.context.query_in_space):
        array.setflags(write=False)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    compiled = CompiledNetwork.of(network)
    first = compiled.logits([given], space)
    np.testing.assert_array_equal(compiled.logits([given], space), first)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_several_threads_at_once(network: Network, space: np.ndarray) -> None:
    compiled = CompiledNetwork.of(network)
    lists = [item(network, 20 + i, 3 * i, i % 2 == 0, i) for i in range(12)]
    expected = [compiled.logits([each], space) for each in lists]
    with ThreadPoolExecutor(4) as pool:
        for i, out in enumerate(pool.map(lambda i: compiled.logits([lists[i % 12]], space), range(240))):
            np.testing.assert_array_equal(out, expected[i % 12])
