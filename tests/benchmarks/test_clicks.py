"""The click models' rows and figures on lists small enough to reckon by hand."""

import numpy as np
import polars as pl
import pytest
from peers.clicks import Lists, biases, click_figures, lists_of
from peers.context import Log

from ranker.examples import Slice
from ranker.history import PURCHASE
from ranker.log import Request


def test_click_figures_are_those_of_a_plain_count() -> None:
    labels, lists = np.array([1, 0, 1, 0, 0]), np.array([0, 0, 1, 1, 1])
    values = np.array([0.9, 0.8, 0.4, 0.5, 0.3])
    found = click_figures(labels, values, lists)
    assert found["auc"]["mean"] == pytest.approx(4 / 6, abs=1e-5)
    assert found["gauc"]["mean"] == pytest.approx((2 * 1.0 + 3 * 0.5) / 5)
    right = np.where(labels, values, 1 - values)
    assert found["log_loss"]["mean"] == pytest.approx(-np.log(right).mean(), abs=1e-5)


def test_lists_hold_only_earlier_history_and_no_user_that_training_did_not_see() -> None:
    columns = {"user_id": ["a", "b"], "row": [2, 1], "kind": [PURCHASE, PURCHASE], "time": [1.0, 50.0]}
    asked = [
        (Request(2.0, "a", "", np.array([0, 1]), None, {0: 1.0}), Slice.TOWER),
        (Request(30.0, "a", "", np.array([1, 2]), None, {1: 1.0}), Slice.VALIDATE),
        (Request(60.0, "b", "", np.array([0, 2]), None, {2: 1.0}), Slice.TEST),
    ]
    lists = lists_of(asked, Log(pl.DataFrame(columns)), ["x", None, "y"])
    assert lists.frame["slice"].to_list() == [0, 0, 1, 1, 2, 2]
    assert lists.frame["label"].to_list() == [1, 0, 1, 0, 0, 1]
    assert lists.frame["category"].to_list() == [1, 0, 0, 2, 1, 2]
    assert lists.frame["user"].to_list() == [1, 1, 1, 1, 0, 0]
    assert lists.histories[:, 0].tolist() == [3, 3, 2]


def test_biases_learn_which_products_please() -> None:
    rows = np.tile(np.arange(4), 60)
    part = np.repeat([0, 1, 2], 80)
    columns = {"list": np.arange(240) // 4, "user": np.ones(240, np.int64), "row": rows, "category": rows}
    frame = pl.DataFrame({**columns, "label": (rows < 2).astype(np.int64), "slice": part})
    values, tried = biases(Lists(frame, np.zeros((60, 1), np.int64)))
    assert len(tried) == 3
    assert values[rows[part == 2] < 2].min() > values[rows[part == 2] >= 2].max()
