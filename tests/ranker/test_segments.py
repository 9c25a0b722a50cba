"""Segments divide the requests, and cold products are those that nobody had touched."""

from collections.abc import Sequence

import numpy as np
import pytest

from ranker import features, ranked
from ranker.examples import Example
from ranker.features import NAMES, Context
from ranker.history import History
from ranker.segments import Segment, by_segment, cold_figures, cold_rows, segments


def example(grades: Sequence[float], query: str = "", history: int = 0, **columns: Sequence[float] | float) -> Example:
    matrix = np.full((len(grades), len(NAMES)), np.nan, np.float32)
    for name, values in columns.items():
        matrix[:, features.NAMES.index(name)] = values
    past = History(*(tuple(range(history)) for _ in History._fields))
    return Example(
        Context(0.0, past, query), np.arange(len(grades)), matrix, np.array(grades, float), np.empty(0), np.empty(0)
    )


def found(examples: list[Example], cold: np.ndarray | None = None) -> dict[str, dict[str, list[int]]]:
    """Requests by segment and group."""
    wanted = ranked.answers(examples, 1.0)
    parts = segments(examples, wanted, np.zeros(len(wanted.positive), bool) if cold is None else cold)
    out: dict[str, dict[str, list[int]]] = {}
    for part in parts:
        out.setdefault(part.group, {})[part.name] = np.flatnonzero(part.requests).tolist()
    return out


def test_queries_by_length() -> None:
    lengths = (1, 2, 2, 5)
    examples = [example([0, 1], "query", query_tokens=n) for n in lengths]
    assert found(examples) == {"query length": {"up to 2 words": [0, 1, 2], "over 2 words": [3]}}


def test_users_by_history_and_requests_by_query() -> None:
    examples = [example([1], "query", n, query_tokens=1) for n in (0, 1, 4, 5, 19, 20, 400)]
    assert found(examples) == {
        "user's history": {"new user": [0], "1 to 4": [1, 2], "5 to 19": [3, 4], "20 and more": [5, 6]}
    }
    examples = [example([1], "query", query_tokens=1), example([1])]
    assert found(examples) == {"request": {"with a query": [0], "without a query": [1]}}


def test_queries_by_frequency() -> None:
    examples = [example([1], "query", query_tokens=1, query_frequency=n) for n in (0, 1, 9)]
    assert found(examples) == {"query frequency": {"tail: seldom asked": [0, 1], "head: often asked": [2]}}


def test_lists_that_want_a_cold_product() -> None:
    examples = [example([0, 1]), example([1, 0])]
    cold = np.array([True, False, True, False])
    assert found(examples, cold) == {
        "wanted products": {"a cold one among them": [1], "no cold one among them": [0]},
    }
    assert found(examples, np.ones(4, bool)) == {}


def test_cold_rows_have_no_event_before() -> None:
    examples = [example([0, 0], popularity_30d=[0, 0.7]), example([1, 1], popularity_30d=[0, 0], engaged_before=[0, 1])]
    assert cold_rows(examples).tolist() == [True, False, True, False]


def test_a_segment_is_measured_by_what_its_own_requests_count() -> None:
    """Two lists found whole, of which one counts three times as much: each segment, and all, are at 1."""
    values, shares = np.array([0.5, 1.5, np.nan]), np.array([0.5, 1.5, np.nan])
    masks = ([True, False, False], [False, True, True], [True, True, True], [False, False, True])
    found = by_segment(
        [Segment("group", "some", np.array(mask)) for mask in masks], {"chosen": values}, shares, np.arange(3)
    )
    assert [row["ndcg@10"]["chosen"]["mean"] for row in found[:3]] == [1.0, 1.0, 1.0]
    assert np.isnan(found[3]["ndcg@10"]["chosen"]["mean"])


def test_figures_of_a_segment_are_of_its_requests() -> None:
    part = Segment("group", "some", np.array([True, False, True]))
    orders = {"chosen": np.array([0.5, 0.0, 1.0]), "random": np.array([0.1, 0.9, 0.1])}
    (row,) = by_segment([part], orders, np.ones(3), np.arange(3))
    assert (row["group"], row["segment"], row["requests"]) == ("group", "some", 2)
    assert row["ndcg@10"]["chosen"]["mean"] == 0.75
    assert row["ndcg@10"]["random"] == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1})


def test_cold_products_in_the_first_places() -> None:
    count = 40
    # One list: the last 20 of 40 are cold, and of the wanted 0, 25 and 35 two are.
    grades = np.isin(np.arange(count), (0, 25, 35)).astype(float)
    examples = [example(grades.tolist())]
    cold = np.arange(count) >= 20
    as_listed, backwards = [-np.arange(count, dtype=float)], [np.arange(count, dtype=float)]
    figures = cold_figures({"a": as_listed, "b": backwards}, ranked.answers(examples, 1.0), cold)
    assert figures is not None
    assert (figures["share_of_rows"], figures["wanted"], figures["requests"]) == (0.5, 2, 1)
    assert [figures["orders"][name]["share"] for name in "ab"] == [0.0, 1.0]
    assert [figures["orders"][name]["recall@10"]["mean"] for name in "ab"] == [0.0, 1 / 2]
    assert [figures["orders"][name]["recall@100"]["mean"] for name in "ab"] == [1.0, 1.0]
    # Of the 20 cold rows 18 are not wanted: row 25 is above 13 of them as listed, row 35 above 4.
    assert [figures["orders"][name]["auc"]["mean"] for name in "ab"] == pytest.approx([17 / 36, 19 / 36])
    assert (figures["share_wanted"], figures["share_of_others_wanted"]) == (2 / 20, 1 / 20)


def test_a_list_without_a_cold_row_has_no_part_in_their_auc() -> None:
    examples = [example([0, 1]), example([1, 0, 0])]
    cold = np.array([False, False, True, True, False])
    figures = cold_figures({"a": [np.zeros(2), np.arange(3.0)]}, ranked.answers(examples, 1.0), cold)
    assert figures is not None
    assert figures["orders"]["a"]["auc"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize("cold", [[True, True], [False, False]])
def test_no_cold_figures_where_products_are_all_alike(cold: list[bool]) -> None:
    assert cold_figures({}, ranked.answers([example([0, 1])], 1.0), np.array(cold)) is None
