"""A shop without a log: released, served, changed by its first events, and ranked as soon as the log is long enough."""

import json
from collections.abc import Callable
from pathlib import Path

from harness import (
    Fallback,
    RecommendRequest,
    Running,
    SearchRequest,
    SimilarRequest,
    Trained,
    adopted,
    at_most,
    channels,
    copied,
    ids,
    wait_until,
)
from vitrine.v1 import admin_service_pb2, event_pb2, event_service_pb2

from server.release import Releases

QUERY = "hiking boots"


def click(user: str, product: str, query: str = "") -> event_service_pb2.WriteEventsRequest:
    item = event_pb2.Event.Item(product_id=product, position=1)
    event = event_pb2.Event(type=event_pb2.Event.CLICK, user_id=user, query=query, items=[item])
    return event_service_pb2.WriteEventsRequest(events=[event])


def stages(answer: object) -> list[str]:
    return [left_out.stage for left_out in answer.info.degraded]  # type: ignore[attr-defined]


def test_the_first_rebuild_goes_live_and_says_what_is_missing(unlogged: Trained) -> None:
    live = Releases(unlogged.store).current()
    assert live == unlogged.release
    assert live.gate["ndcg"] is None
    told = [json.loads(line) for line in unlogged.log.splitlines()]
    (skipped,) = (line for line in told if line["step"] == "evaluate")
    assert "slice members has 0 requests, 20 are needed" in skipped["reason"]
    assert not (unlogged.store.path("models", live.model) / "report").exists()


def test_search_and_similar_answer_in_recall_order(unlogged: Trained, start: Callable[..., Running]) -> None:
    server = start(unlogged)
    found = server.search(SearchRequest(query=QUERY, page_size=10))
    assert len(found.hits) == 10
    assert stages(found) == ["score"]
    assert "too few requests by query" in found.info.degraded[0].reason
    for hit in found.hits:
        assert hit.score == hit.member_scores.recall
        assert not hit.member_scores.HasField("network")
        assert not hit.member_scores.HasField("trees")
    scores = [hit.score for hit in found.hits]
    assert scores == sorted(scores, reverse=True)
    assert set.union(*map(channels, found.hits)) == {"DENSE", "LEXICAL"}
    second = server.search(SearchRequest(query=QUERY, page_size=10, page_token=found.next_page_token))
    assert not {*ids(found)} & {*ids(second)}
    cheap = server.search(SearchRequest(query=QUERY, filter=at_most("price", 50.0)))
    assert all(hit.product.price <= 50.0 for hit in cheap.hits)
    alike = server.similar(SimilarRequest(product_id=found.hits[0].product.id, page_size=5))
    assert (len(alike.hits), stages(alike)) == (5, [])


def test_the_first_events_change_the_next_answers(
    unlogged: Trained, start: Callable[..., Running], tmp_path: Path
) -> None:
    server = start(copied(unlogged, tmp_path))
    nothing = server.recommend(RecommendRequest(user_id="ann"))
    assert (ids(nothing), nothing.fallback, stages(nothing)) == ([], Fallback.POPULAR, ["recall"])
    before = ids(server.search(SearchRequest(query=QUERY)))
    server.write(click("ann", before[9], QUERY))
    after = server.search(SearchRequest(query=QUERY))
    assert ids(after)[0] == before[9]
    assert "ENGAGED" in channels(after.hits[0])
    mine = server.recommend(RecommendRequest(user_id="ann"))
    assert (ids(mine), mine.fallback, stages(mine)) == ([before[9]], Fallback.NONE, ["score"])
    assert channels(mine.hits[0]) == {"HISTORY", "POPULAR", "TRENDING"}
    stranger = server.recommend(RecommendRequest(user_id="bob"))
    assert (ids(stranger), stranger.fallback, stages(stranger)) == ([before[9]], Fallback.POPULAR, ["score"])
    for _ in range(3):
        server.write(click("cid", before[4]))
    assert ids(server.recommend(RecommendRequest(user_id="bob"))) == [before[4], before[9]]


def test_the_status_names_no_fusion(unlogged: Trained, start: Callable[..., Running]) -> None:
    told = start(unlogged).status(admin_service_pb2.GetStatusRequest())
    assert (told.fusion, told.products, told.users) == ("none", 200, 0)


def test_a_running_server_follows_to_a_ranked_release_and_back(
    unlogged: Trained, trained: Trained, start: Callable[..., Running], tmp_path: Path
) -> None:
    mine = copied(unlogged, tmp_path)
    server, releases = start(mine), Releases(mine.store)
    for release, missing in ((adopted(mine, trained), []), (mine.release, ["score"])):
        releases.promote(release.number)
        wait_until(lambda wanted=release: server.live.state.release == wanted)
        assert stages(server.search(SearchRequest(query=QUERY))) == missing
