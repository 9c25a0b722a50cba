"""Recommend over a socket."""

import pytest
from harness import Fallback, RecommendRequest, Running, channels, equals, ids, refusal
from vitrine.v1.event_pb2 import Event

from ranker.features import Context
from ranker.history import CLICK, DISLIKE, PURCHASE, RATING, VIEW, History
from server import pipeline
from server.pipeline import Ask

STRANGER = "nobody knows"


def test_a_known_user(server: Running) -> None:
    for user in list(server.live.state.behaviour.users)[:10]:
        answer = server.recommend(RecommendRequest(user_id=user, page_size=50))
        assert answer.fallback == Fallback.NONE
        assert len(set(ids(answer))) == 50
        assert all(channels(hit) <= {"USER", "COVISITED", "HISTORY", "POPULAR", "TRENDING"} for hit in answer.hits)
        assert {"USER", "COVISITED", "HISTORY"} <= set().union(*(channels(hit) for hit in answer.hits))
        assert all(hit.member_scores.HasField("network") for hit in answer.hits)
        assert answer.info.attribution_token
        stages = [timing.stage for timing in answer.info.timings]
        assert stages == ["wait", "encode", "recall", "features", "score", "page"]


def test_a_stranger_gets_what_is_popular(server: Running) -> None:
    for request in (RecommendRequest(), RecommendRequest(user_id=STRANGER)):
        answer = server.recommend(request)
        assert answer.fallback == Fallback.POPULAR
        assert len(answer.hits) == 24
        assert all(channels(hit) <= {"POPULAR", "TRENDING"} for hit in answer.hits)
        assert {"POPULAR", "TRENDING"} == set().union(*(channels(hit) for hit in answer.hits))


def test_recent_products_speak_for_a_stranger(server: Running) -> None:
    recent = server.live.state.snapshot.ids[5:8]
    plain = server.recommend(RecommendRequest(user_id=STRANGER, page_size=50))
    answer = server.recommend(RecommendRequest(user_id=STRANGER, recent_product_ids=recent, page_size=50))
    assert answer.fallback == Fallback.NONE
    assert ids(answer) != ids(plain)
    assert {"USER", "COVISITED"} <= set().union(*(channels(hit) for hit in answer.hits))
    # They were looked at, not stored.
    assert server.recommend(RecommendRequest(user_id=STRANGER)).fallback == Fallback.POPULAR


def test_unknown_recent_products_are_named(server: Running) -> None:
    known = server.live.state.snapshot.ids[0]
    answer = server.recommend(RecommendRequest(recent_product_ids=["gone", known, "never"]))
    assert list(answer.unknown_product_ids) == ["gone", "never"]
    assert answer.fallback == Fallback.NONE
    only = server.recommend(RecommendRequest(recent_product_ids=["gone"]))
    assert (list(only.unknown_product_ids), only.fallback) == (["gone"], Fallback.POPULAR)


def test_a_user_vector_stands_in_for_the_history(server: Running) -> None:
    state = server.live.state
    vector = state.model.space.vectors[7]
    answer = server.recommend(RecommendRequest(user_vector=vector, page_size=100))
    assert answer.fallback == Fallback.NONE
    by_vector = {
        source.rank: hit.product.id for hit in answer.hits for source in hit.recall_sources if source.channel == 2
    }
    if 1 in by_vector:
        assert by_vector[1] == state.snapshot.ids[7]
    assert by_vector


def test_other_products_for_other_users(server: Running) -> None:
    users = list(server.live.state.behaviour.users)[:10]
    assert len({tuple(ids(server.recommend(RecommendRequest(user_id=user)))) for user in users}) > 5


def engaged(server: Running, kinds: set[int]) -> dict[str, set[str]]:
    """For some users who did all of it, the products that they did one of `kinds` with."""
    state = server.live.state
    found = {}
    for user, history in state.behaviour.users.items():
        theirs = {row for row, kind in zip(history.rows, history.kinds, strict=True) if kind in kinds}
        if len(theirs) > 1:
            found[user] = {state.snapshot.ids[row] for row in theirs}
    return dict(list(found.items())[:5])


def test_what_a_user_bought_is_left_out_where_it_is_asked_for(server: Running) -> None:
    bought = engaged(server, {PURCHASE})
    assert bought
    for user, products in bought.items():
        plain = server.recommend(RecommendRequest(user_id=user, page_size=100))
        assert products & set(ids(plain))
        answer = server.recommend(RecommendRequest(user_id=user, page_size=100, exclude=[Event.PURCHASE]))
        assert not products & set(ids(answer))
        assert len(answer.hits) == 100
        # What was only looked at is still there.
        assert any("HISTORY" in channels(hit) for hit in answer.hits)


def test_excluded_under_a_filter(server: Running) -> None:
    user, products = next(iter(engaged(server, {VIEW, CLICK}).items()))
    ask = RecommendRequest(user_id=user, page_size=100, filter=equals("in_stock", True))
    assert products & set(ids(server.recommend(ask)))
    ask.exclude.extend([Event.VIEW, Event.CLICK])
    answer = server.recommend(ask)
    assert not products & set(ids(answer))
    assert all(hit.product.in_stock for hit in answer.hits)


def test_products_of_the_session_are_views(server: Running) -> None:
    recent = server.live.state.snapshot.ids[5:8]
    ask = RecommendRequest(recent_product_ids=recent, page_size=100)
    assert set(recent) & set(ids(server.recommend(ask)))
    ask.exclude.append(Event.VIEW)
    assert not set(recent) & set(ids(server.recommend(ask)))


def test_what_was_rated_low_was_rated() -> None:
    context = Context(0.0, History((1, 2), (RATING, CLICK), (0.0, 1.0)), disliked=History((0,), (DISLIKE,), (0.0,)))
    assert pipeline._left_out(Ask(excluded=frozenset({RATING})), context).tolist() == [1, 0]
    assert pipeline._left_out(Ask(excluded=frozenset({CLICK})), context).tolist() == [2]


def test_requests_of_one_batch_leave_out_each_its_own(server: Running) -> None:
    state = server.live.state
    (first, mine), (second, theirs), *_ = engaged(server, {PURCHASE}).items()
    kinds = frozenset({PURCHASE})
    asks = [Ask(user=first, excluded=kinds, size=100), Ask(user=second, size=100), Ask(user=second, excluded=kinds)]
    shown = [{state.snapshot.ids[row] for row in answer.hits.rows} for answer in pipeline.recommend(state, asks)]
    assert not mine & shown[0]
    assert theirs & shown[1]
    assert not theirs & shown[2]


@pytest.mark.parametrize("kind", [Event.IMPRESSION, Event.RETURN, Event.TYPE_UNSPECIFIED])
def test_what_no_history_holds_cannot_be_excluded(server: Running, kind: int) -> None:
    refused = refusal(server.recommend, RecommendRequest(user_id="u", exclude=[Event.CLICK, kind]))
    assert "VIEW, CLICK, ADD_TO_CART, PURCHASE, RATING can" in refused.fields["exclude[1]"]
