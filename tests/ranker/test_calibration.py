"""Reliability bins against scikit-learn's, and calls at a threshold counted by hand."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from ranker.calibration import Reliability, classification, reliability


def drawn(seed: int, count: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.random(count)
    return probabilities, rng.random(count) < probabilities


@pytest.mark.parametrize("digits", [1, 12])
def test_reliability_agrees_with_scikit_learn(digits: int) -> None:
    probabilities, positive = drawn(0)
    probabilities = np.round(probabilities, digits)
    found = reliability(probabilities, positive)
    observed, predicted = calibration_curve(positive, probabilities, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(found.predicted, predicted)
    np.testing.assert_allclose(found.observed, observed)
    assert sum(found.rows) == 2_000
    assert len(found.rows) == len(predicted)


def test_bins_hold_about_as_many_rows() -> None:
    assert reliability(*drawn(1)).rows == [200] * 10


def test_equal_probabilities_share_a_bin() -> None:
    found = reliability(np.full(8, 0.25), np.arange(8) < 4)
    assert found == ([0.25], [0.5], [8])
    assert found.error == 0.25


def test_calibration_error_weighs_by_rows() -> None:
    found = Reliability([0.1, 0.6], [0.2, 0.5], [30, 10])
    assert found.error == pytest.approx((30 * 0.1 + 10 * 0.1) / 40)
    assert Reliability([0.1, 0.6], [0.2, 0.6], [30, 10]).error == pytest.approx(30 * 0.1 / 40)


def test_true_probabilities_are_calibrated_and_bent_ones_are_not() -> None:
    probabilities, positive = drawn(2, 20_000)
    assert reliability(probabilities, positive).error < 0.02
    assert reliability(probabilities**2, positive).error > 0.1


def test_calls_are_counted_at_the_threshold() -> None:
    p = np.array([0.9, 0.3, 0.7, 0.1, 0.5])
    figures = classification(p, np.array([True, True, False, False, True]), 0.5)
    # Called are the first, the third and the last, which stands on the threshold: two true, one false, one missed.
    assert figures["accuracy"] == 3 / 5
    assert figures["precision"] == 2 / 3
    assert figures["recall"] == 2 / 3
    assert figures["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert figures["threshold"] == 0.5
    assert figures["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.3, 1 - 0.7, 1 - 0.1, 0.5])))


def test_calling_nothing_is_no_fault() -> None:
    figures = classification(np.array([0.1, 0.2]), np.array([True, False]), 0.5)
    assert (figures["precision"], figures["recall"], figures["f1"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_nothing_where_rows_are_all_alike(positive: list[bool]) -> None:
    assert classification(np.array([0.1, 0.9]), np.array(positive), 0.5) == {}
