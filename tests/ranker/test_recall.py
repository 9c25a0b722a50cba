"""Recall channels under masks, and their fusion as arithmetic."""

from collections.abc import Sequence

import numpy as np
import pytest

from indexer.exact import ExactIndex
from ranker import recall
from ranker.behaviour import Behaviour
from ranker.history import CLICK, EMPTY, PURCHASE, Engagement, History
from ranker.recall import Channel

NOW = 1_700_000_000.0
ODD = np.array([False, True] * 10)


@pytest.fixture
def index() -> ExactIndex:
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    return ExactIndex(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def behaviour() -> Behaviour:
    behaviour = Behaviour(20)
    behaviour.apply_all(Engagement("u", row, CLICK, NOW - row) for row in range(10))
    return behaviour


def channel(*rows: int) -> Channel:
    return Channel("some", np.array(rows, np.int64), np.zeros(len(rows)))


def test_fusion_adds_reciprocal_ranks() -> None:
    found = recall.fuse([channel(7, 8, 9), channel(5, 6, 7)], 10)
    assert dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True)) == pytest.approx(
        {
            7: (1 / (60 + 1)) + (1 / (60 + 3)),
            5: 1 / (60 + 1),
            6: 1 / (60 + 2),
            8: 1 / (60 + 2),
            9: 1 / (60 + 3),
        }
    )
    assert found.rows.tolist() == [7, 5, 6, 8, 9]
    assert recall.fuse([channel(7, 8, 9), channel(5, 6, 7)], 2).rows.tolist() == [7, 5]


@pytest.mark.parametrize("channels", [[], [channel()], [channel(), channel()]])
def test_fusion_of_nothing_is_nothing(channels: Sequence[Channel]) -> None:
    found = recall.fuse(channels, 10)
    assert found.rows.tolist() == found.scores.tolist() == []
    assert (found.rows.dtype, found.scores.dtype) == (np.int64, np.float64)


def test_an_empty_channel_changes_nothing() -> None:
    alone, beside = recall.fuse([channel(3, 1)], 10), recall.fuse([channel(), channel(3, 1)], 10)
    assert alone.rows.tolist() == beside.rows.tolist() == [3, 1]
    assert alone.scores.tolist() == beside.scores.tolist()


def test_vector_channel_is_the_index(index: ExactIndex) -> None:
    found = recall.for_vector(index, index.vectors[6], 5, None)
    assert found.name == "dense"
    assert found.rows.tolist() == np.argsort(-(index.vectors @ index.vectors[6]))[:5].tolist()
    assert found.scores[0] == pytest.approx(1.0)


def test_vector_channel_leaves_out_places_that_could_not_be_filled(index: ExactIndex) -> None:
    assert len(recall.for_vector(index, index.vectors[6], 50, None).rows) == 20
    few = recall.for_vector(index, index.vectors[6], 15, ODD)
    assert sorted(few.rows.tolist()) == list(range(1, 20, 2))
    assert len(recall.for_vector(index, index.vectors[6], 5, np.zeros(20, bool)).rows) == 0


def test_history_channel_most_often_then_latest() -> None:
    history = History((4, 7, 4, 9, 2), (PURCHASE,) * 5, (1.0, 2.0, 3.0, 4.0, 5.0))
    found = recall.for_history(history, 10, None)
    assert found.rows.tolist() == [4, 2, 9, 7]
    assert found.scores.tolist() == [2.0, 1.0, 1.0, 1.0]
    assert recall.for_history(history, 2, None).rows.tolist() == [4, 2]
    assert recall.for_history(history, 2, ODD).rows.tolist() == [9, 7]
    assert recall.for_history(history, 2, ODD).scores.tolist() == [1.0, 1.0]
    assert recall.for_history(EMPTY, 2, None).rows.tolist() == []


def test_popular_channel(behaviour: Behaviour) -> None:
    found = recall.for_everyone(behaviour, NOW, 3, None)
    assert found.rows.tolist() == [0, 1, 2]
    np.testing.assert_allclose(found.scores, behaviour.popularity(np.array([0, 1, 2]), NOW)[-1])
    assert recall.for_everyone(behaviour, NOW, 3, ODD).rows.tolist() == [1, 3, 5]


def test_user_candidates_come_from_all_channels(index: ExactIndex, behaviour: Behaviour) -> None:
    history = History((15, 15), (PURCHASE, PURCHASE), (1.0, 2.0))
    found = recall.for_user(index, behaviour, history, index.vectors[12], NOW, 6, None)
    assert [each.name for each in found.channels] == ["user", "history", "popular"]
    assert len(found.rows) == 6
    assert {12, 15, 0} <= set(found.rows.tolist())
    assert (np.diff(found.scores) <= 0).all()


def test_user_candidates_respect_the_mask(index: ExactIndex, behaviour: Behaviour) -> None:
    history = History((14, 15), (PURCHASE, PURCHASE), (1.0, 2.0))
    found = recall.for_user(index, behaviour, history, index.vectors[12], NOW, 20, ODD)
    assert ODD[found.rows].all()
    assert all(ODD[each.rows].all() for each in found.channels)
    assert 15 in found.rows


def test_stranger_gets_the_popular(index: ExactIndex, behaviour: Behaviour) -> None:
    found = recall.for_user(index, behaviour, EMPTY, None, NOW, 8, None)
    assert [each.name for each in found.channels] == ["popular"]
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_nothing_known_of_anybody(index: ExactIndex) -> None:
    assert len(recall.for_user(index, Behaviour(20), EMPTY, None, NOW, 8, None).rows) == 0
