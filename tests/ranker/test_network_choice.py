"""Where the DNN is served is decided by room, agreement and time, and what a card cannot do is done in NumPy."""

import gc
import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch

from indexer import fallbacks
from indexer.arrays import Doubles, Floats
from indexer.room import RESERVE
from ranker import network_choice
from ranker.card_network import CardNetwork
from ranker.compiled_network import CompiledNetwork
from ranker.network import Network
from ranker.network_choice import SIZES, SharedNetwork, on_card, placed, verdict, won
from ranker.network_probe import probe
from ranker.scoring import Scorable

CPU = torch.device("cpu")
FEATURES, ROWS = 11, 60
GIB = 2**30


@pytest.fixture(scope="module")
def space() -> Floats:
    vectors = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def network(strong_network: Callable[..., Network]) -> Network:
    return strong_network(FEATURES, FEATURES - 1)


@pytest.fixture
def lists(network: Network, space: Floats) -> list[Scorable]:
    return probe(network, space, 5, ROWS, seed=1)


class Clock:
    """A clock that only work moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def roomy(device: torch.device) -> tuple[int, int, int]:
    return 2 * RESERVE, 2 * RESERVE, 0


Cost = Callable[[int], float]


class Setting:
    """A card and NumPy whose times for so many lists are made up; the card's first pass of a shape takes a minute."""

    def __init__(self, network: Network, space: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
        self._network, self._space, self._monkeypatch = network, space, monkeypatch
        self.clock, self.made = Clock(), list[CardNetwork]()

    def placed(
        self, card: Cost = lambda n: 1.0, numpy: Cost = lambda n: 2.0 * n, look: Any = roomy, **faults: Any
    ) -> CompiledNetwork | SharedNetwork:
        clock, made = self.clock, self.made

        class Card(CardNetwork):
            def __init__(self, network: Network, space: Floats, device: torch.device, dtype: Any, usual: int) -> None:
                if error := faults.get("making"):
                    raise error
                super().__init__(network, space, device, dtype, usual)
                made.append(self)
                self._met: set[int] = set()

            def logits(self, lists: Sequence[Scorable]) -> Doubles:
                clock.now += card(len(lists)) if len(lists) in self._met else 60.0
                self._met.add(len(lists))
                return super().logits(lists) + faults.get("off", {}).get(self.dtype, 0.0)

        class Compiled(CompiledNetwork):
            def logits(self, lists: Sequence[Scorable], space: Floats) -> Doubles:
                clock.now += numpy(len(lists))
                return super().logits(lists, space)

        self._monkeypatch.setattr(network_choice, "CardNetwork", Card)
        compiled = Compiled.of(self._network)
        return placed(self._network, compiled, self._space, ROWS, CPU, look, self.clock)


@pytest.fixture
def setting(network: Network, space: Floats, monkeypatch: pytest.MonkeyPatch) -> Setting:
    gc.collect()
    assert not len(network_choice._there)
    return Setting(network, space, monkeypatch)


@pytest.mark.parametrize(
    ("card", "numpy", "least"),
    [
        ((1, 1, 1), (2, 2, 2), 1),
        ((3, 1, 1), (2, 2, 2), 4),
        ((3, 3, 1), (2, 2, 2), 16),
        ((3, 3, 3), (2, 2, 2), None),
        ((2, 2, 2), (2, 2, 2), None),
        # Once it is faster, more lists must not make it slower.
        ((1, 3, 1), (2, 2, 2), 16),
        ((1, 1, 3), (2, 2, 2), None),
    ],
)
def test_the_fewest_lists_that_are_faster_there(card: tuple[int, ...], numpy: tuple[int, ...], least: int) -> None:
    assert won(card, numpy) == least


@pytest.mark.parametrize(
    ("cost", "least", "kind"),
    [
        (1.0, 1, "cpu (float16)"),
        (5.0, 4, "cpu (float16) from 4 lists on"),
        (20.0, 16, "cpu (float16) from 16 lists on"),
    ],
)
def test_the_card_is_used_where_it_is_faster(
    setting: Setting, cost: float, least: int, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """NumPy takes two seconds a list, the card as long for all as for one."""
    with caplog.at_level(logging.INFO):
        served = setting.placed(card=lambda n: cost)
    assert isinstance(served, SharedNetwork)
    assert (served._least, served.kind) == (least, kind)
    agreed, told = (record.getMessage() for record in caplog.records)
    assert "within 0.00" in agreed
    assert told.startswith(f"The DNN is served on {kind}; milliseconds for lists of {ROWS} products")
    assert f"1: {1e3 * cost:.2f} and 2000.00, 4: {1e3 * cost:.2f} and 8000.00" in told


def test_numpy_stays_where_it_is_faster(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        served = setting.placed(card=lambda n: 3.0 * n)
    assert isinstance(served, CompiledNetwork)
    assert served.kind == "NumPy"
    assert "served in NumPy, which is faster than cpu (float16)" in caplog.records[-1].getMessage()
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


def test_the_least_time_counts(setting: Setting) -> None:
    """Whatever else a machine does only adds: every other pass takes far longer."""
    passes = iter(range(10_000))
    served = setting.placed(card=lambda n: 1.0 if next(passes) % 2 else 100.0)
    assert cast(SharedNetwork, served)._least == 1


def test_every_shape_is_met_before_it_is_served(setting: Setting) -> None:
    served = setting.placed(card=lambda n: 5.0)
    assert cast(Any, setting.made[0])._met >= {4, 8, 16}
    assert isinstance(served, SharedNetwork)


def test_half_precision_that_disagrees_is_not_used(setting: Setting) -> None:
    served = setting.placed(off={torch.float16: 0.02})
    assert served.kind == "cpu (float32)"
    assert [card.dtype for card in setting.made] == [torch.float16, torch.float32]


def test_a_card_whose_logits_are_wrong_is_not_used(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        served = setting.placed(off={torch.float16: 0.02, torch.float32: 0.002})
    assert isinstance(served, CompiledNetwork)
    [record] = caplog.records
    assert record.getMessage().startswith("The DNN is served in NumPy in place of cpu: its logits in torch.float16 are")
    assert "torch.float32 are off by 0.0020." in record.getMessage()


def test_logits_beyond_half_precision(
    strong_network: Callable[..., Network], space: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = strong_network(FEATURES, FEATURES - 1)
    # Of the order of what a half can hold in the cross layer, and small again in the logit.
    network.cross[0].up.bias.data.fill_(3e4)
    network.logit.weight.data.mul_(1e-5)
    assert Setting(network, space, monkeypatch).placed().kind == "cpu (float32)"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no memory left"), RuntimeError("no memory left"), OSError("no memory left")]
)
def test_a_card_that_fails_at_the_start_is_not_used(
    setting: Setting, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    before = fallbacks.counted().get("DNN", 0)
    with caplog.at_level(logging.WARNING):
        served = setting.placed(making=error)
    assert isinstance(served, CompiledNetwork)
    assert fallbacks.counted()["DNN"] == before + 1
    assert [record.getMessage() for record in caplog.records] == [
        "The DNN is served in NumPy in place of cpu: no memory left."
    ]


@pytest.mark.parametrize(
    ("free", "held", "follows", "fits"),
    [
        (2 * GIB, 0, False, True),
        (2 * GIB - 1, 0, False, False),
        # What is there must fit once more beside the two of them.
        (5 * GIB, 3 * GIB, False, True),
        (5 * GIB - 1, 3 * GIB, False, False),
        (1 * GIB, 3 * GIB, True, True),
        (1 * GIB - 1, 3 * GIB, True, False),
    ],
)
def test_the_release_that_follows_has_room_too(free: int, held: int, follows: bool, fits: bool) -> None:
    why = verdict(GIB, follows, (RESERVE + free, 80 * GIB, held))
    assert (why is None) is fits
    if why:
        assert "the product space needs 1.00 GiB" in why
        assert ("for the release that follows" in why) is not follows
        assert why.endswith("of 80.00 GiB are free")


def test_a_card_without_room(setting: Setting, space: Floats, caplog: pytest.LogCaptureFixture) -> None:
    size = space.size * 2
    with caplog.at_level(logging.WARNING):
        refused = setting.placed(look=lambda _: (RESERVE + 2 * size - 1, GIB, 0))
    assert isinstance(refused, CompiledNetwork)
    assert not setting.made
    [record] = caplog.records
    assert "the product space needs 0.00 GiB" in record.getMessage()
    assert isinstance(setting.placed(look=lambda _: (RESERVE + 2 * size, GIB, 0)), SharedNetwork)


def test_a_follower_is_admitted_by_itself_while_its_predecessor_lives(setting: Setting, space: Floats) -> None:
    size = space.size * 2
    first = setting.placed()
    second = setting.placed(look=lambda _: (RESERVE + size, GIB, 10 * GIB))
    assert isinstance(second, SharedNetwork)
    del first, second
    setting.made.clear()
    gc.collect()
    assert isinstance(setting.placed(look=lambda _: (RESERVE + size, GIB, 0)), CompiledNetwork)


def shared(network: Network, space: Floats, least: int) -> SharedNetwork:
    return SharedNetwork(CardNetwork(network, space, CPU, torch.float16, ROWS), CompiledNetwork.of(network), least)


def test_fewer_lists_are_scored_in_numpy(network: Network, space: Floats, lists: list[Scorable]) -> None:
    served, compiled = shared(network, space, 4), CompiledNetwork.of(network)
    np.testing.assert_array_equal(served.logits(lists[:3], space), compiled.logits(lists[:3], space))
    apart = np.abs(served.logits(lists[:4], space) - compiled.logits(lists[:4], space))
    assert 1e-5 < apart.max() < 0.01


def test_vectors_of_another_space_are_scored_in_numpy(network: Network, space: Floats, lists: list[Scorable]) -> None:
    other = space[::-1].copy()
    out = shared(network, space, 1).logits(lists, other)
    np.testing.assert_array_equal(out, CompiledNetwork.of(network).logits(lists, other))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (torch.OutOfMemoryError("no memory left"), True),
        (FloatingPointError("a logit is beyond float16"), True),
        (RuntimeError("illegal memory access"), False),
    ],
)
def test_what_the_card_cannot_do_is_done_in_numpy_and_told_once(
    error: Exception, again: bool, network: Network, space: Floats, lists: list[Scorable], caplog: Any
) -> None:
    calls: list[int] = []

    class Failing(CardNetwork):
        def logits(self, lists: Sequence[Scorable]) -> Doubles:
            calls.append(len(lists))
            raise error

    compiled, before = CompiledNetwork.of(network), fallbacks.counted().get("DNN", 0)
    served = SharedNetwork(Failing(network, space, CPU, torch.float32, ROWS), compiled, 1)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_array_equal(served.logits(lists, space), compiled.logits(lists, space))
    assert len(calls) == (3 if again else 1)
    assert fallbacks.counted()["DNN"] == before + 3
    assert served.kind == ("cpu (float32)" if again else "NumPy")
    assert [each.getMessage() for each in caplog.records] == [f"The DNN is served in NumPy in place of cpu: {error}."]


def test_a_worker_beside_a_card_process_leaves_the_card_alone(
    network: Network, space: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network_choice, "in_use", object)
    monkeypatch.setattr(network_choice, "placed", None)
    assert type(on_card(network, space, ROWS, torch.device("cuda"))) is CompiledNetwork


def test_a_card_is_asked_for_by_its_number(network: Network, space: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(network_choice, "placed", lambda *given: asked.append(given))
    on_card(network, space, ROWS, torch.device("cuda"))
    on_card(network, space, ROWS, torch.device("cuda:1"))
    assert [given[4] for given in asked] == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert all(given[0] is network and given[2] is space and given[3] == ROWS for given in asked)


@pytest.mark.gpu
def test_on_a_card_it_agrees_whatever_is_chosen(
    network: Network, space: Floats, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        served = on_card(network, space, 300, torch.device("cuda:0"))
    assert not caplog.records
    lists = probe(network, space, SIZES[-1], 300, seed=2)
    expected = CompiledNetwork.of(network).logits(lists, space)
    np.testing.assert_allclose(served.logits(lists, space), expected, atol=0.01)
