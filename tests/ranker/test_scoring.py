"""Lists to the network's input."""

import numpy as np
import pytest
import torch

from ranker.features import Context
from ranker.history import CLICK, EMPTY, VIEW, History
from ranker.network import Network, network_input
from ranker.recent import RECENT
from ranker.scoring import Scorable

NOW = 1_000_000.0
FEATURES, SPACE = 3, 4


@pytest.fixture
def space() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(20, SPACE)).astype(np.float32)


def item(*rows: int, history: History = EMPTY, query: np.ndarray | None = None) -> Scorable:
    x = np.random.default_rng(sum(rows)).normal(size=(len(rows), FEATURES)).astype(np.float32)
    return Scorable(Context(NOW, history, query_in_space=query), np.array(rows, np.int64), x)


def test_lists_lie_one_after_the_other(space: np.ndarray) -> None:
    query = np.arange(SPACE, dtype=np.float32)
    lists = [item(3, 1, history=History((5, 6), (VIEW, CLICK), (NOW - 90_000, NOW))), item(2, query=query)]
    made = network_input(lists, space)
    np.testing.assert_array_equal(made.features.numpy(), np.concatenate([each.features for each in lists]))
    np.testing.assert_array_equal(made.candidates.numpy(), space[[3, 1, 2]])
    assert made.request.tolist() == [0, 0, 1]
    assert made.queries.tolist() == [[0.0] * SPACE, query.tolist()]
    np.testing.assert_array_equal(made.history[0].numpy(), space[[5, 6]])
    assert made.ages[0].tolist() == [2, 0]
    assert made.present.tolist() == [[True, True], [False, False]]


def test_the_longest_history_decides_the_width(space: np.ndarray) -> None:
    long = History(tuple(i % 20 for i in range(80)), (VIEW,) * 80, tuple(map(float, range(80))))
    assert network_input([item(1), item(2)], space).history.shape == (2, 1, SPACE)
    assert network_input([item(1, history=long), item(2)], space).history.shape == (2, RECENT, SPACE)


def test_a_mapped_space_will_do(space: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("space") / "products.npy"
    np.save(path, space)
    lists = [item(3, 1, history=History((5,), (VIEW,), (NOW,)))]
    for mapped, held in zip(
        network_input(lists, np.load(path, mmap_mode="r")), network_input(lists, space), strict=True
    ):
        assert torch.equal(mapped, held)


def test_a_batch_scores_as_each_request_alone(space: np.ndarray) -> None:
    torch.manual_seed(0)
    network = Network(FEATURES, SPACE, FEATURES - 1).eval()
    histories = [
        History(tuple(range(n)), (VIEW,) * n, tuple(NOW - 4_000.0 * i for i in range(n, 0, -1))) for n in (0, 1, 9)
    ]
    lists = [item(*range(2 + n, 8 + 2 * n), history=history) for n, history in enumerate(histories)]
    with torch.inference_mode():
        together = network(network_input(lists, space)).numpy()
        alone = np.concatenate([network(network_input([each], space)).numpy() for each in lists])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
