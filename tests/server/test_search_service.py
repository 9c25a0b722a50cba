"""Search and Similar over a socket."""

import time
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from harness import Running, SearchRequest, SimilarRequest, channels, hash_encoder, ids, refusal
from vitrine.v1 import hit_pb2, search_service_pb2

from server import pipeline
from server.pipeline import Ask
from server.state import State

RecallSource = hit_pb2.RecallSource
STAGES = ["wait", "encode", "recall", "features", "score", "page"]


def test_an_answer_carries_what_the_contract_says(server: Running) -> None:
    answer = server.search(SearchRequest(query="red boots", page_size=10, request_id="r-1"))
    state, info = server.live.state, answer.info
    assert [hit.rank for hit in answer.hits] == list(range(1, 11))
    assert [hit.score for hit in answer.hits] == sorted((hit.score for hit in answer.hits), reverse=True)
    for hit in answer.hits:
        assert channels(hit) <= {"DENSE", "LEXICAL", "ENGAGED"}
        for source in hit.recall_sources:
            assert 1 <= source.rank <= info.candidates
            # A cosine, a sum of what words weigh, or of what engagements count.
            assert source.score <= 1.0001 if source.channel == RecallSource.DENSE else source.score > 0
        assert all(hit.member_scores.HasField(name) for name in ("network", "trees", "recall"))
        assert hit.product.title
    assert {"DENSE", "LEXICAL"} <= set().union(*(channels(hit) for hit in answer.hits))
    versions = info.versions
    assert (versions.release, versions.index, versions.model) == ("1", state.snapshot.id, state.model.id)
    assert versions.encoder == hash_encoder().fingerprint
    assert [timing.stage for timing in info.timings] == STAGES
    assert all(0 <= timing.duration.ToNanoseconds() < 10**10 for timing in info.timings)
    assert (info.request_id, info.candidates, list(info.degraded)) == ("r-1", 120, [])


def test_a_mended_query_is_told(server: Running) -> None:
    def told(query: str) -> str:
        corrected: str = server.search(SearchRequest(query=query, page_size=1)).corrected_query
        return corrected

    assert told("Laether  Boots") == "leather Boots"
    assert told("leatherboots 42") == "leather boot 42"
    # What is written otherwise is not misspelt, and what nothing is like is left as it is.
    assert [told(query) for query in ("Red  BOOTS", "red boot", "zzyzxqq 42", "靴子")] == [""] * 4
    (vector,) = hash_encoder().encode(["laether boots"])
    by_vector = search_service_pb2.QueryVector(values=vector.tolist())
    assert server.search(SearchRequest(query_vector=by_vector, page_size=1)).corrected_query == ""


def test_each_request_of_a_batch_is_told_its_own(server: Running) -> None:
    asks = [Ask(query=query) for query in ("laether boots", "boots", "jackte 42")]
    assert [answer.corrected for answer in pipeline.search(server.live.state, asks)] == [
        "leather boots",
        "",
        "jacket 42",
    ]


def test_what_a_query_led_to_is_found_by_it(server: Running) -> None:
    state = server.live.state
    query, after = max(state.behaviour.queries.items(), key=lambda item: len(item[1]))
    answer = server.search(SearchRequest(query=query, page_size=100))
    engaged = {hit.product.id for hit in answer.hits if "ENGAGED" in channels(hit)}
    assert engaged
    assert engaged <= {state.snapshot.ids[row] for row in after}
    asked_anew = server.search(SearchRequest(query="nobody asked for 42 boots", page_size=100))
    assert not any("ENGAGED" in channels(hit) for hit in asked_anew.hits)


def test_tokens_and_made_up_request_ids_are_unique(server: Running) -> None:
    answers = [server.search(SearchRequest(query="boots", page_size=1)) for _ in range(20)]
    assert len({answer.info.attribution_token for answer in answers}) == 20
    assert len({answer.info.request_id for answer in answers}) == 20
    assert all(0 < len(answer.info.attribution_token.encode()) <= 128 for answer in answers)


def test_a_query_and_its_vector_recall_alike(server: Running) -> None:
    (vector,) = hash_encoder().encode(["red boots"])
    by_words = server.search(SearchRequest(query="red boots", page_size=100))
    by_vector = server.search(SearchRequest(query_vector=search_service_pb2.QueryVector(values=vector), page_size=100))

    def recalled(answer: Any) -> list[str]:
        return [hit.product.id for hit in sorted(answer.hits, key=lambda hit: hit.recall_sources[0].rank)][:20]

    assert by_vector.info.candidates == by_words.info.candidates
    assert set(recalled(by_vector)) & set(recalled(by_words))


def test_a_known_user_and_recent_products_change_the_order(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    now = server.live.state.now()
    monkeypatch.setattr(State, "now", lambda _: now)
    plain = server.search(SearchRequest(query="shoes", page_size=50))
    stranger = server.search(SearchRequest(query="shoes", page_size=50, user_id="nobody knows"))
    scores = [hit.score for hit in plain.hits]
    assert [hit.score for hit in stranger.hits] == scores
    users = list(server.live.state.behaviour.users)[:5]
    known = [server.search(SearchRequest(query="shoes", page_size=50, user_id=user)) for user in users]
    assert any([hit.score for hit in answer.hits] != scores for answer in known)
    recent = server.search(SearchRequest(query="shoes", page_size=50, recent_product_ids=ids(plain)[-3:]))
    assert [hit.score for hit in recent.hits] != scores


def test_similar_products(server: Running) -> None:
    for product in server.live.state.snapshot.ids[:30]:
        answer = server.similar(SimilarRequest(product_id=product, page_size=20))
        assert len(set(ids(answer))) == 20
        assert product not in ids(answer)
        assert all(channels(hit) <= {"DENSE", "RELATED"} for hit in answer.hits)
        assert all(not hit.member_scores.HasField("network") for hit in answer.hits)
        # Reciprocal-rank fusion: the sum of 1 / (60 + rank) over the channels.
        for hit in answer.hits:
            assert hit.score == pytest.approx(sum(1 / (60 + source.rank) for source in hit.recall_sources))
        assert [timing.stage for timing in answer.info.timings] == ["wait", "recall"]


def test_an_unknown_product_is_not_found(server: Running) -> None:
    refused = refusal(server.similar, SimilarRequest(product_id="no such"))
    assert refused.code is grpc.StatusCode.NOT_FOUND
    (info,) = refused.details
    assert isinstance(info, error_details_pb2.ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("product", "no such")


def test_a_deadline_within_the_ranking_budget_leaves_recall_order(start: Any) -> None:
    server = start(ranking_budget_ms=60_000)
    answer = server.search(SearchRequest(query="boots"), timeout=20)
    assert [d.stage for d in answer.info.degraded] == ["score"]
    scores = [hit.score for hit in answer.hits]
    assert scores == [hit.member_scores.recall for hit in answer.hits] == sorted(scores, reverse=True)
    assert not any(hit.member_scores.HasField("trees") for hit in answer.hits)
    ranked = server.search(SearchRequest(query="boots"))
    assert list(ranked.info.degraded) == []
    assert all(hit.member_scores.HasField("trees") for hit in ranked.hits)


def test_a_deadline_within_the_networks_budget_leaves_the_network_out(start: Any) -> None:
    server = start(network_budget_ms=60_000)
    hurried = server.search(SearchRequest(query="boots"), timeout=20)
    assert [d.stage for d in hurried.info.degraded] == ["network"]
    assert "the trees ranked alone" in hurried.info.degraded[0].reason
    assert all(hit.member_scores.HasField("trees") for hit in hurried.hits)
    assert not any(hit.member_scores.HasField("network") for hit in hurried.hits)
    relaxed = server.search(SearchRequest(query="boots"))
    assert list(relaxed.info.degraded) == []
    assert all(hit.member_scores.HasField("network") for hit in relaxed.hits)


def test_a_deadline_that_passed_in_the_queue_is_exceeded(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server, real, seen = start(), pipeline.search, []

    def slow(state: State, asks: Any) -> Any:
        seen.extend(ask.query for ask in asks)
        time.sleep(0.3)
        return real(state, asks)

    monkeypatch.setattr(pipeline, "search", slow)
    first = server.search.future(SearchRequest(query="first"), timeout=10)
    time.sleep(0.1)
    refused = refusal(lambda: server.search(SearchRequest(query="second"), timeout=0.1))
    assert refused.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(first.result().hits) == 24
    assert len(ids(server.search(SearchRequest(query="third"), timeout=10))) == 24
    assert seen == ["first", "third"]
