"""Explanations over a socket: what they hold, when they are there, and as a person reads them."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from harness import RecommendRequest, Running, SearchRequest, Trained, copied
from typer.testing import CliRunner
from vitrine.v1 import hit_pb2

from ranker import features
from server import desk
from server.cli import app

Explanation = hit_pb2.Explanation


@pytest.fixture
def user(server: Running) -> str:
    return sorted(server.live.state.behaviour.users)[0]


def sizes(explanation: Any) -> list[float]:
    return [abs(part.contribution) for part in explanation.contributions]


def check(explanation: Any) -> None:
    parts = sum(part.contribution for part in explanation.contributions)
    assert explanation.base + parts + explanation.others == pytest.approx(explanation.total, abs=1e-9)
    assert 1 <= len(explanation.contributions) <= 10
    assert sizes(explanation) == sorted(sizes(explanation), reverse=True)
    assert {part.name for part in explanation.contributions} <= {*features.NAMES, "network", "recall_rank"}
    assert not any(part.HasField("value") and part.value != part.value for part in explanation.contributions)


def test_every_hit_says_why(server: Running, user: str) -> None:
    for kind, answer in (
        ("query", server.search(SearchRequest(query="boots", user_id=user, explain=True))),
        ("user", server.recommend(RecommendRequest(user_id=user, explain=True))),
    ):
        assert len(answer.hits) == 24
        for hit in answer.hits:
            check(hit.explanation)
            assert hit.explanation.subject == Explanation.FUSED
            if kind not in server.live.state.model.manifest["answered"]:
                assert hit.explanation.total == pytest.approx(hit.score, abs=1e-6)
        assert any(part.name == "network" for hit in answer.hits for part in hit.explanation.contributions)


def test_the_rest_of_the_answer_is_the_same(server: Running, user: str) -> None:
    plain = server.recommend(RecommendRequest(user_id=user))
    told = server.recommend(RecommendRequest(user_id=user, explain=True))
    assert not any(hit.HasField("explanation") for hit in plain.hits)
    # Scores fade with the time between the two.
    for one, other in zip(told.hits, plain.hits, strict=True):
        assert (one.product, one.rank) == (other.product, other.rank)
        assert one.score == pytest.approx(other.score, abs=1e-6)
        assert [(each.channel, each.rank) for each in one.recall_sources] == [
            (each.channel, each.rank) for each in other.recall_sources
        ]
    assert told.next_page_token == plain.next_page_token != ""


def test_a_read_mask_names_it_too(server: Running, user: str) -> None:
    def asked(*paths: str) -> Any:
        mask = FieldMask(paths=paths)
        return server.recommend(RecommendRequest(user_id=user, explain=True, page_size=3, read_mask=mask)).hits

    assert not any(hit.HasField("explanation") for hit in asked("product.id"))
    for hit in asked("explanation", "rank"):
        check(hit.explanation)
        assert hit.rank
        assert not hit.HasField("product")


def test_it_may_be_asked_for_on_a_later_page(server: Running, user: str) -> None:
    first = server.recommend(RecommendRequest(user_id=user, page_size=5))
    second = server.recommend(
        RecommendRequest(user_id=user, page_size=5, page_token=first.next_page_token, explain=True)
    )
    assert [hit.rank for hit in second.hits] == [6, 7, 8, 9, 10]
    for hit in second.hits:
        check(hit.explanation)


def test_a_page_beyond_the_end_has_nothing_to_explain(server: Running, user: str) -> None:
    request = RecommendRequest(user_id=user, page_size=5, explain=True)
    token = json.loads(base64.urlsafe_b64decode(server.recommend(request).next_page_token))
    request.page_token = base64.urlsafe_b64encode(json.dumps(token | {"offset": 100_000}).encode()).decode()
    answer = server.recommend(request)
    assert not answer.hits
    assert answer.info.candidates


def test_what_the_mask_leaves_out_is_not_made(server: Running, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = desk.explanations
    monkeypatch.setattr(desk, "explanations", lambda answer: made.append(answer) or real(answer))
    for paths, count in ((["product.id"], 0), (["explanation"], 1), ([], 2)):
        server.recommend(RecommendRequest(user_id=user, explain=True, read_mask=FieldMask(paths=paths)))
        assert len(made) == count


def test_trees_alone_are_explained_when_time_is_short(start: Callable[..., Running], user: str) -> None:
    running = start(network_budget_ms=60_000)
    answer = running.search(SearchRequest(query="boots", explain=True), timeout=20)
    assert "network" in {left_out.stage for left_out in answer.info.degraded}
    for hit in answer.hits:
        check(hit.explanation)
        assert not any(part.name == "network" for part in hit.explanation.contributions)


def test_what_was_not_ranked_is_not_explained(unlogged: Trained, loop: Any, tmp_path: Any) -> None:
    with Running(copied(unlogged, tmp_path), loop) as running:
        answer = running.search(SearchRequest(query="boots", explain=True))
        assert answer.hits
        assert not any(hit.HasField("explanation") for hit in answer.hits)


def test_the_command_prints_them(server: Running, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    for words in (("search", "boots"), ("recommend", user)):
        told = CliRunner().invoke(app, [*words, "-n", "3", "--explain", "--address", server.address])
        assert told.exit_code == 0
        assert "why" in told.output
        assert "all others" in told.output
        plain = CliRunner().invoke(app, [*words, "-n", "3", "--address", server.address])
        assert "all others" not in plain.output
