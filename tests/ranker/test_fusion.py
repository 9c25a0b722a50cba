"""Alpha, calibration and thresholds on synthetic scores whose optimum is known."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax
from sklearn.metrics import f1_score

from ranker.fusion import (
    Fusion,
    Isotonic,
    Platt,
    best_threshold,
    by_rank,
    fit_alpha,
    fit_isotonic,
    fit_platt,
    weigh,
)


def labels(p: np.ndarray, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(len(p)) < p


def test_weighing_is_the_formula() -> None:
    assert weigh(0.3, np.array([0.9]), np.array([0.2])) == pytest.approx(0.3 * 0.9 + (1 - 0.3) * 0.2)


def test_ranks_are_added_as_reciprocals() -> None:
    network, trees = np.array([0.1, 0.9, 0.5]), np.array([-3.0, -1.0, -2.0])
    np.testing.assert_allclose(
        by_rank(network, trees),
        [(1 / (60 + 3)) + (1 / (60 + 3)), (1 / (60 + 1)) + (1 / (60 + 1)), (1 / (60 + 2)) + (1 / (60 + 2))],
    )
    np.testing.assert_allclose(
        by_rank(network, np.array([5.0, -7.0, 0.0])),
        [(1 / (60 + 3)) + (1 / (60 + 1)), (1 / (60 + 1)) + (1 / (60 + 3)), (1 / (60 + 2)) + (1 / (60 + 2))],
    )


def test_ties_rank_in_the_order_of_the_rows() -> None:
    np.testing.assert_allclose(by_rank(np.zeros(3), np.ones(3)), [2 / (60 + 1), 2 / (60 + 2), 2 / (60 + 3)])
    assert by_rank(np.empty(0), np.empty(0)).shape == (0,)


def lists(seed: int, count: int = 600, length: int = 8) -> tuple[np.ndarray, list[np.ndarray], np.random.Generator]:
    """Worth of every row of some lists, and grades: the row of the greatest worth, with some luck, was wanted."""
    rng = np.random.default_rng(seed)
    worth = rng.normal(size=(count, length))
    grades = np.zeros((count, length))
    grades[np.arange(count), (2 * worth + rng.gumbel(size=worth.shape)).argmax(1)] = 1.0
    return worth, list(grades), rng


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("good", "expected"), [("network", 1.0), ("trees", 0.0)])
def test_alpha_goes_to_the_member_that_is_not_noise(good: str, expected: float, seed: int) -> None:
    worth, grades, rng = lists(seed)
    noise = list(rng.normal(size=worth.shape))
    pair = (list(worth), noise) if good == "network" else (noise, list(worth))
    assert fit_alpha(*pair, grades) == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize("seed", range(3))
def test_alpha_lies_between_for_two_noisy_views(seed: int) -> None:
    """The better view counts more, and both together rank better than either."""
    worth, grades, rng = lists(seed)
    clear, vague = worth + 0.7 * rng.normal(size=worth.shape), worth + 1.4 * rng.normal(size=worth.shape)
    alpha = fit_alpha(list(clear), list(vague), grades)
    assert 0.6 < alpha < 0.95
    assert fit_alpha(list(vague), list(clear), grades) == pytest.approx(1 - alpha, abs=0.02)

    def right(scores: np.ndarray) -> float:
        return float((scores.argmax(1) == np.array(grades).argmax(1)).mean())

    assert right(weigh(alpha, clear, vague)) > max(right(clear), right(vague))


@pytest.mark.parametrize("seed", range(3))
def test_alpha_is_the_one_a_grid_finds(seed: int) -> None:
    """Over alpha and the scale of the scores, the least cross-entropy of the lists against their gains."""
    worth, grades, rng = lists(seed, count=300)
    one, other = worth + rng.normal(size=worth.shape), worth + rng.normal(size=worth.shape)
    target = np.array(grades)

    def loss(alpha: float) -> float:
        scores = weigh(alpha, one, other)
        return min(-(target * log_softmax(scale * scores, axis=1)).sum(1).mean() for scale in np.geomspace(0.3, 5, 60))

    grid = np.linspace(0.02, 0.98, 49)
    best = float(grid[np.argmin([loss(alpha) for alpha in grid])])
    assert fit_alpha(list(one), list(other), grades) == pytest.approx(best, abs=0.03)


@pytest.mark.parametrize("size", [0.05, 20.0])
def test_alpha_is_not_about_the_size_of_the_scores(size: float) -> None:
    worth, grades, rng = lists(0)
    clear, vague = worth + 0.7 * rng.normal(size=worth.shape), worth + 1.4 * rng.normal(size=worth.shape)
    alpha = fit_alpha(list(clear), list(vague), grades)
    assert fit_alpha(list(size * clear), list(size * vague), grades) == pytest.approx(alpha, abs=0.02)


def test_alpha_weighs_by_gain_and_leaves_lists_without_one_out() -> None:
    """Grades 1 and 3 gain 1 and 7: the member that puts the greater first wins. Lists are of any length."""
    one, other = np.array([2.0, 0.0, -1.0]), np.array([0.0, 2.0, -1.0])
    grades = np.array([3.0, 1.0, 0.0])
    rest = np.array([0.5, 0.1])
    alpha = fit_alpha([one] * 3 + [rest], [other] * 3 + [-rest], [grades] * 3 + [np.zeros(2)])
    assert alpha > 0.6
    assert fit_alpha([one], [other], [grades]) == pytest.approx(alpha, abs=1e-6)
    assert fit_alpha([other], [one], [grades]) == pytest.approx(1 - alpha, abs=1e-6)
    assert fit_alpha([one], [other], [np.array([1.0, 1.0, 0.0])]) == pytest.approx(0.5, abs=1e-6)
    assert fit_alpha([rest], [-rest], [np.zeros(2)]) == fit_alpha([], [], []) == 0.5


def test_a_weight_is_as_many_lists_or_as_much_of_a_gain() -> None:
    worth, grades, rng = lists(0, count=40)
    one, other = (list(worth + 0.7 * rng.normal(size=worth.shape)) for _ in range(2))
    thrice = [1.0] * 30 + [3.0] * 10
    repeated = [list(each) + list(each[30:]) * 2 for each in (one, other, grades)]
    assert fit_alpha(one, other, grades, thrice) == pytest.approx(fit_alpha(*repeated), abs=1e-6)
    assert fit_alpha(one, other, grades, [7.0] * 40) == pytest.approx(fit_alpha(one, other, grades), abs=1e-6)
    # Two clicks of a list, of which the first member puts the one first that counts more.
    first, second = np.array([2.0, 0.0, -1.0]), np.array([0.0, 2.0, -1.0])
    clicks, rare = np.array([1.0, 1.0, 0.0]), np.array([7.0, 1.0, 1.0])
    assert fit_alpha([first], [second], [clicks], [rare]) > 0.6
    assert fit_alpha([second], [first], [clicks], [rare]) < 0.4


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_platt_finds_the_line_the_labels_came_from(scale: float) -> None:
    scores = np.random.default_rng(0).normal(size=50_000) * scale
    fitted = fit_platt(scores, labels(expit(2.0 / scale * scores - 1.0)))
    assert fitted.slope == pytest.approx(2.0 / scale, rel=0.05)
    assert fitted.offset == pytest.approx(-1.0, abs=0.05)


def test_platt_is_calibrated_on_average() -> None:
    scores = np.random.default_rng(0).normal(size=5_000)
    positive = labels(expit(scores), seed=2)
    assert expit(fit_platt(scores, positive).log_odds(scores)).mean() == pytest.approx(positive.mean(), abs=1e-3)


def test_platt_on_labels_that_are_all_alike_is_a_constant() -> None:
    scores = np.array([1.0, 2.0, 3.0])
    assert (expit(fit_platt(scores, np.zeros(3, bool)).log_odds(scores)) < 1e-3).all()
    assert (expit(fit_platt(scores, np.ones(3, bool)).log_odds(scores)) > 1 - 1e-3).all()


def test_platt_on_scores_that_are_all_alike_is_the_share() -> None:
    fitted = fit_platt(np.full(8, 3.0), np.array([True, False, False, False] * 2))
    assert expit(fitted.log_odds(np.array([3.0]))) == pytest.approx(0.25, abs=1e-3)


def test_platt_is_a_line() -> None:
    scores = np.array([0.5, 1.0])
    assert Platt(2.0, -1.0).log_odds(scores) == pytest.approx([0.0, 1.0])


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


def test_isotonic_rises_and_interpolates() -> None:
    scores = np.random.default_rng(0).normal(size=3_000)
    positive = labels(expit(3 * scores))
    fitted = fit_isotonic(scores, positive)
    assert (np.diff(fitted.scores) > 0).all()
    assert (np.diff(fitted.probabilities) >= 0).all()
    assert fitted(scores).mean() == pytest.approx(positive.mean(), abs=1e-6)
    at = np.linspace(-1, 1, 21)
    np.testing.assert_allclose(fitted(at), expit(3 * at), atol=0.12)
    middle = (np.array(fitted.scores[:-1]) + fitted.scores[1:]) / 2
    np.testing.assert_allclose(fitted(middle), (np.array(fitted.probabilities[:-1]) + fitted.probabilities[1:]) / 2)


def test_isotonic_on_few_rows_is_the_pooled_share() -> None:
    """Scores 2 and 3 are in the wrong order, so they share the mean; outside the corners the ends go on."""
    fitted = fit_isotonic(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, False, True]))
    assert fitted(np.array([-9.0, 1.0, 2.0, 3.0, 4.0, 9.0])) == pytest.approx([0.0, 0.0, 0.5, 0.5, 1.0, 1.0])
    assert fitted(np.array([1.5, 3.25])) == pytest.approx([0.25, 0.5 + 0.5 * 0.25])


def test_isotonic_on_labels_that_are_all_alike_is_a_constant() -> None:
    for positive, expected in ((np.zeros(3, bool), 0.0), (np.ones(3, bool), 1.0)):
        assert fit_isotonic(np.array([1.0, 2.0, 3.0]), positive)(np.array([0.0, 2.0])).tolist() == [expected] * 2


def test_fusion_weighs_log_odds() -> None:
    odds = {"network": Platt(2.0, 0.0), "trees": Platt(1.0, 1.0)}
    calibration = {"weighted": Isotonic([0.0, 1.0], [0.2, 0.4])}
    fusion = Fusion("weighted", 0.25, odds, calibration, {})
    fused = fusion.weighted(np.array([0.3]), np.array([-0.4]))
    assert fused == pytest.approx(0.25 * 2 * 0.3 + 0.75 * (-0.4 + 1.0))
    assert fusion.probabilities("weighted", fused) == pytest.approx(0.2 + 0.2 * fused)


@pytest.mark.parametrize("kind", ["weighted", "residual"])
def test_the_prior_is_in_log_odds(kind: str) -> None:
    fusion = Fusion(kind, 0.5, {"network": Platt(2.0, 0.0), "trees": Platt(0.5, 1.0)}, {}, {})
    recalled = np.array([0.1, 0.9, 0.5])
    expected = -0.1 * np.log([3, 1, 2])
    np.testing.assert_allclose(fusion.prior(recalled, network=True), expected)
    # Without the DNN the trees' raw scores rank, of which one is half of one in log-odds.
    np.testing.assert_allclose(fusion.prior(recalled, network=False), expected / 0.5)
    assert fusion.prior(np.empty(0), network=True).shape == (0,)


def test_the_prior_is_a_reciprocal_rank_where_ranks_are_summed() -> None:
    fusion = Fusion("rank", 0.5, {"network": Platt(2.0, 0.0), "trees": Platt(0.0, 0.0)}, {}, {})
    recalled = np.array([0.9, 0.5])
    np.testing.assert_allclose(fusion.prior(recalled, network=True), [0.1 / 61, 0.1 / 62])
    # Trees that say nothing have no scale.
    np.testing.assert_allclose(fusion.prior(recalled, network=False), -0.1 * np.log([1, 2]))
