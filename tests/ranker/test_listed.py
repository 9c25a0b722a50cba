"""Recall of a catalogue of which some products are deleted."""

from collections.abc import Sequence

import numpy as np
import pytest

from indexer.arrays import Floats, Ints, Mask
from indexer.exact import ExactIndex
from indexer.index import Neighbours
from indexer.lexical import LexicalIndex
from ranker import recall
from ranker.behaviour import LATELY, MONTH, Behaviour
from ranker.covisited import Covisited
from ranker.features import Context
from ranker.history import CLICK, EMPTY, Engagement, History
from ranker.recall import Retrieval

ROWS, K, NOW = 400, 40, 1_700_000_000.0


class Watched(ExactIndex):
    """Notes under which masks it is searched."""

    def __init__(self, vectors: Floats) -> None:
        super().__init__(vectors)
        self.searches: list[list[Mask | None]] = []

    def search_each(self, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours:
        self.searches.append(list(masks))
        return super().search_each(queries, k, masks)


@pytest.fixture
def vectors() -> Floats:
    drawn = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


@pytest.fixture
def titles(vectors: Floats) -> Watched:
    return Watched(vectors)


@pytest.fixture
def behaviour() -> Behaviour:
    """Row 0 is the most popular, and 300 rows are at all."""
    behaviour = Behaviour(ROWS)
    behaviour.apply_all(Engagement("u", row, CLICK, NOW - row, "boot" if row < 50 else "") for row in range(300))
    return behaviour


@pytest.fixture
def retrieval(titles: Watched, vectors: Floats) -> Retrieval:
    neighbours = np.arange(ROWS) ^ 1
    covisited = Covisited(np.arange(ROWS + 1), neighbours, np.ones(ROWS, np.float32))
    lexical = LexicalIndex.build([f"boot model {row}" for row in range(ROWS)])
    return Retrieval(titles, lexical, Watched(-vectors), covisited, K, {})


def without(rows: Ints | Sequence[int]) -> Mask:
    listed = np.ones(ROWS, bool)
    listed[rows] = False
    return listed


def nearest(vectors: Floats, vector: Floats, listed: Mask) -> list[int]:
    order = np.argsort(-(vectors @ vector), kind="stable")
    return order[listed[order]][:K].tolist()


def test_a_few_that_are_gone_are_left_out_without_a_second_search(titles: Watched, vectors: Floats) -> None:
    near = nearest(vectors, vectors[7], without([]))
    listed = without(near[:4])
    [found] = recall.for_vectors(titles, [vectors[7]], K, [None], "dense", [listed])
    assert found.rows.tolist() == near[4:]
    assert found.scores == pytest.approx(vectors[near[4:]] @ vectors[7], abs=1e-6)
    assert titles.searches == [[None]]


def test_who_loses_much_is_searched_for_again(titles: Watched, vectors: Floats) -> None:
    """Three requests at once, of which the deletions hit one; another has a mask of its own."""
    listed = without(nearest(vectors, vectors[7], without([]))[:5])
    own = listed & (np.arange(ROWS) % 2 == 0)
    asked = [vectors[7], -vectors[7], vectors[7]]
    hit, spared, masked = recall.for_vectors(titles, asked, K, [None, None, own], "dense", [listed] * 3)
    assert hit.rows.tolist() == nearest(vectors, vectors[7], listed)
    assert spared.rows.tolist() == nearest(vectors, -vectors[7], listed)
    assert masked.rows.tolist() == nearest(vectors, vectors[7], own)
    assert [[mask is None for mask in masks] for masks in titles.searches] == [[True, True, False], [False]]
    assert titles.searches[1][0] is listed


def test_nothing_is_found_where_nothing_is_listed(titles: Watched, vectors: Floats) -> None:
    [found] = recall.for_vectors(titles, [vectors[7]], K, [None], "dense", [np.zeros(ROWS, bool)])
    assert len(found.rows) == len(found.scores) == 0


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_every_channel_proposes_what_is_listed_and_fills_its_list(
    retrieval: Retrieval, behaviour: Behaviour, vectors: Floats, share: float
) -> None:
    listed = np.random.default_rng(1).random(ROWS) >= share
    history = History(tuple(range(60)), (CLICK,) * 60, tuple(map(float, range(60))))
    user = Context(NOW, history, user_vector=vectors[3])
    query = Context(NOW, EMPTY, "boot", "boot", vectors[5])
    drawn = retrieval.recall_each([user, query], behaviour, [None, None], [listed, listed])
    masked = retrieval.recall_each([user, query], behaviour, [listed, listed])
    for found, under in zip(drawn, masked, strict=True):
        assert listed[found.rows].all()
        assert [channel.name for channel in found.channels] == [channel.name for channel in under.channels]
        for mine, theirs in zip(found.channels, under.channels, strict=True):
            assert listed[mine.rows].all()
            # Those near a vector may be a tenth fewer.
            assert mine.rows.tolist() == theirs.rows.tolist()[: len(mine.rows)]
            least = 0.9 if mine.name in ("dense", "user") else 1.0
            assert len(mine.rows) >= least * len(theirs.rows)


def test_without_deletions_all_is_as_it_was(retrieval: Retrieval, behaviour: Behaviour, vectors: Floats) -> None:
    context = Context(NOW, EMPTY, "boot", "boot", vectors[5])
    [plain] = retrieval.recall_each([context], behaviour, [None])
    [listed] = retrieval.recall_each([context], behaviour, [None], [None])
    assert plain.rows.tolist() == listed.rows.tolist()
    assert retrieval.titles.searches == [[None], [None]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("lifetime", [MONTH, LATELY])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.8, 0.99, 1.0])
def test_the_most_popular_of_what_a_mask_keeps(behaviour: Behaviour, lifetime: int, share: float) -> None:
    mask = np.random.default_rng(2).random(ROWS) >= share
    expected = [row for row in range(300) if mask[row]]
    for k in (1, K, 400):
        assert behaviour.most_popular(k, mask, lifetime).tolist() == expected[:k]


def test_most_masks_need_no_order_of_their_own(behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    ordered, asked = Behaviour._ordered, []

    def noted(self: Behaviour, k: int, mask: Mask | None, lifetime: int) -> Ints:
        asked.append(mask is None)
        return ordered(self, k, mask, lifetime)

    monkeypatch.setattr(Behaviour, "_ordered", noted)
    for _ in range(3):
        behaviour.most_popular(K, without(range(100)))
    assert asked == [True]
    # More than three quarters of what is looked through are gone.
    assert behaviour.most_popular(K, without(range(130))).tolist() == list(range(130, 170))
    assert asked == [True, False]
