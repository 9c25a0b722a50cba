"""Alpha, calibration and thresholds on synthetic scores whose optimum is known."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import f1_score, log_loss

from ranker.fusion import Fusion, Platt, best_threshold, fit_alpha, fit_platt, weigh


def labels(p: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(len(p)) < p


def test_weighing_is_the_formula() -> None:
    assert weigh(0.3, np.array([0.9]), np.array([0.2])) == pytest.approx(0.3 * 0.9 + (1 - 0.3) * 0.2)


@pytest.mark.parametrize(("good", "expected"), [("network", 1.0), ("trees", 0.0)])
def test_alpha_goes_to_the_member_that_is_not_noise(good: str, expected: float) -> None:
    rng = np.random.default_rng(0)
    true, noise = rng.beta(1, 4, 20_000), rng.beta(1, 4, 20_000)
    positive = labels(true)
    alpha = fit_alpha(true, noise, positive) if good == "network" else fit_alpha(noise, true, positive)
    assert alpha == pytest.approx(expected, abs=0.05)


def test_two_independent_members_fuse_to_less_log_loss_than_either() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 20_000))
    positive = labels(expit(one + other))
    p1, p2 = fit_platt(one, positive)(one), fit_platt(other, positive)(other)
    alpha = fit_alpha(p1, p2, positive)
    assert alpha == pytest.approx(0.5, abs=0.1)
    fused = log_loss(positive, weigh(alpha, p1, p2))
    assert fused < min(log_loss(positive, p1), log_loss(positive, p2)) - 0.005


def test_alpha_is_the_one_a_grid_finds() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(2, 5_000))
    positive = labels(expit(1.5 * one + 0.5 * other))
    p1, p2 = expit(one), expit(other)
    grid = np.linspace(0.01, 0.99, 99)
    best = grid[np.argmin([log_loss(positive, weigh(alpha, p1, p2)) for alpha in grid])]
    assert fit_alpha(p1, p2, positive) == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_platt_finds_the_line_the_labels_came_from(scale: float) -> None:
    scores = np.random.default_rng(0).normal(size=50_000) * scale
    fitted = fit_platt(scores, labels(expit(2.0 / scale * scores - 1.0)))
    assert fitted.slope == pytest.approx(2.0 / scale, rel=0.05)
    assert fitted.offset == pytest.approx(-1.0, abs=0.05)


def test_platt_is_calibrated_on_average() -> None:
    scores = np.random.default_rng(0).normal(size=5_000)
    positive = labels(expit(scores), seed=2)
    assert fit_platt(scores, positive)(scores).mean() == pytest.approx(positive.mean(), abs=1e-3)


def test_platt_on_labels_that_are_all_alike_is_a_constant() -> None:
    scores = np.array([1.0, 2.0, 3.0])
    assert (fit_platt(scores, np.zeros(3, bool))(scores) < 1e-3).all()
    assert (fit_platt(scores, np.ones(3, bool))(scores) > 1 - 1e-3).all()


def test_platt_on_scores_that_are_all_alike_is_the_share() -> None:
    fitted = fit_platt(np.full(8, 3.0), np.array([True, False, False, False] * 2))
    assert fitted(np.array([3.0])) == pytest.approx(0.25, abs=1e-3)


def test_platt_applies_a_sigmoid() -> None:
    assert Platt(2.0, -1.0)(np.array([0.5, 1.0])) == pytest.approx([1 / 2, 1 / (1 + np.exp(-1))])


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("decimals", [1, 8])
def test_threshold_is_the_one_brute_force_finds(seed: int, decimals: int) -> None:
    """One decimal makes many ties, which are called positive together or not at all."""
    p = np.random.default_rng(seed).random(40).round(decimals)
    positive = labels(p, seed + 100)
    positive[0] = True
    best = max(f1_score(positive, p >= threshold) for threshold in p)
    assert f1_score(positive, p >= best_threshold(p, positive)) == pytest.approx(best)


def test_threshold_of_nothing() -> None:
    assert best_threshold(np.empty(0), np.empty(0, bool)) == 0.5


def test_fusion_weighs_calibrated_scores() -> None:
    fusion = Fusion("weighted", 0.25, {"network": Platt(2.0, 0.0), "trees": Platt(1.0, 1.0)}, {})
    fused = fusion.weighted(np.array([0.3]), np.array([-0.4]))
    assert fused == pytest.approx(0.25 * expit(2 * 0.3) + 0.75 * expit(-0.4 + 1.0))
    assert fusion.probabilities("weighted", fused) is fused
    assert logit(fusion.probabilities("network", np.array([0.3]))) == pytest.approx(2 * 0.3)
