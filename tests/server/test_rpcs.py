"""What every call goes through: overload and failures become clear statuses that tell nothing of the inside."""

import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness import Running, SearchRequest, ids, refusal, wait_until

from server import pipeline


def test_an_overloaded_server_refuses_at_once_and_says_when_to_retry(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, real = start(max_waiting=2, max_batch=1), pipeline.search
    began, gate = threading.Event(), threading.Event()

    def held(state: Any, asks: Any) -> Any:
        began.set()
        assert gate.wait(20)
        return real(state, asks)

    monkeypatch.setattr(pipeline, "search", held)
    calls = [server.search.future(SearchRequest(query="boots"), timeout=30)]
    assert began.wait(10)
    calls += [server.search.future(SearchRequest(query="boots"), timeout=30) for _ in range(2)]
    wait_until(lambda: server.app._desk.waiting == 2)
    refused = refusal(lambda: server.search(SearchRequest(query="boots"), timeout=1))
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    (retry,) = refused.details
    assert isinstance(retry, error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 100
    gate.set()
    assert all(len(call.result().hits) == 24 for call in calls)


def test_a_failure_inside_is_logged_and_not_told(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "search", lambda *_: (_ for _ in ()).throw(ValueError("the secret inside")))
        refused = refusal(server.search, SearchRequest(query="boots"))
    assert refused.code is grpc.StatusCode.INTERNAL
    assert "secret" not in refused.message
    assert "the secret inside" in caplog.text
    assert len(ids(server.search(SearchRequest(query="boots")))) == 24


def test_the_health_service_keeps_its_own_statuses(server: Running) -> None:
    health = health_pb2_grpc.HealthStub(server.channel)
    for name in ("", "vitrine.v1.SearchService", "vitrine.v1.EventService"):
        assert (
            health.Check(health_pb2.HealthCheckRequest(service=name)).status == health_pb2.HealthCheckResponse.SERVING
        )
    assert refusal(health.Check, health_pb2.HealthCheckRequest(service="none")).code is grpc.StatusCode.NOT_FOUND
