"""Recommend over a socket."""

from harness import Fallback, RecommendRequest, Running, channels, ids

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
