"""The DNN as a card runs it against the network it is made from; all but the graphs runs on the CPU too."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from indexer.captured import Captured, Recorder
from ranker import card_network
from ranker.card_network import CardNetwork, graphs_of, lowered
from ranker.metrics import ndcg
from ranker.network import Network, network_input
from ranker.network_choice import AGREES
from ranker.network_probe import probe
from ranker.scoring import Scorable

FEATURES, SPACE, PRODUCTS = 11, 16, 300
CPU = torch.device("cpu")
FLOAT, HALF = torch.float32, torch.float16
on_each = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
Make = Callable[..., Network]


@pytest.fixture(params=[FEATURES - 1, 2, None])
def network(request: pytest.FixtureRequest, strong_network: Make) -> Network:
    return strong_network(FEATURES, request.param)


@pytest.fixture(scope="module")
def space() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(PRODUCTS, SPACE)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def some(network: Network, space: np.ndarray, *lengths: int) -> list[Scorable]:
    """Lists of some lengths, of all kinds in turn."""
    lists = probe(network, space, len(lengths), max(*lengths, 1))
    return [one._replace(rows=one.rows[:n], features=one.features[:n]) for one, n in zip(lists, lengths, strict=True)]


def exact(network: Network, lists: Sequence[Scorable], space: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return network(network_input(lists, space)).numpy()


@on_each
@pytest.mark.parametrize(
    "lengths",
    [
        (1,),
        (32,),
        (33,),
        (60, 60),
        (60, 1, 47),
        (5,) * 6,
        (30,) * 7,
        (20,) * 16,
        (9,) * 17,
        (300, 2),
        (0, 9),
        (9, 0, 3),
    ],
)
def test_its_logits_are_the_networks(
    device: str, lengths: tuple[int, ...], network: Network, space: np.ndarray
) -> None:
    lists = some(network, space, *lengths)
    card = CardNetwork(network, space, torch.device(device), FLOAT, 60)
    out, expected = card.logits(lists), exact(network, lists, space)
    assert out.dtype == np.float64
    assert expected.std() > 0.3 or len(expected) < 10
    # A card sums in another order.
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5 if device == "cpu" else 5e-5)


@on_each
def test_in_half_precision_logits_stay_within_what_is_asked(device: str, network: Network, space: np.ndarray) -> None:
    lists = some(network, space, *[300] * 12)
    card = CardNetwork(network, space, torch.device(device), HALF, 300)
    out, expected = (made.reshape(12, 300) for made in (card.logits(lists), exact(network, lists, space)))
    apart = np.abs(out - expected)
    # Rounded it is, but a hundredth of what tells lists' rows apart.
    assert 1e-5 < apart.max() <= AGREES[HALF]
    assert apart.max() < 0.02 * expected.std()
    # The last layer is not: hardly two of the 300 score alike.
    assert np.mean([len(np.unique(row)) for row in out]) > 298
    first = [set(np.argsort(-row, kind="stable")[:10].tolist()) for row in (*out, *expected)]
    assert np.mean([len(a & b) for a, b in zip(first[:12], first[12:], strict=True)]) > 9.8
    # The ten best by float32 as what was wanted.
    grades = [(row >= np.sort(row)[-10]).astype(float) for row in expected]
    assert np.mean([ndcg(row, wanted, np.empty(0)) for row, wanted in zip(out, grades, strict=True)]) > 0.999


def test_nothing_but_empty_lists(network: Network, space: np.ndarray) -> None:
    assert CardNetwork(network, space, CPU, FLOAT, 60).logits(some(network, space, 0, 0)).shape == (0,)


def test_many_lists_take_several_passes(network: Network, space: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = some(network, space, *range(40, 53))
    card = CardNetwork(network, space, CPU, FLOAT, 60)
    shapes: list[tuple[int, ...]] = []
    forward = card._forward
    monkeypatch.setattr(card, "_forward", lambda shape, memory: shapes.append(shape[:2]) or forward(shape, memory))
    expected = card.logits(lists)
    # Lists of 60 are filled up to 64, of which five fit: four a pass.
    monkeypatch.setattr(card_network, "_ROWS", 350)
    np.testing.assert_allclose(card.logits(lists), expected, atol=1e-5)
    assert shapes == [(16, 64), (4, 64), (4, 64), (4, 64), (1, 64)]
    # A list longer than a pass has one of its own.
    monkeypatch.setattr(card_network, "_ROWS", 10)
    np.testing.assert_allclose(card.logits(lists[:2]), expected[: 40 + 41], atol=1e-5)
    assert shapes[5:] == [(1, 64)] * 2


def test_a_logit_that_is_no_number_is_not_answered(strong_network: Make, space: np.ndarray) -> None:
    network = strong_network(FEATURES)
    network.cross[0].up.bias.data.fill_(3e4)
    lists = some(network, space, 20)
    assert np.isfinite(CardNetwork(network, space, CPU, FLOAT, 60).logits(lists)).all()
    with pytest.raises(FloatingPointError, match=r"beyond torch\.float16"):
        CardNetwork(network, space, CPU, HALF, 60).logits(lists)


def test_the_network_it_is_made_from_stays_as_it_is(network: Network, space: np.ndarray) -> None:
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    CardNetwork(network, space, CPU, HALF, 60).logits(some(network, space, 20))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_what_standardises_and_the_last_layer_are_not_rounded(network: Network) -> None:
    kept = {name for name, tensor in lowered(network.train(), HALF).state_dict().items() if tensor.dtype == FLOAT}
    assert {name.split(".")[0] for name in kept} == {"mean", "deviation", "seen", "logit"}
    assert not lowered(network, HALF).training


def test_what_it_holds(strong_network: Make, space: np.ndarray) -> None:
    for dtype, kind in ((FLOAT, "cpu (float32)"), (HALF, "cpu (float16)")):
        card = CardNetwork(strong_network(FEATURES), space, CPU, dtype, 60)
        assert (card.size, card.kind) == (PRODUCTS * SPACE * dtype.itemsize, kind)


def test_a_mapped_space_is_copied_in_parts(
    network: Network, space: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "products.npy", space)
    mapped = np.asarray(np.load(tmp_path / "products.npy", mmap_mode="r"))
    lists = some(network, space, 20, 40)
    whole = CardNetwork(network, space, CPU, FLOAT, 60).logits(lists)
    monkeypatch.setattr(card_network, "_UPLOAD", 70)
    np.testing.assert_array_equal(CardNetwork(network, mapped, CPU, FLOAT, 60).logits(lists), whole)


@on_each
def test_several_threads_at_once(device: str, network: Network, space: np.ndarray) -> None:
    card = CardNetwork(network, space, torch.device(device), FLOAT, 60)
    batches = [some(network, space, *[20 + i] * (i % 3 + 1)) for i in range(12)]
    expected = [card.logits(each) for each in batches]
    with ThreadPoolExecutor(4) as pool:
        for i, out in enumerate(pool.map(lambda i: card.logits(batches[i % 12]), range(120))):
            np.testing.assert_allclose(out, expected[i % 12], atol=1e-5)


class Replayed:
    """Stands for a graph: it computes anew into memory of its own."""

    def __init__(self, work: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        self._work, self._fixed = work, [each.clone() for each in inputs]
        self._result, self.replays = work(*self._fixed).clone(), 0

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        self.replays += 1
        for fixed, given in zip(self._fixed, inputs, strict=True):
            fixed.copy_(given)
        return self._result.copy_(self._work(*self._fixed))


class Recording:
    """Stands for what records graphs."""

    def __init__(self, error: Exception | None = None) -> None:
        self.made: list[Replayed] = []
        self.asked, self._error = 0, error

    def record(self, work: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Captured:
        self.asked += 1
        if self._error:
            raise self._error
        self.made.append(Replayed(work, inputs))
        return self.made[-1]

    def __call__(self, device: torch.device) -> Recorder | None:
        return self


def test_passes_of_the_usual_length_are_recorded_once_a_shape(network: Network, space: np.ndarray) -> None:
    recording = Recording()
    card = CardNetwork(network, space, CPU, FLOAT, 60, recording)
    for lengths in ((60, 60), (3, 64), (40, 1), (60,), (12, 50, 3), (1, 2, 3, 4)):
        lists = some(network, space, *lengths)
        np.testing.assert_allclose(card.logits(lists), exact(network, lists, space), rtol=1e-5, atol=1e-5)
    # Two lists three times, one list once, and three and four as four.
    assert [each.replays for each in recording.made] == [3, 1, 2]


def test_what_one_replay_made_outlives_the_next(network: Network, space: np.ndarray) -> None:
    card = CardNetwork(network, space, CPU, FLOAT, 60, Recording())
    one, other = some(network, space, 60, 50)
    first = card.logits([one])
    kept = first.copy()
    card.logits([other])
    np.testing.assert_array_equal(first, kept)


def test_longer_lists_and_more_of_them_are_not_recorded(network: Network, space: np.ndarray) -> None:
    recording = Recording()
    card = CardNetwork(network, space, CPU, FLOAT, 60, recording)
    for lengths in ((65,), (3, 200), (2,) * 17):
        lists = some(network, space, *lengths)
        np.testing.assert_allclose(card.logits(lists), exact(network, lists, space), rtol=1e-5, atol=1e-5)
    assert recording.asked == 0


def test_a_network_that_cannot_be_recorded_runs_all_the_same(
    network: Network, space: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    recording = Recording(RuntimeError("not while a stream is captured"))
    card = CardNetwork(network, space, CPU, FLOAT, 60, recording)
    lists = some(network, space, 60, 60)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_allclose(card.logits(lists), exact(network, lists, space), rtol=1e-5, atol=1e-5)
    assert recording.asked == 1
    [record] = caplog.records
    assert record.getMessage() == "The DNN runs on cpu without CUDA graphs: not while a stream is captured"


def test_memory_that_ran_out_while_recording_is_the_callers(network: Network, space: np.ndarray) -> None:
    recording = Recording(torch.OutOfMemoryError("no memory left"))
    card = CardNetwork(network, space, CPU, FLOAT, 60, recording)
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            card.logits(some(network, space, 60))
    assert recording.asked == 2


def test_the_cpu_records_nothing() -> None:
    assert graphs_of(CPU) is None


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [FLOAT, HALF])
def test_a_graph_answers_as_its_kernels_do(
    dtype: torch.dtype, network: Network, space: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    card = CardNetwork(network, space, torch.device("cuda:0"), dtype, 300)
    plain = CardNetwork(network, space, torch.device("cuda:0"), dtype, 300, lambda _: None)
    with caplog.at_level(logging.WARNING):
        for count in (1, 2, 3, 5, 16, 1, 3):
            lists = some(network, space, *[250 + count] * count)
            np.testing.assert_allclose(card.logits(lists), plain.logits(lists), rtol=1e-5, atol=AGREES[dtype] / 10)
    assert {shape.lists for shape in card._captured} == {1, 2, 4, 8, 16}
    assert not caplog.records
