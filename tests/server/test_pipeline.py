"""The request path: filters act inside recall, and what is short of time is answered in recall order."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import pytest
from harness import (
    RecommendRequest,
    Running,
    SearchRequest,
    SimilarRequest,
    Trained,
    at_most,
    equals,
    hash_encoder,
    ids,
)
from vitrine.v1 import filter_pb2, search_service_pb2

from indexer.arrays import Floats, Mask
from indexer.exact import ExactIndex
from indexer.index import Neighbours
from ranker import features
from ranker.features import Context
from ranker.history import EMPTY
from ranker.recall import Candidates
from ranker.scoring import Scorable
from server import pipeline
from server.filters import All, AnyOf, Equals, Not
from server.hits import Hits
from server.pipeline import Ask
from server.state import State, load_state

QUERY = "waterproof boots"


@pytest.fixture(scope="module")
def state(trained: Trained) -> State:
    return load_state(trained.store, trained.release, trained.settings, trained.encoder, trained.dump.events)


def context_of(state: State, query: str) -> Context:
    """What a stranger's query is to the ranker."""
    return state.model.space.context(state.now(), EMPTY, query, state.encoder.encode([query])[0])


def recalled(state: State, query: str) -> Candidates:
    """The candidates of a stranger's query in recall order."""
    return state.model.retrieval.recall(context_of(state, query), state.behaviour)


def price_of_share(server: Running, share: float) -> float:
    """The price that about `share` of the products do not exceed."""
    prices = [p for p in server.live.state.snapshot.products.column("price").to_pylist() if p is not None]
    return float(np.quantile(prices, share))


@pytest.mark.parametrize("share", [0.002, 0.01, 0.05, 0.3, 0.9, 1.0])
def test_a_filtered_search_is_the_exact_search_of_what_passes(server: Running, share: float) -> None:
    state, bound = server.live.state, price_of_share(server, share)
    prices = state.snapshot.products.column("price").to_pylist()
    mask = np.array([price is not None and price <= bound for price in prices])
    vector, k = hash_encoder().encode([QUERY]), state.model.retrieval.candidates
    wanted = ExactIndex(np.asarray(state.snapshot.vectors)).search(vector, k, mask).rows[0]
    expected = [state.snapshot.ids[row] for row in wanted if row >= 0]
    target = search_service_pb2.QueryVector(values=vector[0])
    request = SearchRequest(query_vector=target, filter=at_most("price", bound), page_size=100)
    first = server.search(request)
    assert len(first.hits) == min(100, len(expected))
    assert first.info.candidates == len(expected)
    found = ids(first)
    if first.next_page_token:
        request.page_token = first.next_page_token
        found += ids(server.search(request))
    assert set(found) == set(expected)
    assert all(hit.product.price <= bound for hit in first.hits)
    # By words, other channels propose products too, and all of them pass.
    by_words = server.search(SearchRequest(query=QUERY, filter=at_most("price", bound), page_size=100))
    assert by_words.info.candidates == min(k, int(mask.sum()))
    assert all(hit.product.price <= bound for hit in by_words.hits)


def test_a_page_is_full_wherever_enough_products_pass(server: Running) -> None:
    products = server.live.state.snapshot.products
    for category in set(products.column("category").to_pylist()) - {None}:
        passing = products.column("category").to_pylist().count(category)
        answer = server.search(SearchRequest(query=QUERY, filter=equals("category", category), page_size=50))
        assert len(answer.hits) == min(50, passing)
        assert {hit.product.category for hit in answer.hits} == {category}


def test_similar_and_recommend_respect_filters(server: Running) -> None:
    user, product = next(iter(server.live.state.behaviour.users)), server.live.state.snapshot.ids[0]
    bound = price_of_share(server, 0.4)
    stock = filter_pb2.Filter(none=equals("in_stock", False))
    both = filter_pb2.Filter(all=filter_pb2.FilterList(filters=[at_most("price", bound), stock]))
    for call, request in (
        (server.similar, SimilarRequest(product_id=product, filter=both)),
        (server.recommend, RecommendRequest(user_id=user, filter=both)),
        (server.recommend, RecommendRequest(filter=both)),
        (server.recommend, RecommendRequest(recent_product_ids=[product], filter=both)),
        (server.recommend, RecommendRequest(user_vector=[1.0] * 16, filter=both)),
    ):
        answer = call(request)
        assert len(answer.hits) == 24
        assert all(hit.product.price <= bound and hit.product.in_stock for hit in answer.hits)


def test_a_filter_that_nothing_passes(server: Running) -> None:
    nothing = equals("category", "no such category")
    product = server.live.state.snapshot.ids[0]
    for answer in (
        server.search(SearchRequest(query=QUERY, filter=nothing)),
        server.recommend(RecommendRequest(filter=nothing)),
    ):
        assert (ids(answer), answer.next_page_token, answer.info.candidates) == ([], "", 0)
        assert [d.stage for d in answer.info.degraded] == ["recall"]
    assert ids(server.similar(SimilarRequest(product_id=product, filter=nothing))) == []


def assert_same(one: Hits, other: Hits) -> None:
    for field in fields(Hits):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


def test_a_batch_answers_each_as_alone(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "now", lambda _: 1.8e9)
    users = list(state.behaviour.users)[:3]
    for work, asks in (
        (pipeline.search, [Ask(query="boots"), Ask(query="red dress", user=users[0]), Ask(query="x", size=3)]),
        (pipeline.recommend, [Ask(user=users[1]), Ask(), Ask(user=users[2], recent=state.snapshot.ids[:2], size=5)]),
        (pipeline.similar, [Ask(product=product) for product in state.snapshot.ids[:3]]),
    ):
        for ask, answer in zip(asks, work(state, asks), strict=True):
            (alone,) = work(state, [ask])
            assert answer.hits.rows.tolist() == alone.hits.rows.tolist()
            np.testing.assert_allclose(answer.hits.scores, alone.hits.scores, rtol=1e-5)
            assert len(answer.hits) == ask.size


def test_filters_of_a_batch_are_told_apart(state: State) -> None:
    rare, common = (Equals("category", name) for name in category_names(state))
    conditions = [
        All([rare, common]),
        AnyOf([rare, common]),
        None,
        Not(rare),
        All([rare]),
        AnyOf([rare, common]),
    ]
    asks = [Ask(query="boots", condition=condition, size=100) for condition in conditions]
    for ask, answer in zip(asks, pipeline.search(state, asks), strict=True):
        (alone,) = pipeline.search(state, [ask])
        assert answer.hits.rows.tolist() == alone.hits.rows.tolist()
        assert answer.candidates == alone.candidates
    # They are equal as tuples.
    assert conditions[0] == conditions[1]


def test_an_equal_filter_of_a_batch_is_one_mask(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Sequence[Mask | None]] = []
    each = ExactIndex.search_each

    def watched(index: ExactIndex, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours:
        given.append(masks)
        return each(index, queries, k, masks)

    monkeypatch.setattr(ExactIndex, "search_each", watched)
    one, other, *_ = category_names(state)
    names = [one, other, one, None]
    pipeline.search(state, [Ask(query="mug", condition=name and Equals("category", name)) for name in names])
    [masks] = given
    assert masks[3] is None
    assert masks[0] is masks[2] is not masks[1]


def category_names(state: State) -> list[str]:
    """The rarest category and the most common one."""
    names = Counter(state.snapshot.products.column("category").to_pylist()).most_common()
    return [names[-1][0], names[0][0]]


def test_a_misspelt_query_is_embedded_as_it_was_meant(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    encode = state.encoder.encode
    monkeypatch.setattr(state.encoder, "encode", lambda texts: read.extend(texts) or encode(texts))
    pipeline.search(state, [Ask(query="Waterprof  mug 7"), Ask(query="waterproof mug 7")])
    assert read == ["waterproof mug 7"]


def test_the_late_are_left_in_recall_order_and_told(state: State) -> None:
    hurried = replace(state, ranking_budget=60.0)
    late, relaxed, lost = pipeline.search(
        hurried,
        [
            Ask(query="boots", deadline=time.monotonic() + 30),
            Ask(query="boots", deadline=time.monotonic() + 90),
            Ask(query="boots", condition=Equals("category", "none such"), deadline=time.monotonic() + 30),
        ],
    )
    assert [stage for stage, _ in late.degraded] == ["score"]
    assert late.hits.scores.tolist() == late.hits.recall.tolist()
    assert late.hits.rows.tolist() == recalled(state, "boots").rows[:24].tolist()
    assert (late.hits.network, late.hits.trees) == (None, None)
    assert relaxed.degraded == []
    assert relaxed.hits.network is not None
    assert relaxed.hits.trees is not None
    assert (len(lost.hits), lost.candidates) == (0, 0)


def test_where_time_is_short_the_trees_rank_alone(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "now", lambda _: 1.8e9)
    hurried = replace(state, ranking_budget=60.0, network_budget=60.0)
    now = time.monotonic()
    asks = [Ask(query="boots", deadline=now + seconds) for seconds in (30, 90, 150)]
    late, short, relaxed = pipeline.search(hurried, asks)
    assert [stage for stage, _ in late.degraded] == ["score"]
    assert short.degraded == [("network", "the deadline left no time for the DNN: the trees ranked alone")]
    context, found = context_of(state, "boots"), recalled(state, "boots")
    rows = found.rows
    matrix = features.matrix(context, rows, state.model.catalogue, state.behaviour)
    listed = [Scorable(context, rows, matrix)]
    (alone,) = state.model.members.score(listed, state.model.space.vectors, skip_network=True)
    alone = state.model.served("query", alone, found.scores)
    best = np.argsort(-alone.fused, kind="stable")[:24]
    assert short.hits.rows.tolist() == rows[best].tolist()
    assert short.hits.scores.tolist() == alone.fused[best].tolist()
    assert short.hits.network is None
    assert short.hits.trees.tolist() == state.model.members.tree_scores(matrix[best]).tolist()
    # The others of the batch are answered as if they had come alone.
    assert relaxed.degraded == []
    for answer, ask in ((late, asks[0]), (relaxed, asks[2])):
        (by_itself,) = pipeline.search(hurried, [ask])
        assert_same(answer.hits, by_itself.hits)
    assert relaxed.hits.network is not None


def test_no_engagement_and_no_user_is_an_empty_answer(trained: Trained) -> None:
    fresh = load_state(trained.store, trained.release, trained.settings, trained.encoder, None)
    (answer,) = pipeline.recommend(fresh, [Ask()])
    assert (len(answer.hits), answer.personal) == (0, False)
    assert [stage for stage, _ in answer.degraded] == ["recall"]


def test_without_members_everything_is_in_recall_order(state: State) -> None:
    manifest = {**state.model.manifest, "fusion": "none", "learnt": [], "answered": []}
    unranked = replace(state, model=replace(state.model, manifest=manifest, members=None))
    (found,) = pipeline.search(unranked, [Ask(query="boots", deadline=time.monotonic() + 30)])
    assert found.degraded == [
        ("score", "the log held too few requests by query to learn from: hits are in recall order")
    ]
    assert found.hits.rows.tolist() == recalled(state, "boots").rows[:24].tolist()
    assert (found.hits.network, found.hits.trees) == (None, None)
    user = next(iter(state.behaviour.users))
    mine, stranger = pipeline.recommend(unranked, [Ask(user=user), Ask()])
    assert (mine.personal, stranger.personal) == (True, False)
    for answer in (mine, stranger):
        assert [stage for stage, _ in answer.degraded] == ["score"]
        assert answer.hits.scores.tolist() == answer.hits.recall.tolist()
    (alike,) = pipeline.similar(unranked, [Ask(product=state.snapshot.ids[0])])
    assert (len(alike.hits), alike.degraded) == (24, [])


def test_a_kind_of_request_the_log_never_held_is_left_in_recall_order(state: State) -> None:
    manifest = {**state.model.manifest, "learnt": ["user"]}
    purchases_only = replace(state, model=replace(state.model, manifest=manifest))
    (found,) = pipeline.search(purchases_only, [Ask(query="boots")])
    assert [stage for stage, _ in found.degraded] == ["score"]
    assert "by query" in found.degraded[0][1]
    assert found.hits.rows.tolist() == recalled(state, "boots").rows[:24].tolist()
    (ranked,) = pipeline.recommend(purchases_only, [Ask(recent=state.snapshot.ids[:3])])
    assert ranked.degraded == []
