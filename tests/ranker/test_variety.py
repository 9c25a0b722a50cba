"""Coverage and novelty by arithmetic."""

from math import log2

import numpy as np
import pytest

from ranker.examples import Example
from ranker.features import NAMES, Context
from ranker.history import EMPTY
from ranker.variety import variety


def example(rows: list[int], counts: list[float]) -> Example:
    matrix = np.full((len(rows), len(NAMES)), np.nan, np.float32)
    matrix[:, NAMES.index("popularity_30d")] = np.log1p(counts)
    return Example(Context(0.0, EMPTY), np.array(rows), matrix, np.zeros(len(rows)), np.empty(0), np.empty(0))


def test_coverage_counts_a_product_once() -> None:
    rows = list(range(20))
    examples = [example(rows, [0.0] * 20), example(rows, [0.0] * 20)]
    listed = [-np.arange(20.0), -np.arange(20.0)]
    mixed = [-np.arange(20.0), np.arange(20.0)]
    found = variety({"same": listed, "mixed": mixed}, examples, 40)
    assert {name: each["coverage"] for name, each in found.items()} == {
        "same": 10 / 40,
        "mixed": 20 / 40,
        "all candidates": 20 / 40,
    }
    assert all("novelty" not in each for each in found.values())


def test_novelty_is_the_mean_self_information() -> None:
    # With one event added: 4, 1, 2 + 1 of 8; the second list saw the last product at another popularity.
    examples = [example([5, 2], [3.0, 0.0]), example([7], [1.0]), example([7], [3.0])]
    found = variety({"order": [np.array([1.0, 0.0]), np.array([0.0]), np.array([0.0])]}, examples, 10)
    expected = (log2(8 / 4) + log2(8 / 1) + 2 * log2(8 / 3)) / 4
    assert found["order"]["novelty"] == pytest.approx(expected, rel=1e-6)
    assert found["all candidates"] == pytest.approx({"coverage": 3 / 10, "novelty": expected}, rel=1e-6)
