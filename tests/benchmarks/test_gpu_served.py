"""The benchmark of a served shop: its steps, its load from several processes, what was busy. Nothing is about speed."""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gpu
import gpu_served
import gpu_shop
import grpc
import numpy as np
import polars as pl
import pytest
import torch
from client import Request
from google.protobuf.timestamp_pb2 import Timestamp
from gpu_load import merged
from gpu_served import Load, limit_of, searches
from gpu_shop import Shop, overridden
from gpu_usage import card_of, cores_of, cpu_seconds, family, limits, parent_of, server_processes
from result import Log, Window
from served import Server
from vector_peers.servers import toml
from vitrine.v1 import admin_service_pb2, admin_service_pb2_grpc, search_service_pb2, search_service_pb2_grpc

from indexer.sample.shop import make_shop
from server.config import load_settings


def test_settings_become_toml_that_the_server_reads(tmp_path: Path) -> None:
    tables = overridden({"server": {"port": 1}}, ["server.port=2", "indexer.index=HNSW32"])
    assert tomllib.loads(toml({"store": "s", **tables})) == {
        "store": "s",
        "server": {"port": 2},
        "indexer": {"index": "HNSW32"},
    }
    for wrong in ("server.port", "port=2", "server.=2"):
        with pytest.raises(ValueError, match=r"write a setting as in server\.max_batch=16"):
            overridden({}, [wrong])
    shop = Shop(tmp_path, 100, 500, 300, ["ranker.trees=7"])
    settings = load_settings(shop.config("cuda:1", ["server.max_batch=16"]))
    assert (settings.indexer.device, settings.ranker.device) == ("cuda:1", "cuda:1")
    assert (settings.ranker.trees, settings.ranker.candidates, settings.server.max_batch) == (7, 300, 16)
    other = load_settings(shop.config("cpu"))
    assert (other.indexer.device, other.store, other.server.query_cache) == ("cpu", settings.store, 0)


class Quick(Shop):
    """Runs nothing, and says what it would have run."""

    def _vitrine(self, *words: object) -> float:
        self.ran = [*getattr(self, "ran", []), words[0]]
        store = self.folder / "store"
        if words[0] == "train":
            (store / "models" / "m").mkdir(parents=True)
            (store / "models" / "m" / "manifest.json").write_text("{}")
        if words[:2] == ("release", "promote"):
            (store / "CURRENT").write_text("1")
        return 1.0


def test_a_shop_goes_on_where_it_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def built(config: Path, log: Path) -> Any:
        assert load_settings(config).indexer.device == "cpu"
        return argparse.Namespace(built={"seconds": {"whole": 2.0}})

    monkeypatch.setattr(gpu_shop, "built", built)
    first = Quick(tmp_path, 100, 500, 300, [])
    assert first.sample() == 1.0
    took = first.index("cpu")
    assert took == {"seconds": {"whole": 2.0}, "device": "cpu"}
    again = Quick(tmp_path, 100, 500, 300, [])
    assert again.sample() is None
    monkeypatch.delattr(gpu_shop, "built")
    assert again.index("cpu") == took
    assert again.release("cpu") == {"train": 1.0, "release": 1.0, "promote": 1.0}
    assert again.release("cpu") == {}
    assert again.ran == ["train", "release", "release"]
    # Another size is another shop.
    assert Quick(tmp_path, 200, 500, 300, []).sample() == 1.0
    assert not (tmp_path / "store").exists()


def test_a_step_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)vitrine train model -c .* ended with 2:.*"):
        Shop(tmp_path, 100, 500, 300, ["server.workers=0"]).release("cpu")


def test_every_search_has_a_user_and_a_filter() -> None:
    products = make_shop(300, sessions=1).products
    made = searches(products, ["u1", "u2"], 200, np.random.default_rng(0))
    messages = [search_service_pb2.SearchRequest.FromString(request.payload) for request in made]
    assert len({message.query for message in messages}) == len(messages) == 200
    assert {message.user_id for message in messages} == {"u1", "u2"}
    kinds = [message.filter.WhichOneof("kind") for message in messages]
    assert (kinds.count("equals"), kinds.count("all")) == (100, 100)
    departments = {m.filter.equals.value.string_value for m in messages if m.filter.HasField("equals")}
    assert len(departments) > 3
    assert departments <= set(products["department"])
    bounds = [m.filter.all.filters[0].range.max for m in messages if m.filter.HasField("all")]
    least = float(products["price"].quantile(0.05) or 0.0)
    assert least <= min(bounds) < max(bounds) <= float(pl.Series(products["price"]).max())  # type: ignore[arg-type]


def test_logs_are_merged_from_the_end_of_each_ones_warm_up() -> None:
    logs = []
    for begin, code in ((100.0, "OK"), (200.0, "UNAVAILABLE")):
        log = Log(begin, degraded=1)
        log.add("search", "OK", begin - 0.5, begin - 0.5, begin - 0.4)
        log.add("search", code, begin + 0.5, begin + 0.5, begin + 0.51)
        log.stages["recall"].append(begin / 100)
        logs.append(log)
    point = merged(logs).point(Window(1.0, 1.0, 2.0), offered=True)
    assert (point.count, point.errors, point.offered_rate, point.degraded) == (2, {"UNAVAILABLE": 1}, 2.0, 2)
    assert point.latency_ms["p50"] == pytest.approx(10.0)
    assert point.stages_ms == {"recall": 1.5}


def test_a_processs_time_and_parent_are_read_past_its_name() -> None:
    stat = "7 (a ) (b 1) S 42 7 7 0 -1 4194560 1 2 3 4 250 50 9 9 20 0 5 0 100 1 1"
    assert parent_of(stat) == 42
    assert cpu_seconds(stat) == (250 + 50) / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_servers_processes_are_its_workers_and_whoever_started_them() -> None:
    script = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert family([parent.pid]) == {parent.pid, child}
            assert server_processes([child]) == {parent.pid, child}
            assert server_processes([parent.pid]) == {parent.pid, child}
        finally:
            os.kill(child, 9)


def test_what_was_busy_is_named() -> None:
    server = cores_of({(1, 1): 1.8, (1, 2): 0.4, (2, 3): 0.2}, 2.0)
    assert server == {"cores": 1.2, "processes": [1.1, 0.1], "busiest_thread": 0.9}
    idle = cores_of({(5, 5): 0.2}, 2.0)
    told = {"server": server, "generators": idle, "machine_cores": 4.0, "card": card_of([(20.0, 10.0), (40.0, 30.0)])}
    assert told["card"] == {"utilisation": pytest.approx(0.3), "memory_mib": 30.0}
    assert [each.partition(":")[0] for each in limits(told, 16)] == [
        "one thread of the server",
        "the threads of one server process together (one core, as Python's lock allows)",
    ]
    others = {"server": idle, "generators": server, "machine_cores": 15.0, "card": {"utilisation": 0.95}}
    assert limits(others, 16) == ["the machine's cores: 0.94", "the card: 0.95", "one generator of load: 1.10"]
    assert limits({"server": idle, "generators": idle, "machine_cores": 1.0, "card": card_of([])}, 16) == []


def test_the_limit_is_what_was_busy_at_the_lowest_rate_that_was_not_held() -> None:
    points = [
        {"offered_rate": rate, "not_held": reasons, "limits": [str(rate)]}
        for rate, reasons in ((100, []), (400, ["p99"]), (200, []), (300, ["p99"]))
    ]
    assert limit_of(points) == ["300"]
    assert limit_of([point for point in points if not point["not_held"]]) == ["200"]
    assert limit_of([]) == []


class Fake(search_service_pb2_grpc.SearchServiceServicer, admin_service_pb2_grpc.AdminServiceServicer):  # type: ignore[misc]
    """Answers every search with one hit, of as many candidates as it has answered."""

    def __init__(self) -> None:
        self.queries: list[str] = []

    async def Search(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        self.queries.append(request.query)
        answer = search_service_pb2.SearchResponse()
        answer.hits.add()
        answer.info.candidates = len(self.queries)
        answer.info.timings.add(stage="recall").duration.FromMicroseconds(2500)
        return answer

    async def GetStatus(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        return admin_service_pb2.GetStatusResponse(start_time=Timestamp(seconds=1), index_kind="exact")


@contextlib.asynccontextmanager
async def answering(fake: Fake, *, status: bool = True) -> AsyncIterator[str]:
    """The address of a server that is `fake`; without `status` it does not know GetStatus."""
    server = grpc.aio.server()
    search_service_pb2_grpc.add_SearchServiceServicer_to_server(fake, server)
    if status:
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


REQUESTS = [Request("search", search_service_pb2.SearchRequest(query=f"q{i}").SerializeToString()) for i in range(50)]


async def test_a_server_is_asked_by_other_processes_at_rising_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake()

    @contextlib.asynccontextmanager
    async def serving(config: Path, workers: int, environment: Any, log: Path) -> AsyncIterator[Server]:
        async with answering(fake) as target:
            yield Server(target, 1.5, ())

    monkeypatch.setattr(gpu_served, "serving", serving)
    asked = Load(32.0, 2.0, 0, 1_900.0, 0.5, 0.2, 2.0, most_seconds=0.2, generators=2)
    told: list[dict[str, Any]] = []
    async with asyncio.timeout(120):
        found = await gpu_served.measured(tmp_path / "c.toml", 1, REQUESTS, asked, tmp_path / "log", told.append)
    assert (found["start_seconds"], found["status"]["index_kind"], found["memory_mb"]) == (1.5, "exact", [])
    assert found["answers"] == {"candidates": {"least": 1, "median": 17, "most": 32}, "degraded": []}
    assert found["one_caller"]["count"] > 0
    first = found["points"][0]
    # Two generators, each with half of the rate for half a second.
    assert (first["offered_rate"], first["count"], first["stages_ms"]) == (32.0, 16, {"recall": 2.5})
    assert first["usage"]["generators"]["cores"] >= 0
    assert "points" not in told[0]
    assert told[-1]["points"] == found["points"]


async def test_a_generator_that_fails_says_why() -> None:
    async with answering(Fake(), status=False) as target:
        with pytest.raises(RuntimeError, match=r"A generator of load failed: .*GetStatus: UNIMPLEMENTED"):
            await asyncio.to_thread(gpu_served.Generators, target, REQUESTS, 1, 1, 1)


def test_every_way_of_serving_is_told_and_one_that_fails_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(config: Path, workers: int, requests: Any, asked: Load, log: Path, tell: gpu_served.Tell) -> Any:
        settings = load_settings(config)
        assert settings.server.max_batch == (16 if config.stem == "cuda0" else 4)
        tell({"start_seconds": 1.0})
        if workers == 8:
            raise RuntimeError("the server did not come up")
        return {"start_seconds": 1.0, "held_rate": 900.0 if config.stem == "cuda0" else 300.0, "p99": asked.p99}

    monkeypatch.setattr(gpu_served, "measure", measure)
    monkeypatch.setattr(gpu_served, "requests_of", lambda *_: REQUESTS)
    monkeypatch.setattr(gpu, "described", lambda _: {})
    words = ["--workers", "1,8", "--cpu-workers", "3", "--card-set", "server.max_batch=16", "--p99", "30"]
    written: list[Any] = []
    given = gpu.parsed(["--folder", str(tmp_path), "--set", "server.max_batch=4", *words])
    gpu.served(given, torch.device("cuda:0"), lambda body: written.append(json.loads(json.dumps(body))))
    assert written[0]["variants"] == {
        "cuda:0, 1 worker": {"device": "cuda:0", "settings": ["server.max_batch=16"], "start_seconds": 1.0}
    }
    last = written[-1]
    assert last["card_to_cpu"] == 3.0
    assert last["variants"]["cuda:0, 8 workers"]["failed"] == "RuntimeError: the server did not come up"
    assert last["variants"]["cuda:0, 8 workers"]["start_seconds"] == 1.0
    assert last["variants"]["cpu, 3 workers"] == {
        "device": "cpu", "settings": [], "start_seconds": 1.0, "held_rate": 300.0, "p99": 30.0,
    }  # fmt: skip
