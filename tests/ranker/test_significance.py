"""Intervals and paired tests: by their definitions, and as often wrong as they say."""

from math import isnan

import numpy as np
import pytest
from scipy.stats import permutation_test

from ranker import significance
from ranker.significance import Interval, bootstrap, flip_test, holm, paired


def one(values: np.ndarray, **settings: int) -> Interval:
    return bootstrap(values[:, None], **settings)[0]


def test_bootstrap_covers_the_mean_and_narrows() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 3_200)
    few, many = one(values[:50]), one(values)
    for interval, drawn in ((few, values[:50]), (many, values)):
        assert interval.mean == pytest.approx(drawn.mean())
        assert interval.low < interval.mean < interval.high
    # The deviation of a mean falls with the root of the sample: 1.96 * 2 / sqrt(3200) is the expected width.
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(3_200), rel=0.15)
    assert (few.high - few.low) > 4 * (many.high - many.low)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    intervals = bootstrap(np.random.default_rng(1).normal(size=(60, 200)), resamples=300)
    covered = np.mean([low <= 0.0 <= high for _, low, high in intervals])
    assert 0.88 < covered < 0.99


def test_bootstrap_is_the_percentiles_of_resampled_means() -> None:
    values = np.random.default_rng(2).exponential(size=40)
    rng = np.random.default_rng(0)
    means = [values[rng.integers(0, 40, 40)].mean() for _ in range(significance.RESAMPLES)]
    assert one(values) == pytest.approx((values.mean(), *np.percentile(means, [2.5, 97.5])))


def test_blocks_do_not_change_the_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(40, 3))
    whole = bootstrap(values)
    monkeypatch.setattr(significance, "_BLOCK", 1_000)
    for a, b in zip(whole, bootstrap(values), strict=True):
        assert a == pytest.approx(b)


def test_bootstrap_leaves_out_what_is_not_a_number() -> None:
    assert one(np.array([0.5, np.nan, 0.5])) == (0.5, 0.5, 0.5)
    assert all(isnan(value) for value in one(np.array([np.nan])))


def test_bootstrap_is_repeatable() -> None:
    values = np.random.default_rng(0).normal(size=40)
    assert one(values) == one(values) != one(values, seed=1)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5])
def test_flip_test_agrees_with_scipy(shift: float) -> None:
    differences = np.random.default_rng(3).normal(shift, 1.0, 40)
    expected = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0).pvalue
    (p,) = flip_test(differences[:, None])
    # Both are draws: the error of a share of 10,000 is at most 0.005.
    assert p == pytest.approx(expected, abs=0.02)


def test_flip_test_of_few_is_the_share_of_all_flips() -> None:
    # Of the 8 ways to sign three equal differences two are as far from 0.
    (p,) = flip_test(np.full((3, 1), 0.1))
    assert p == pytest.approx(2 / 8, abs=0.02)


def test_p_is_never_zero_and_one_where_nothing_differs() -> None:
    draws = significance.DRAWS
    p = flip_test(np.column_stack([np.ones(100), np.zeros(100), np.full(100, np.nan)]))
    assert p.tolist() == [1 / (draws + 1), 1.0, 1.0]


def test_flip_test_raises_as_few_false_alarms_as_it_says() -> None:
    p = flip_test(np.random.default_rng(4).standard_t(4, size=(50, 400)), draws=500)
    assert 0.02 < np.mean(p < 0.05) < 0.085


def test_groups_are_drawn_and_flipped_as_one() -> None:
    values = np.random.default_rng(6).normal(0.1, 1.0, (40, 2))
    values[3, 1] = np.nan
    # Each request three times says no more than once, wherever the three stand.
    places = np.random.default_rng(8).permutation(120)
    thrice, groups = np.repeat(values, 3, axis=0)[places], np.repeat(np.arange(40), 3)[places]
    for a, b in zip(bootstrap(values), bootstrap(thrice, groups=groups), strict=True):
        assert a == pytest.approx(b)
    assert flip_test(values) == pytest.approx(flip_test(thrice, groups=groups))
    assert (flip_test(thrice) < flip_test(values)).all()


def test_a_group_counts_by_its_requests() -> None:
    values, groups = np.array([[1.0], [0.0], [0.0], [0.0]]), np.array([0, 1, 1, 1])
    assert bootstrap(values, groups=groups)[0].mean == 0.25


def test_numbers_of_groups_are_names() -> None:
    """In a part of the requests not every user is there."""
    values, groups = np.random.default_rng(7).normal(size=(40, 1)), np.repeat(np.arange(20), 2)
    assert bootstrap(values, groups=groups * 7 + 3) == bootstrap(values, groups=groups)
    assert flip_test(values, groups=groups * 7 + 3) == flip_test(values, groups=groups)


def test_holm_steps_down() -> None:
    # Sorted: 0.01, 0.02, 0.03, 0.04; times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; no later one below an earlier one.
    assert holm(np.array([0.04, 0.01, 0.03, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
    assert holm(np.empty(0)).tolist() == []


def test_paired_differences_of_a_family() -> None:
    rng = np.random.default_rng(5)
    mine = rng.random(200)
    noisy, worse = mine + rng.normal(0, 0.1, 200), mine - 0.1
    level, sure = paired(mine, np.column_stack([noisy, worse]))
    assert sure == pytest.approx((0.1, 0.1, 0.1, 1 / (significance.DRAWS + 1), 2 / (significance.DRAWS + 1)))
    assert level.low < 0 < level.high
    assert level.p == level.p_holm > 0.05
