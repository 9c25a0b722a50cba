"""The report: every scorer and every baseline, each figure with its interval."""

import json
from collections.abc import Sequence
from dataclasses import replace
from math import log2
from types import SimpleNamespace
from typing import Any, cast

import lightgbm as lgb
import numpy as np
import pytest

from ranker import evaluate, metrics, ranked
from ranker.boosted import Trees
from ranker.evaluate import Row
from ranker.examples import Example
from ranker.features import NAMES, Context
from ranker.fusion import KINDS, Fusion, Isotonic
from ranker.history import EMPTY
from ranker.model import Members
from ranker.scoring import Scorable
from ranker.significance import Interval

UNFITTED = Fusion("weighted", 0.5, {}, {}, {})
SCORED = ("network", "new", "other")


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
    examples = [example([0, 1, 0], lexical=[1, 3, np.nan], popularity_30d=[2, 2, 2]), example([1, 0])]
    orders = evaluate.baselines(examples)
    assert list(orders) == ["random", "BM25"]
    assert [each.tolist() for each in orders["BM25"]] == [[1, 3, 0], [0, 0]]


def test_the_transformers_rank_by_the_query_or_else_by_the_user() -> None:
    columns = {"title_cosine": [0.1, np.nan], "user_dot": [0.7, 0.9]}
    asked, strolled = example([0, 1], **columns), example([0, 1], **columns)
    asked = asked._replace(context=asked.context._replace(query="boot"))
    assert evaluate._transformer(asked) == pytest.approx([0.1, 0.0])
    assert evaluate._transformer(strolled) == pytest.approx([0.7, 0.9])


def test_every_scorer_scores_every_list(shop: Any) -> None:
    """What the report compares is what serving would answer, fusion by fusion."""
    rng = np.random.default_rng(0)
    space, members = shop.model.space.vectors, shop.model.members
    examples = [
        Example(
            Context(0.0, EMPTY), np.arange(n), rng.normal(size=(n, len(NAMES))).astype(np.float32), *[np.zeros(n)] * 3
        )
        for n in (5, 1, 9)
    ]
    scored = evaluate.scores_of(members, examples, space)
    assert set(scored) == {"transformer", "network", "trees", *KINDS}
    assert all([len(each) for each in scores] == [5, 1, 9] for scores in scored.values())
    lists = [Scorable(e.context, e.rows, e.features) for e in examples]
    for kind in KINDS:
        chosen = replace(members, fusion=members.fusion._replace(kind=kind))
        for one, other in zip(chosen.score(lists, space), scored[kind], strict=True):
            np.testing.assert_allclose(one.fused, other, atol=1e-4)


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


def rows(orders: dict[str, list[np.ndarray]], examples: list[Example], fusion: Fusion, *scorers: str) -> list[Row]:
    wanted = ranked.answers(examples, 1.0)
    return evaluate.table(evaluate.per_request(orders, wanted), orders, scorers, wanted, fusion)


def test_table_is_the_metrics() -> None:
    examples = [example([0, 3, 0], missed=[1.0]), example([1, 0])]
    (row,) = rows({"some": [np.array([3.0, 2.0, 1.0]), np.array([1.0, 0.0])]}, examples, UNFITTED)
    ndcg = (7 / log2(3)) / (7 / log2(2) + 1 / log2(3))
    assert row.metrics["ndcg@10"].mean == pytest.approx((ndcg + 1) / 2)
    assert row.metrics["mrr"].mean == pytest.approx((1 / 2 + 1) / 2)
    assert row.metrics["hr@10"].mean == 1.0
    assert row.metrics["recall@10"].mean == pytest.approx((1 / 2 + 1) / 2)
    assert row.metrics["gauc"].mean == pytest.approx((1 / 2 + 1) / 2)
    # The positives have 2 and 1, the others 3, 1 and 0: of six pairs three are in order, and one is a tie.
    assert row.metrics["auc"].mean == pytest.approx(3.5 / 6)
    assert (row.kind, row.classification) == ("baseline", {})


def test_a_list_whose_answers_were_all_missed_counts_as_nothing_found() -> None:
    (row,) = rows({"some": [np.array([2.0, 1.0])]}, [example([0, 0], missed=[3.0])], UNFITTED)
    assert [row.metrics[name].mean for name in ("ndcg@10", "mrr", "hr@10", "recall@10")] == [0.0] * 4


def test_kinds_and_classification_come_from_the_scorers_and_the_thresholds() -> None:
    straight = Isotonic([-5.0, 5.0], [0.0, 1.0])
    fusion = Fusion("new", 0.5, {}, {"network": straight, "new": straight}, {"network": 0.5, "new": 0.6})
    scores = [np.array([2.0, -1.0, 1.0, -3.0])]
    made = rows(dict.fromkeys(("network", "new", "other", "BM25"), scores), [example([1, 1, 0, 0])], fusion, *SCORED)
    assert [(row.scorer, row.kind) for row in made] == [
        ("network", "member"),
        ("new", "fusion"),
        ("other", "fusion"),
        ("BM25", "baseline"),
    ]
    p = (scores[0] + 5) / 10
    assert made[0].classification["log_loss"] == pytest.approx(-np.mean(np.log([p[0], p[1], 1 - p[2], 1 - p[3]])))
    assert [row.classification.get("threshold") for row in made] == [0.5, 0.6, None, None]


def test_comparison_is_paired() -> None:
    examples = [example([0, 1]), example([1, 0]), example([0, 1])]
    orders = {"right": [e.grades for e in examples], "wrong": [-e.grades for e in examples]}
    wanted = ranked.answers(examples, 1.0)
    values = evaluate.per_request(orders, wanted)
    lost = 1 - 1 / log2(3)
    (found,) = evaluate.compare(values, "right", "ndcg@10", wanted.users).values()
    assert found[:3] == pytest.approx((lost, lost, lost))
    assert found.p == found.p_holm == pytest.approx(2 / 8, abs=0.02)
    (found,) = evaluate.compare(values, "right", "auc", wanted.users).values()
    assert found.mean == pytest.approx(1.0)


def test_no_comparison_of_what_does_not_apply() -> None:
    examples = [example([1, 1])]
    orders = {name: [np.array([1.0, 2.0])] for name in "ab"}
    values = evaluate.per_request(orders, ranked.answers(examples, 1.0))
    assert evaluate.compare(values, "a", "auc", np.arange(1)) == {}
    assert set(evaluate.compare(values, "a", "ndcg@10", np.arange(1))) == {"b"}


def test_lists_of_one_user_are_one_piece_of_evidence() -> None:
    grades = [[0, 1], [1, 0]] * 8
    orders = {"right": [np.array(g, float) for g in grades], "wrong": [-np.array(g, float) for g in grades]}

    def p(users: Sequence[str | None]) -> float:
        examples = [example(g)._replace(user=user) for g, user in zip(grades, users, strict=True)]
        wanted = ranked.answers(examples, 1.0)
        (found,) = evaluate.compare(evaluate.per_request(orders, wanted), "right", "ndcg@10", wanted.users).values()
        return found.p

    assert p([None] * 16) < 0.001
    assert p(["ann", "ben"] * 8) == pytest.approx(2 / 4, abs=0.02)


def test_intervals_are_over_users() -> None:
    # One user with three lists found whole, three with one found last each.
    grades, users = [[1, 0]] * 3 + [[0, 1]] * 3, ["ann"] * 3 + ["ben", "cem", "dan"]
    examples = [example(g)._replace(user=user) for g, user in zip(grades, users, strict=True)]
    orders = {"as listed": [-np.arange(2.0)] * 6}

    def interval(lists: list[Example]) -> Interval:
        wanted = ranked.answers(lists, 1.0)
        [row] = evaluate.table(evaluate.per_request(orders, wanted), orders, [], wanted, UNFITTED)
        return row.metrics["ndcg@10"]

    strangers = interval([each._replace(user=None) for each in examples])
    assert interval(examples).mean == strangers.mean
    assert interval(examples).high - interval(examples).low > strangers.high - strangers.low


def test_per_request_ndcg_is_that_of_each_list() -> None:
    examples = [example([0, 3, 0], missed=[1.0]), example([1, 0]), example([0, 0])]
    scores = [np.array([3.0, 2.0, 1.0]), np.array([0.0, 1.0]), np.array([1.0, 0.0])]
    expected = [metrics.ndcg(s, e.grades, e.missed) for s, e in zip(scores, examples, strict=True)]
    np.testing.assert_allclose(evaluate.per_request_ndcg(scores, examples), expected)


def test_recall_by_candidates_counts_what_recall_missed() -> None:
    grades = np.zeros(30)
    grades[[0, 15, 29]] = 1.0
    examples = [example(grades, missed=[1.0], recalled=True), example([1.0])]
    found = evaluate.recall_by_candidates(examples, 1.0)
    assert [(point["candidates"], point["mean"]) for point in found] == [(10, 1 / 4), (20, 2 / 4), (30, 3 / 4)]
    assert evaluate.recall_by_candidates([example([1.0])], 1.0) == []


def test_gains_are_the_shares_of_every_booster() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(400, 3))
    data = lgb.Dataset(matrix, 3 * matrix[:, 1] + matrix[:, 2], feature_name=["noise", "strong", "weak"])
    booster = lgb.train({"verbosity": -1, "num_threads": 1}, data, 5)
    untaught = lgb.train(
        {"verbosity": -1, "num_threads": 1, "min_gain_to_split": 1e9}, lgb.Dataset(matrix, rng.random(400)), 1
    )
    members = cast(Members, SimpleNamespace(trees=Trees.of(booster), fusion=UNFITTED, stacked=Trees.of(untaught)))
    found = evaluate.gain_shares(members)
    assert list(found) == ["trees", "stacked"]
    assert next(iter(found["trees"])) == "strong"
    assert sum(found["trees"].values()) == pytest.approx(1.0)
    assert set(found["stacked"].values()) == {0.0}


def test_the_report_is_whole_and_strict_json(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    examples = [
        example(
            (rng.random(30) < 0.2).astype(float),
            missed=[1.0][: i % 2],
            recalled=True,
            popularity_30d=rng.integers(0, 3, 30),
            query_tokens=[i % 4] * 30,
        )
        for i in range(40)
    ]
    kind = shop.model.members.fusion.kind
    scored = {name: [rng.normal(size=30) + 2 * e.grades for e in examples] for name in ("network", kind)}
    monkeypatch.setattr(evaluate, "scores_of", lambda *_: scored)
    figures = evaluate.report(shop.model.members, examples, shop.model.space.vectors, 1.0)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["shown"] == {
        "chosen": kind,
        "best member": "network",
        "best baseline": figures["shown"]["best baseline"],
        "random": "random",
    }
    assert {row["scorer"] for row in figures["table"]} == {"network", kind, "random", "recall order", "popularity"}
    assert set(figures["chosen_minus_other_ndcg"]) == {"network", "random", "recall order", "popularity"}
    assert set(figures["chosen_minus_other_ndcg"]["random"]) == {"mean", "low", "high", "p", "p_holm"}
    assert figures["chosen_minus_other_auc"]["random"]["p_holm"] < 0.05
    assert set(figures["calibration"]) == {"network", kind}
    assert [point["candidates"] for point in figures["recall_by_candidates"]] == [10, 20, 30]
    assert set(figures["gains"]) >= {"trees", "stacked"}
    assert figures["cold"]["orders"].keys() == figures["shown"].keys()
    assert figures["variety"]["all candidates"]["coverage"] == 30 / len(shop.model.space.vectors)


def test_every_baseline_names_a_feature() -> None:
    everything = {name: [1.0, 2.0] for name in NAMES}
    orders = evaluate.baselines([example([0, 1], recalled=True, **everything)])
    assert list(orders) == ["random", "recall order", "BM25", "popularity", "co-visited", "own purchases"]
