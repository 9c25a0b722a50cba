"""Recall channels under masks, and their fusion as arithmetic."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest

from indexer.arrays import Floats, Mask
from indexer.exact import ExactIndex
from indexer.index import Neighbours
from indexer.lexical import LexicalIndex
from ranker import recall
from ranker.behaviour import LATELY, MONTH, Behaviour
from ranker.covisited import Covisited, fit_covisited
from ranker.features import Context
from ranker.history import CLICK, EMPTY, PURCHASE, Engagement, History
from ranker.recall import Channel, Retrieval

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


@pytest.fixture
def covisited(engaged: Callable[..., pl.DataFrame]) -> Covisited:
    """Users walk down the rows: the neighbours of 14 are 15, then 16, then 13 and so on."""
    return fit_covisited(engaged(*((f"u{i}", row, float(row)) for i in range(3) for row in range(10, 20))), 20)


@pytest.fixture
def retrieval(index: ExactIndex, covisited: Covisited) -> Retrieval:
    """Titles are numbers in words; the product space is the titles' own, turned about."""
    titles = [f"boot {'red' if row % 3 else 'blue'} model {row}" for row in range(20)]
    return Retrieval(index, LexicalIndex.build(titles), ExactIndex(-index.vectors), covisited, 6, {})


def names(channels: Sequence[Channel]) -> list[str]:
    return [each.name for each in channels]


def channel(*rows: int, name: str = "some") -> Channel:
    return Channel(name, np.array(rows, np.int64), np.zeros(len(rows)))


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


def test_by_query_the_first_places_count_more() -> None:
    found = recall.fuse([channel(7, 8), channel(5, 7)], 3, kind="query")
    assert found.rows.tolist() == [7, 5, 8]
    assert found.scores.tolist() == pytest.approx([1 / (10 + 1) + 1 / (10 + 2), 1 / (10 + 1), 1 / (10 + 2)])


def test_weights_multiply_the_reciprocal_ranks() -> None:
    channels = [channel(7, 8, 9, name="a"), channel(5, 6, 7, name="b"), channel(9, name="c")]
    found = recall.fuse(channels, 10, {"a": 0.5, "b": 2.0, "unheard of": 9.0})
    assert dict(zip(found.rows.tolist(), found.scores.tolist(), strict=True)) == pytest.approx(
        {
            5: 2.0 / (60 + 1),
            6: 2.0 / (60 + 2),
            7: 0.5 / (60 + 1) + 2.0 / (60 + 3),
            8: 0.5 / (60 + 2),
            9: 0.5 / (60 + 3) + 1.0 / (60 + 1),
        }
    )
    assert found.rows.tolist() == [7, 5, 6, 9, 8]
    assert found.channels is channels


def test_a_channel_of_no_weight_fills_up_the_end() -> None:
    found = recall.fuse([channel(1, 2, name="a"), channel(3, 1, name="b")], 10, {"b": 0.0})
    assert found.rows.tolist() == [1, 2, 3]
    assert found.scores == pytest.approx([1 / 61, 1 / 62, 0.0])


def test_a_channel_that_weighs_nothing_keeps_its_order() -> None:
    """Behind all that weighs something; it may be the only one that finds anything."""
    found = recall.fuse([channel(9, 4, 7, name="a")], 2, {"a": 0.0})
    assert (found.rows.tolist(), found.scores.tolist()) == ([9, 4], [0.0, 0.0])
    both = recall.fuse([channel(9, 4, 7, name="a"), channel(8, 4, name="b")], 3, {"a": 0.0})
    assert both.rows.tolist() == [8, 4, 9]


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
    [found] = recall.for_vectors(index, [index.vectors[6]], 5, [None], "dense")
    assert found.name == "dense"
    assert found.rows.tolist() == np.argsort(-(index.vectors @ index.vectors[6]))[:5].tolist()
    assert found.scores[0] == pytest.approx(1.0)


def test_vector_channel_leaves_out_places_that_could_not_be_filled(index: ExactIndex) -> None:
    masks = [None, ODD, np.zeros(20, bool)]
    every, few, none = recall.for_vectors(index, [index.vectors[6]] * 3, 50, masks, "dense")
    assert len(every.rows) == 20
    assert sorted(few.rows.tolist()) == list(range(1, 20, 2))
    assert len(none.rows) == len(none.scores) == 0
    assert recall.for_vectors(index, [], 5, [], "dense") == []


def test_history_channel_most_often_then_latest() -> None:
    history = History((4, 7, 4, 9, 2), (PURCHASE,) * 5, (1.0, 2.0, 3.0, 4.0, 5.0))
    found = recall.for_history(history, 10, None)
    assert found.rows.tolist() == [4, 2, 9, 7]
    assert found.scores.tolist() == [2.0, 1.0, 1.0, 1.0]
    assert recall.for_history(history, 2, None).rows.tolist() == [4, 2]
    assert recall.for_history(history, 2, ODD).rows.tolist() == [9, 7]
    assert recall.for_history(history, 2, ODD).scores.tolist() == [1.0, 1.0]
    assert recall.for_history(EMPTY, 2, None).rows.tolist() == []


def test_popular_and_trending_differ_by_how_long_they_remember(covisited: Covisited) -> None:
    day = 86_400.0
    behaviour = Behaviour(20)
    behaviour.apply_all(Engagement("u", 7, CLICK, NOW - 10 * day) for _ in range(5))
    behaviour.apply_all(Engagement("u", row, CLICK, NOW - row) for row in (3, 5))
    popular, trending = recall.for_user(covisited, behaviour, Context(NOW, EMPTY), 2, None)
    assert names([popular, trending]) == ["popular", "trending"]
    assert (popular.rows.tolist(), trending.rows.tolist()) == ([7, 3], [3, 5])
    for channel, lifetime in ((popular, MONTH), (trending, LATELY)):
        np.testing.assert_allclose(channel.scores, behaviour.popularity(channel.rows, NOW)[lifetime])
    masked = recall.for_everyone(behaviour, NOW, 3, ODD, "popular", MONTH)
    assert masked.rows.tolist() == [7, 3, 5]
    assert recall.for_everyone(behaviour, NOW, 3, ~ODD, "popular", MONTH).rows.tolist() == []


def test_neighbours_channel_leaves_the_history_out(covisited: Covisited) -> None:
    found = recall.for_neighbours(covisited, History((14, 15), (CLICK, CLICK), (1.0, 2.0)), 3, None)
    weights = dict(zip(*(part.tolist() for part in covisited.spread(History((15,), (CLICK,), (1.0,)))), strict=True))
    before = dict(zip(*(part.tolist() for part in covisited.spread(History((14,), (CLICK,), (1.0,)))), strict=True))
    # 16 is next after 15 and one further from 14, which counts 0.8 of it.
    assert found.rows.tolist() == [16, 17, 18]
    assert found.scores[0] == pytest.approx(weights[16] + 0.8 * before[16])
    whole = recall.for_neighbours(covisited, History((14, 15), (CLICK, CLICK), (1.0, 2.0)), 20, None)
    assert sorted(whole.rows.tolist()) == [10, 11, 12, 13, 16, 17, 18, 19]
    masked = recall.for_neighbours(covisited, History((14,), (CLICK,), (1.0,)), 2, ODD)
    assert masked.rows.tolist() == [15, 17]


def test_a_query_with_text_is_matched_three_ways(retrieval: Retrieval, index: ExactIndex) -> None:
    behaviour = Behaviour(20)
    behaviour.apply_all(Engagement("u", row, CLICK, NOW, "blue boot") for row in (4, 17, 17, 5))
    behaviour.apply(Engagement("u", 9, CLICK, NOW, "another"))
    context = Context(NOW, EMPTY, "Blue boot", "blue boot", index.vectors[6])
    dense, lexical, engaged = retrieval.channels(context, behaviour)
    assert names([dense, lexical, engaged]) == ["dense", "lexical", "engaged"]
    assert dense.rows.tolist() == index.search(index.vectors[6][None], 6).rows[0].tolist()
    assert lexical.rows.tolist() == [0, 3, 6, 9, 12, 15]
    assert engaged.rows.tolist() == [17, 4, 5]
    assert engaged.scores.tolist() == [2.0, 1.0, 1.0]
    found = retrieval.recall(context, behaviour)
    assert found.rows[0] == 6
    assert len(found.rows) == retrieval.candidates


def test_a_query_nobody_asked_has_no_engaged_channel(retrieval: Retrieval, index: ExactIndex) -> None:
    behaviour = Behaviour(20)
    behaviour.apply(Engagement("u", 9, CLICK, NOW, "another"))
    context = Context(NOW, EMPTY, "Blue boot", "blue boot", index.vectors[6])
    assert names(retrieval.channels(context, behaviour)) == ["dense", "lexical"]


def test_a_query_without_text_has_its_vector_alone(
    retrieval: Retrieval, index: ExactIndex, behaviour: Behaviour
) -> None:
    history = History((14, 15), (PURCHASE, PURCHASE), (1.0, 2.0))
    context = Context(NOW, history, query_vector=index.vectors[6], user_vector=index.vectors[3])
    assert names(retrieval.channels(context, behaviour)) == ["dense"]
    assert retrieval.recall(context, behaviour).rows[0] == 6


def test_user_candidates_come_from_all_channels(retrieval: Retrieval, index: ExactIndex, behaviour: Behaviour) -> None:
    history = History((15, 15), (PURCHASE, PURCHASE), (1.0, 2.0))
    # The user's vector is looked up among the products, whose vectors are the titles' turned about.
    context = Context(NOW, history, user_vector=-index.vectors[12])
    found = retrieval.recall(context, behaviour)
    assert names(found.channels) == ["user", "covisited", "history", "popular", "trending"]
    assert [each.rows[0] for each in found.channels] == [12, 16, 15, 0, 0]
    assert len(found.rows) == 6
    assert set(found.rows.tolist()) < {int(row) for each in found.channels for row in each.rows}
    assert (np.diff(found.scores) <= 0).all()
    without = retrieval.channels(context._replace(user_vector=None), behaviour)
    assert names(without) == ["covisited", "history", "popular", "trending"]


def test_stranger_gets_the_popular(retrieval: Retrieval, behaviour: Behaviour) -> None:
    found = retrieval._replace(candidates=8).recall(Context(NOW, EMPTY), behaviour)
    assert names(found.channels) == ["popular", "trending"]
    assert found.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_nothing_known_of_anybody(retrieval: Retrieval) -> None:
    assert len(retrieval.recall(Context(NOW, EMPTY), Behaviour(20)).rows) == 0


@pytest.mark.parametrize("mask", [ODD, np.arange(20) < 2, np.zeros(20, bool)])
@pytest.mark.parametrize("query", ["blue boot", ""])
def test_every_channel_respects_the_mask(
    query: str, mask: np.ndarray, retrieval: Retrieval, index: ExactIndex, behaviour: Behaviour
) -> None:
    behaviour.apply_all(Engagement("u", row, CLICK, NOW, "blue boot") for row in range(20))
    history = History((0, 1, 14, 15), (PURCHASE,) * 4, (1.0, 2.0, 3.0, 4.0))
    context = Context(NOW, history, query, query, index.vectors[6] if query else None, None, index.vectors[12])
    unmasked, masked = (retrieval.channels(context, behaviour, each) for each in (None, mask))
    assert names(unmasked) == names(masked)
    assert any(not mask[each.rows].all() for each in unmasked)
    for each in masked:
        assert mask[each.rows].all(), each.name
        assert len(each.rows) == len(each.scores) <= retrieval.candidates
        # As many as the mask leaves, where the channel knows something of every product.
        if each.name in ("dense", "user", "popular", "trending", "engaged"):
            assert len(each.rows) == min(mask.sum(), retrieval.candidates), each.name
    assert mask[retrieval.recall(context, behaviour, mask).rows].all()


def test_weights_go_by_the_kind_of_request(retrieval: Retrieval, index: ExactIndex, behaviour: Behaviour) -> None:
    user = Context(NOW, History((15,), (PURCHASE,), (1.0,)), user_vector=index.vectors[12])
    query = user._replace(query="blue boot", query_vector=index.vectors[6])
    assert (recall.kind_of(user), recall.kind_of(query)) == ("user", "query")
    weighed = retrieval._replace(weights={"user": {"popular": 9.0}, "query": {"lexical": 9.0}})
    assert set(weighed.recall(user, behaviour).rows.tolist()) == {0, 1, 2, 3, 4, 5}
    assert set(weighed.recall(query, behaviour).rows.tolist()) == {0, 3, 6, 9, 12, 15}
    for context in (user, query):
        plain = recall.fuse(retrieval.channels(context, behaviour), 6)
        assert retrieval.recall(context, behaviour).rows.tolist() == plain.rows.tolist()


class Counted(ExactIndex):
    """Notes how many queries each search has."""

    def __init__(self, vectors: Floats) -> None:
        super().__init__(vectors)
        self.searches: list[int] = []

    def search_each(self, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours:
        self.searches.append(len(queries))
        return super().search_each(queries, k, masks)


def test_a_batch_is_one_search_and_each_gets_what_it_gets_alone(
    retrieval: Retrieval, index: ExactIndex, behaviour: Behaviour
) -> None:
    titles, products = Counted(index.vectors), Counted(-index.vectors)
    counted = retrieval._replace(titles=titles, products=products)
    history = History((15,), (PURCHASE,), (1.0,))
    known = Context(NOW, history, "blue boot", "blue boot", index.vectors[6], None, index.vectors[12])
    contexts = [
        known,
        known._replace(query_vector=index.vectors[2]),
        known._replace(query="", query_key="", query_vector=None),
        Context(NOW, EMPTY),
        known._replace(query=""),
    ]
    masks = [None, ODD, ODD, None, np.arange(20) < 2]
    found = counted.recall_each(contexts, behaviour, masks)
    assert (titles.searches, products.searches) == ([3], [1])
    for each, context, mask in zip(found, contexts, masks, strict=True):
        alone = retrieval.recall(context, behaviour, mask)
        assert names(each.channels) == names(alone.channels)
        np.testing.assert_array_equal(each.rows, alone.rows)
        np.testing.assert_array_equal(each.scores, alone.scores)
    assert counted.recall_each([], behaviour, []) == []
