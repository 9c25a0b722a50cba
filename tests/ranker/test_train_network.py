"""The DNN's training: it learns from features and from vectors, and the same from the same seed."""

import numpy as np
import pytest
import torch

from ranker import train_network
from ranker.config import RankerConfig
from ranker.examples import Example
from ranker.features import Context
from ranker.history import VIEW, History
from ranker.network import Network
from ranker.train_network import fit_network, logits, mean_ndcg

CPU = torch.device("cpu")
NOW = 1_000_000.0
PRODUCTS, SPACE, LIST = 60, 8, 10


@pytest.fixture(scope="module")
def space() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(PRODUCTS, SPACE)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def by_feature(count: int, seed: int, length: int = LIST) -> list[Example]:
    """The row with the largest first feature was clicked; a fifth of the second feature is missing."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        x = rng.normal(size=(length, 3)).astype(np.float32)
        grades = np.zeros(length)
        grades[x[:, 0].argmax()] = 1.0
        x[rng.random(length) < 0.2, 1] = np.nan
        context = Context(NOW, History((int(rng.integers(PRODUCTS)),), (VIEW,), (NOW - 5_000,)))
        examples.append(Example(context, rng.integers(0, PRODUCTS, length), x, grades, np.empty(0), np.empty(0)))
    return examples


def by_history(count: int, seed: int) -> list[Example]:
    """The product seen last was clicked; the features say nothing."""
    rng = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        rows = rng.choice(PRODUCTS, LIST, replace=False)
        wanted = int(rng.integers(LIST))
        context = Context(NOW, History((int(rows[wanted]),), (VIEW,), (NOW - 5_000,)))
        x = rng.normal(size=(LIST, 3)).astype(np.float32)
        examples.append(Example(context, rows, x, np.eye(LIST)[wanted], np.empty(0), np.empty(0)))
    return examples


def fitted(train: list[Example], later: list[Example], space: np.ndarray, **settings: int) -> tuple[Network, list[str]]:
    said: list[str] = []
    return fit_network(train, later, space, RankerConfig(**settings), CPU, said.append, place=None).network, said


def test_learns_from_a_feature(space: np.ndarray) -> None:
    test = by_feature(60, 2)
    network, said = fitted(by_feature(300, 0), by_feature(60, 1), space, network_epochs=8)
    scores = logits(network, test, space, CPU)
    assert [len(each) for each in scores] == [LIST] * 60
    assert mean_ndcg(scores, test) > 0.9
    assert said[0].startswith("DNN, pass 1.1: loss ")


def test_learns_from_the_history(space: np.ndarray) -> None:
    test = by_history(60, 2)
    network, _ = fitted(by_history(2_000, 0), by_history(60, 1), space, network_epochs=8)
    assert mean_ndcg(logits(network, test, space, CPU), test) > 0.8
    assert mean_ndcg([np.random.default_rng(i).random(LIST) for i in range(60)], test) < 0.6


def test_the_click_loss_calibrates(space: np.ndarray) -> None:
    network, _ = fitted(by_feature(1_500, 0), by_feature(60, 1), space, network_epochs=8)
    p = 1 / (1 + np.exp(-np.concatenate(logits(network, by_feature(100, 2), space, CPU))))
    assert p.mean() == pytest.approx(1 / LIST, abs=0.05)


def test_long_lists_are_drawn_from(space: np.ndarray) -> None:
    """A list of 200 holds far more than a step looks at, and its one click is always among them."""
    test = by_feature(30, 2, length=200)
    network, _ = fitted(by_feature(120, 0, length=200), by_feature(30, 1, length=200), space, network_epochs=6)
    assert mean_ndcg(logits(network, test, space, CPU), test) > 0.7


def test_stops_when_a_later_slice_no_longer_improves(space: np.ndarray) -> None:
    """Labels drawn at random on the later slice: no pass is better for long."""
    network, said = fitted(by_feature(60, 0), by_history(40, 1), space, network_epochs=60)
    assert len(said) < 60
    best = max(float(line.rsplit(" ", 1)[1]) for line in said)
    assert mean_ndcg(logits(network, by_history(40, 1), space, CPU), by_history(40, 1)) == pytest.approx(best, abs=1e-3)


def test_what_is_kept_is_measured_twice_a_pass(space: np.ndarray) -> None:
    """Of a log of one step a pass there is one measurement; what is kept is the best of all."""
    _, said = fitted(by_feature(96, 0), by_feature(30, 1), space, network_epochs=2)
    assert [line.split(":")[0] for line in said] == [f"DNN, pass {place}" for place in ("1.1", "1.2", "2.1", "2.2")]
    _, said = fitted(by_feature(20, 0), by_feature(30, 1), space, network_epochs=2)
    assert [line.split(":")[0] for line in said] == ["DNN, pass 1.1", "DNN, pass 2.1"]


@pytest.mark.parametrize("count", [20, 96])
def test_trained_as_long_on_the_same_lists_it_is_the_same_network(space: np.ndarray, count: int) -> None:
    train, later, config = by_feature(count, 0), by_history(40, 1), RankerConfig(network_epochs=6)
    said: list[str] = []
    stopped, parts = fit_network(train, later, space, config, CPU, said.append, place=None)
    scores = [float(line.rsplit(" ", 1)[1]) for line in said]
    assert scores[parts - 1] == max(scores)
    assert parts < len(scores)
    again = train_network.train_network(train, parts, space, config, CPU, place=None)
    assert not again.training
    for name, tensor in stopped.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_a_long_later_slice_is_measured_on_a_part_spread_over_it(
    space: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = by_feature(41, 1)
    watched: list[list[int]] = []

    def noted(scores: list[np.ndarray], examples: list[Example]) -> float:
        watched.append([next(i for i, each in enumerate(later) if each is example) for example in examples])
        return mean_ndcg(scores, examples)

    monkeypatch.setattr(train_network, "mean_ndcg", noted)
    monkeypatch.setattr(train_network, "_WATCHED", 5)
    fitted(by_feature(40, 0), later, space, network_epochs=1)
    assert watched == [[0, 10, 20, 30, 40]] * len(watched) != []
    monkeypatch.setattr(train_network, "_WATCHED", 100)
    fitted(by_feature(40, 0), later, space, network_epochs=1)
    assert watched[-1] == list(range(41))


def test_a_short_log_is_not_averaged_with_the_untrained_start(space: np.ndarray) -> None:
    """Twelve steps a pass: an average over a hundred steps would hardly have left the start."""
    test = by_feature(60, 2)
    network, _ = fitted(by_feature(360, 0), by_feature(60, 1), space, network_epochs=4)
    assert mean_ndcg(logits(network, test, space, CPU), test) > 0.85


def test_the_same_seed_gives_the_same_network(space: np.ndarray) -> None:
    train, later = by_feature(60, 0), by_feature(30, 1)
    one, same, other = (fitted(train, later, space, network_epochs=2, seed=seed)[0] for seed in (5, 5, 6))
    first, again, different = (np.concatenate(logits(n, later, space, CPU)) for n in (one, same, other))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, different)


def test_lists_are_scored_alike_alone_and_together(space: np.ndarray) -> None:
    examples = by_feature(70, 2)
    network, _ = fitted(by_feature(40, 0), by_feature(20, 1), space, network_epochs=1)
    alone = [logits(network, [example], space, CPU)[0] for example in examples]
    np.testing.assert_allclose(logits(network, examples, space, CPU), alone, atol=1e-5)


def test_mean_ndcg_leaves_out_lists_without_a_gain() -> None:
    examples = by_feature(2, 0)
    examples[1] = examples[1]._replace(grades=np.zeros(LIST))
    perfect = [example.grades for example in examples]
    assert mean_ndcg(perfect, examples) == 1.0
    assert mean_ndcg(perfect[1:], examples[1:]) == -np.inf


def test_mixed_precision_learns_as_well(space: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card, whose products of matrices are in bfloat16: the CPU can do that too, only slowly."""
    train, later, test = by_feature(300, 0), by_feature(60, 1), by_feature(60, 2)
    exact, _ = fitted(train, later, space, network_epochs=8)
    asked: list[torch.device] = []

    def mixed(device: torch.device) -> torch.autocast:
        asked.append(device)
        return torch.autocast("cpu", torch.bfloat16)

    monkeypatch.setattr(train_network, "mixed", mixed)
    rounded, _ = fitted(train, later, space, network_epochs=8)
    assert set(asked) == {CPU}
    assert all(tensor.dtype == torch.float32 for tensor in rounded.state_dict().values())
    one, other = (logits(each, test, space, CPU) for each in (exact, rounded))
    assert not np.allclose(np.concatenate(one), np.concatenate(other), atol=1e-6)
    assert mean_ndcg(other, test) == pytest.approx(mean_ndcg(one, test), abs=0.03)


@pytest.mark.gpu
def test_a_card_learns_as_well(space: np.ndarray) -> None:
    train, later, test = by_history(2_000, 0), by_history(60, 1), by_history(200, 2)
    config = RankerConfig(network_epochs=8)
    scores = []
    for device in (CPU, torch.device("cuda:0")):
        network, _ = fit_network(train, later, space, config, device, lambda _: None, place=None)
        assert next(network.parameters()).device == CPU
        scores.append(mean_ndcg(logits(network, test, space, CPU), test))
    # Dropout draws other rows there; by another seed the CPU's figure moves by as much.
    assert scores[1] == pytest.approx(scores[0], abs=0.08)
