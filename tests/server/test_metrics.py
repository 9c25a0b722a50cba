"""What a server counts, read over HTTP as Prometheus reads it."""

import socket
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness import Running, SearchRequest, refusal, wait_until
from prometheus_client.parser import text_string_to_metric_families

from indexer import fallbacks
from indexer.errors import VitrineError
from server import pipeline, workers
from server.config import Settings
from server.metrics import Metrics

Read = Callable[..., float]
SEARCH = {"grpc_type": "unary", "grpc_service": "vitrine.v1.SearchService", "grpc_method": "Search"}


def reader(server: Running) -> Read:
    """Reads one value: the sum of the samples of a name whose labels hold what is given."""

    def read(name: str, **labels: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.app.metrics_port}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    return read


@pytest.fixture
def served(start: Callable[..., Running]) -> Running:
    return start(metrics_port=0)


@pytest.fixture
def read(served: Running) -> Read:
    return reader(served)


def test_calls_are_counted_by_how_they_ended(served: Running, read: Read) -> None:
    for query in ("boots", "lamp"):
        served.search(SearchRequest(query=query))
    refusal(served.search, SearchRequest(query="boots", page_size=-1))
    assert read("grpc_server_handled_total", **SEARCH, grpc_code="OK") == 2
    assert read("grpc_server_handled_total", **SEARCH, grpc_code="INVALID_ARGUMENT") == 1
    assert read("grpc_server_handling_seconds_count", **SEARCH) == 3
    assert 0 < read("grpc_server_handling_seconds_sum", **SEARCH) < 60
    assert read("grpc_server_handled_total", grpc_method="Recommend") == 0


def test_a_call_whose_caller_left_is_counted_too(served: Running, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real = threading.Event(), pipeline.search

    def held(state: Any, asks: Any) -> Any:
        assert gate.wait(20)
        return real(state, asks)

    monkeypatch.setattr(pipeline, "search", held)
    with pytest.raises(grpc.RpcError):
        served.search(SearchRequest(query="boots"), timeout=0.1)
    wait_until(lambda: read("grpc_server_handled_total", **SEARCH, grpc_code="CANCELLED") == 1)
    gate.set()


def test_a_batch_tells_its_stages_and_how_long_its_requests_waited(served: Running, read: Read) -> None:
    before = {stage: read("vitrine_stage_seconds_count", stage=stage) for stage in ("encode", "recall", "page")}
    served.search(SearchRequest(query="boots"))
    assert {stage: read("vitrine_stage_seconds_count", stage=stage) - 1 for stage in before} == before
    assert read("vitrine_stage_seconds_count", stage="wait") == 0
    assert read("vitrine_batch_requests_count") == read("vitrine_batch_requests_sum") == 1
    assert read("vitrine_wait_seconds_count") == 1


def test_requests_of_one_batch_are_counted_each(served: Running) -> None:
    metrics, state = Metrics(), served.live.state
    metrics.ran(pipeline.search(state, [pipeline.Ask(query="boots"), pipeline.Ask(query="lamp")]))
    assert metrics.registry.get_sample_value("vitrine_batch_requests_sum") == 2
    assert metrics.registry.get_sample_value("vitrine_wait_seconds_count") == 2
    assert metrics.registry.get_sample_value("vitrine_stage_seconds_count", {"stage": "recall"}) == 1


def test_stages_that_were_left_out_are_counted(start: Callable[..., Running]) -> None:
    server = start(metrics_port=0, ranking_budget_ms=60_000)
    assert server.search(SearchRequest(query="boots"), timeout=10).info.degraded
    assert reader(server)("vitrine_degraded_total", stage="score") == 1


def test_what_is_live_is_looked_at_when_it_is_asked_for(
    served: Running, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (read("vitrine_release"), read("vitrine_products")) == (1, 600)
    assert read("vitrine_users") == len(served.live.state.behaviour.users)
    assert read("vitrine_release_loaded_timestamp_seconds") == pytest.approx(served.live.state.loaded)
    asked, cached = read("vitrine_queries_total"), read("vitrine_queries_cached_total")
    for _ in range(3):
        served.search(SearchRequest(query="what nobody asked before"))
    assert (read("vitrine_queries_total"), read("vitrine_queries_cached_total")) == (asked + 3, cached + 2)
    monkeypatch.setattr(fallbacks, "counted", lambda: {"encoder": 2, "search": 3})
    assert read("vitrine_fallbacks_total", stage="search") == 3
    assert read("process_resident_memory_bytes") > 1e6


def test_rules_in_force_and_those_that_are_not(start: Callable[..., Running], tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("[[rule]]\nname = 'a'\npin = ['p']\n[[rule]]\nname = 'b'\nhide = { shade = 'red' }\n")
    read = reader(start(metrics_port=0, rules=path))
    assert (read("vitrine_rules"), read("vitrine_rules_faults")) == (1, 1)


def test_nothing_is_counted_or_told_where_no_port_is_set(server: Running) -> None:
    assert server.app.metrics_port == 0
    assert server.app._metrics is None


def test_a_port_that_is_taken_is_told(start: Callable[..., Running]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(VitrineError, match=r"metrics_port\) cannot be listened on"):
            start(metrics_port=taken.getsockname()[1])


def test_the_port_is_free_again_when_the_server_has_stopped(start: Callable[..., Running]) -> None:
    server = start(metrics_port=0)
    port = server.app.metrics_port
    server.stop()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


@pytest.mark.parametrize(("port", "ports"), [(9464, [9464, 9465]), (0, [0, 0]), (None, [None, None])])
def test_each_worker_tells_its_own(port: int | None, ports: list[int | None]) -> None:
    settings = Settings.model_validate({"server": {"metrics_port": port, "workers": 2}})
    assert [workers._metrics_of(settings, i).server.metrics_port for i in range(2)] == ports
