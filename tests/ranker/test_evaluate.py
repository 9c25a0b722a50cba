"""The report: every scorer and every baseline, each figure with its interval."""

from collections.abc import Sequence
from math import log2

import numpy as np
import pytest

from ranker import evaluate, features
from ranker.examples import Example
from ranker.features import NAMES, Context
from ranker.fusion import Fusion, Platt
from ranker.history import EMPTY


def example(
    grades: Sequence[float], missed: Sequence[float] = (), recalled: bool = False, **columns: Sequence[float]
) -> Example:
    count = len(grades)
    matrix = np.full((count, len(NAMES)), np.nan, np.float32)
    for name, values in columns.items():
        matrix[:, NAMES.index(name)] = values
    scores = 1 / (60 + np.arange(1, count + 1)) if recalled else np.empty(0)
    return Example(Context(0.0, EMPTY), np.arange(count), matrix, np.array(grades), np.array(missed), scores)


def test_baselines_are_features_that_tell_rows_apart() -> None:
    examples = [example([0, 1, 0], bm25=[1, 3, np.nan], popularity_30d=[2, 2, 2]), example([1, 0])]
    orders = evaluate.baselines(examples)
    assert list(orders) == ["random", "BM25"]
    assert [each.tolist() for each in orders["BM25"]] == [[1, 3, 0], [0, 0]]


def test_recall_order_where_lists_were_recalled() -> None:
    orders = evaluate.baselines([example([0, 1], recalled=True), example([1, 0, 0])])
    assert orders["recall order"][0].tolist() == [1 / 61, 1 / 62]
    # A list that was logged is taken as it was shown.
    assert np.argsort(-orders["recall order"][1]).tolist() == [0, 1, 2]
    assert orders["recall order"][1].dtype == np.float64


def test_baselines_are_repeatable() -> None:
    examples = [example([0, 1, 0]), example([1, 0])]
    one, other = evaluate.baselines(examples), evaluate.baselines(examples)
    for a, b in zip(one["random"], other["random"], strict=True):
        np.testing.assert_array_equal(a, b)


def test_table_is_the_metrics() -> None:
    examples = [example([0, 3, 0], missed=[1.0]), example([1, 0])]
    (row,) = evaluate.table({"some": [np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.0])]}, examples, 1.0, None)
    ndcg = (7 / log2(3)) / (7 / log2(2) + 1 / log2(3))
    assert row.metrics["ndcg@10"].mean == pytest.approx((ndcg + 1) / 2)
    assert row.metrics["mrr"].mean == pytest.approx((1 / 2 + 1) / 2)
    assert row.metrics["recall@10"].mean == pytest.approx((1 / 2 + 1) / 2)
    assert row.classification == {}


def test_a_list_whose_answers_were_all_missed_counts_as_nothing_found() -> None:
    (row,) = evaluate.table({"some": [np.array([2.0, 1.0])]}, [example([0, 0], missed=[3.0])], 1.0, None)
    assert [row.metrics[name].mean for name in ("ndcg@10", "mrr", "recall@10")] == [0.0, 0.0, 0.0]


def test_classification_is_at_the_threshold() -> None:
    fusion = Fusion("weighted", 0.5, {"network": Platt(1.0, 0.0)}, {"network": 0.5})
    scores = [np.array([2.0, -1.0, 1.0, -3.0])]
    (row,) = evaluate.table({"network": scores}, [example([1, 1, 0, 0])], 1.0, fusion)
    # Called positive are the first and the third: one true, one false, one missed, one rightly left.
    assert row.classification["accuracy"] == 2 / 4
    assert row.classification["recall"] == 1 / 2
    assert row.classification["f1"] == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert row.classification["auc"] == 3 / 4
    p = 1 / (1 + np.exp(-scores[0]))
    assert row.classification["log_loss"] == pytest.approx(-np.mean(np.log([p[0], p[1], 1 - p[2], 1 - p[3]])))


@pytest.mark.parametrize("grades", [[0, 0], [1, 1]])
def test_no_classification_where_rows_are_all_alike(grades: list[float]) -> None:
    fusion = Fusion("weighted", 0.5, {"network": Platt(1.0, 0.0)}, {"network": 0.5})
    (row,) = evaluate.table({"network": [np.array([1.0, 2.0])]}, [example(grades)], 1.0, fusion)
    assert row.classification == {}


def test_comparison_is_paired() -> None:
    examples = [example([0, 1]), example([1, 0]), example([0, 1])]
    right, wrong = [e.grades for e in examples], [-e.grades for e in examples]
    lost = 1 - 1 / log2(3)
    (interval,) = evaluate.compare({"right": right, "wrong": wrong}, examples, "right").values()
    assert interval == pytest.approx((lost, lost, lost))


def test_every_baseline_names_a_feature() -> None:
    everything = {name: [1.0, 2.0] for name in NAMES}
    orders = evaluate.baselines([example([0, 1], recalled=True, **everything)])
    assert list(orders) == [
        "random",
        "recall order",
        "encoder cosine",
        "BM25",
        "popularity",
        "user vector",
        "own purchases",
    ]
    assert features.NAMES is NAMES
