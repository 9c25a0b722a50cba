"""The load generator against small fake servers whose stalls and capacities are known."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import load
import numpy as np
import polars as pl
import pytest
import typer
from client import Client
from google.protobuf.timestamp_pb2 import Timestamp
from load import Arrivals, Ramp, Workload
from result import Log, Point, Window, commit, distribution
from vitrine.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    recommend_service_pb2,
    recommend_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)

Behaviour = Callable[[Any, grpc.aio.ServicerContext], Awaitable[None]]
# All of each service: what a test does not implement answers UNIMPLEMENTED.
SERVICES = (
    search_service_pb2_grpc.SearchServiceServicer,
    recommend_service_pb2_grpc.RecommendServiceServicer,
    admin_service_pb2_grpc.AdminServiceServicer,
)
SEARCHES = Workload({"search": 1.0}, ["red shoe", "blue hat"], [], 1.0, 24, None, 0.0)
# Lag is this machine's affair: where the server's behaviour is under test, only a long one is an answer.
PATIENT = 200.0


class Fake(*SERVICES):  # type: ignore[misc]
    """Search, Recommend and GetStatus that first await `behaviour`; keeps the requests it got."""

    def __init__(self, behaviour: Behaviour, started: int = 0) -> None:
        self.behaviour = behaviour
        self.started = started
        self.requests: list[Any] = []

    async def Search(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        self.requests.append(request)
        await self.behaviour(request, context)
        answer = search_service_pb2.SearchResponse()
        answer.hits.add()
        answer.info.timings.add(stage="recall").duration.FromMicroseconds(2500)
        return answer

    async def Recommend(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        self.requests.append(request)
        await self.behaviour(request, context)
        answer = recommend_service_pb2.RecommendResponse()
        answer.info.degraded.add(stage="score", reason="deadline")
        return answer

    async def GetStatus(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802
        told = {"fusion": "mean", "start_time": Timestamp(seconds=self.started)}
        return admin_service_pb2.GetStatusResponse(versions={"release": "r1", "index": "i1", "encoder": "e1"}, **told)


@asynccontextmanager
async def serving(fake: Fake, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """The address of a server that is `fake`, be it one that others listen on."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 1)])
    search_service_pb2_grpc.add_SearchServiceServicer_to_server(fake, server)
    recommend_service_pb2_grpc.add_RecommendServiceServicer_to_server(fake, server)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(fake, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def at_rate(
    client: Client, rate: float, window: Window, workload: Workload = SEARCHES, arrivals: Arrivals = Arrivals.UNIFORM
) -> Point:
    rng = np.random.default_rng(0)
    offsets = load.schedule(rate, window, arrivals, rng)
    return await load.open_loop(client, workload.draw(len(offsets), rng), offsets, window)


async def at_once(request: Any, context: grpc.aio.ServicerContext) -> None:
    """Answer without delay."""


def stalling(at: int, seconds: float) -> Behaviour:
    """One request at a time; the one with number `at` takes `seconds`, every other no time."""
    one, seen = asyncio.Lock(), 0

    async def behaviour(request: Any, context: grpc.aio.ServicerContext) -> None:
        nonlocal seen
        async with one:
            seen += 1
            await asyncio.sleep(seconds if seen == at else 0)

    return behaviour


async def test_a_stall_shows_in_the_open_loop_though_one_request_was_in_service() -> None:
    window = Window(seconds=1.0, warmup=0.1, timeout=2.0, lag_bound_ms=PATIENT)
    async with serving(Fake(stalling(at=60, seconds=0.3))) as target, aclosing(Client(target)) as client:
        await client.status()
        point = await at_rate(client, 100.0, window)
    # 30 of 100 requests were due during the stall, one every 10 ms: the second longest wait was 290 ms.
    assert point.count == 100
    assert 270 < point.latency_ms["p99"] < 600
    assert point.latency_ms["p50"] < 100


async def test_the_closed_loop_hides_the_same_stall() -> None:
    window = Window(seconds=0.8, warmup=0.0, timeout=2.0)
    async with serving(Fake(stalling(at=60, seconds=0.3))) as target, aclosing(Client(target)) as client:
        await client.status()
        point = await load.closed_loop(client, SEARCHES.draw(100, np.random.default_rng(0)), 1, window)
    assert point.latency_ms["max"] > 300
    assert point.latency_ms["p99"] < 100
    assert point.offered_rate is None
    assert point.achieved_rate == pytest.approx(point.count / 0.8, abs=2 / 0.8)


async def test_refusals_and_timeouts_count_and_weigh_as_the_timeout() -> None:
    async def behaviour(request: Any, context: grpc.aio.ServicerContext) -> None:
        number = len(fake.requests)
        if number % 10 == 0:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
        await asyncio.sleep(5 if number % 10 == 5 else 0)

    fake = Fake(behaviour)
    async with serving(fake) as target, aclosing(Client(target)) as client:
        await client.status()
        point = await at_rate(client, 100.0, Window(seconds=0.6, warmup=0.0, timeout=0.3, lag_bound_ms=PATIENT))
    assert point.count == 60
    assert point.errors == {"RESOURCE_EXHAUSTED": 6, "DEADLINE_EXCEEDED": 6}
    assert point.error_share == 12 / 60
    assert point.latency_ms["p90"] == point.latency_ms["max"] == 300
    assert point.latency_ms["p50"] < 100
    assert "errors" in point.judged(1000.0).not_held


async def test_a_request_sent_after_its_time_limit_does_not_wait() -> None:
    async def behaviour(request: Any, context: grpc.aio.ServicerContext) -> None:
        await asyncio.sleep(30)

    log = Log(begin=0.0)
    async with serving(Fake(behaviour)) as target, aclosing(Client(target)) as client:
        await client.ask(SEARCHES.draw(1, np.random.default_rng(0))[0], time.perf_counter() - 5.0, 1.0, log)
    assert log.codes == ["DEADLINE_EXCEEDED"]
    assert log.times[2] - log.times[1] < 5


async def test_a_blocked_generator_is_reported_as_such() -> None:
    async def behaviour(request: Any, context: grpc.aio.ServicerContext) -> None:
        if len(fake.requests) == 20:
            time.sleep(0.1)  # the server shares the generator's loop here, so the schedule slips too

    fake = Fake(behaviour)
    async with serving(fake) as target, aclosing(Client(target)) as client:
        await client.status()
        point = await at_rate(client, 100.0, Window(seconds=0.5, warmup=0.0, timeout=1.0))
    assert point.lag_ms["p99"] > 50
    assert point.generator_bound
    assert point.judged(1000.0).not_held == ("generator",)


@pytest.mark.skipif(sys.platform != "linux", reason="only there is a port dealt out to its processes")
async def test_connections_are_spread_evenly_over_the_processes_of_a_server() -> None:
    fakes = [Fake(at_once, started=number) for number in (1, 2, 3)]
    async with serving(fakes[0]) as target, serving(fakes[1], target), serving(fakes[2], target):
        for turn, connections in enumerate((1, 4, 6), start=1):
            async with aclosing(Client(target, connections)) as client:
                await client.spread(3)
                assert (await client.status())["workers"] == 3
                requests = SEARCHES.draw(12, np.random.default_rng(0))
                log = Log(begin=0.0)
                await asyncio.gather(*(client.ask(each, time.perf_counter(), 5.0, log) for each in requests))
                assert [len(fake.requests) for fake in fakes] == [4 * turn] * 3
        async with aclosing(Client(target, 40)) as client:
            with pytest.raises(typer.BadParameter, match=r"is 3 processes\. Give --workers 3"):
                await client.spread(2)


def test_a_failure_or_a_late_answer_is_never_a_short_latency() -> None:
    log = Log(begin=10.0)
    log.add("search", "OK", 9.0, 9.0, 10.5)  # due in the warm-up: its answer adds to the rate, not to the latencies
    log.add("search", "OK", 10.0, 10.004, 10.2)
    log.add("recommend", "UNAVAILABLE", 10.5, 10.5, 10.501)
    log.add("search", "OK", 11.9, 11.9, 12.4)  # answered after the window
    point = log.point(Window(seconds=2.0, warmup=1.0, timeout=3.0), offered=True)
    assert point.latency_ms["p50"] == pytest.approx(500)
    assert point.latency_ms["max"] == 3000
    assert point.latency_ms["mean"] == pytest.approx((200 + 3000 + 500) / 3, abs=1e-3)
    assert (point.offered_rate, point.achieved_rate) == (3 / 2, 2 / 2)
    assert {name: part.count for name, part in point.methods.items()} == {"recommend": 1, "search": 2}
    assert point.methods["recommend"].errors == {"UNAVAILABLE": 1}
    assert point.lag_ms["max"] == pytest.approx(4)


def test_percentiles_are_measured_values() -> None:
    figures = distribution(np.arange(1.0, 1001.0))
    assert [figures[name] for name in ("p50", "p90", "p95", "p99", "p99.9", "max")] == [500, 900, 950, 990, 999, 1000]


def test_queries_follow_zipfs_law() -> None:
    queries = [f"q{place}" for place in range(5)]
    workload = Workload({"search": 1.0}, queries, [], 1.0, 24, None, 0.0)
    drawn = workload.draw(20_000, np.random.default_rng(1))
    counts = Counter(search_service_pb2.SearchRequest.FromString(request.payload).query for request in drawn)
    harmonic = 1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5
    for place, query in enumerate(queries, start=1):
        assert counts[query] / 20_000 == pytest.approx(1 / place / harmonic, abs=0.015)


def test_mix_users_and_filters_take_their_shares() -> None:
    workload = Workload({"search": 0.7, "recommend": 0.3}, ["shoe"], ["u1", "u2"], 1.0, 12, 50.0, 0.2)
    drawn = workload.draw(5_000, np.random.default_rng(2))
    kinds: dict[str, Any] = {
        "search": search_service_pb2.SearchRequest,
        "recommend": recommend_service_pb2.RecommendRequest,
    }
    messages = [kinds[request.method].FromString(request.payload) for request in drawn]
    filtered = [message.filter.range for message in messages if message.HasField("filter")]
    assert sum(request.method == "search" for request in drawn) / 5_000 == pytest.approx(0.7, abs=0.03)
    assert sum(message.user_id == "u1" for message in messages) / 5_000 == pytest.approx(0.5, abs=0.03)
    assert len(filtered) / 5_000 == pytest.approx(0.2, abs=0.03)
    assert {(bound.column, bound.max, bound.HasField("min")) for bound in filtered} == {("price", 50.0, False)}
    assert {message.page_size for message in messages} == {12}


@pytest.mark.parametrize("arrivals", list(Arrivals))
def test_the_schedule_offers_exactly_the_rate(arrivals: Arrivals) -> None:
    window = Window(seconds=20.0, warmup=1.0, timeout=1.0)
    offsets = load.schedule(50.0, window, arrivals, np.random.default_rng(3))
    gaps = np.diff(offsets[offsets >= 0])
    assert ((offsets >= 0).sum(), (offsets < 0).sum()) == (50 * 20, 50 * 1)
    assert offsets.min() >= -1.0
    assert offsets.max() < 20.0
    # Gaps of a Poisson process are exponential, with a standard deviation equal to their mean; even ones do not vary.
    assert gaps.std() / gaps.mean() == pytest.approx(1.0 if arrivals is Arrivals.POISSON else 0.0, abs=0.1)


async def test_the_ramp_finds_the_capacity_of_a_server() -> None:
    places = asyncio.Semaphore(4)

    async def behaviour(request: Any, context: grpc.aio.ServicerContext) -> None:
        async with places:
            await asyncio.sleep(0.025)

    window = Window(seconds=0.6, warmup=0.15, timeout=1.0, lag_bound_ms=PATIENT)
    ramp = Ramp(start=60.0, factor=2.0, p99=100.0, bisect=2, most_rate=1000.0, most_seconds=20.0)
    async with serving(Fake(behaviour)) as target, aclosing(Client(target)) as client:
        await client.status()
        found = await load.search_rate(lambda rate: at_rate(client, rate, window), ramp)
    # Capacity is 4 places / 0.025 s = 160/s. R/s for 0.75 s leaves a wait of 0.75 * (R/160 - 1) s, 100 ms at 181/s.
    assert [point.offered_rate for point in found["points"][:3]] == [60, 120, 240]
    assert 100 <= found["held_rate"] <= 185
    assert "p99" in found["limited_by"]


def made_point(rate: float, p99: float, **changes: Any) -> Point:
    figures: dict[str, Any] = {
        "count": 1000, "errors": {}, "latency_ms": {"p50": p99 / 4, "p95": p99 / 2, "p99": p99}, "offered_rate": rate,
        "achieved_rate": rate, "lag_ms": {}, "generator_bound": False, "stages_ms": {}, "degraded": 0, "empty": 0,
        "methods": {},
    }  # fmt: skip
    return Point(**figures | changes)


async def test_the_ramp_halves_the_last_step_and_stops_by_itself() -> None:
    async def measure(rate: float) -> Point:
        return made_point(rate, p99=10.0 if rate <= 330 else 1000.0)

    found = await load.search_rate(measure, Ramp(100.0, 2.0, 50.0, bisect=3, most_rate=9999.0, most_seconds=60.0))
    assert [point.offered_rate for point in found["points"]] == [100, 200, 400, 300, 350, 325]
    assert (found["held_rate"], found["limited_by"]) == (325, ("p99",))
    found = await load.search_rate(measure, Ramp(100.0, 2.0, 50.0, bisect=3, most_rate=250.0, most_seconds=60.0))
    assert (found["held_rate"], found["limited_by"]) == (250, ("most_rate",))
    found = await load.search_rate(measure, Ramp(100.0, 2.0, 50.0, bisect=3, most_rate=250.0, most_seconds=-1.0))
    assert (found["held_rate"], found["limited_by"]) == (None, ("most_seconds",))


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, ()),
        ({"latency_ms": {"p99": 50.1}}, ("p99",)),
        ({"errors": {"UNAVAILABLE": 1}}, ()),
        ({"errors": {"UNAVAILABLE": 1, "DEADLINE_EXCEEDED": 1}}, ("errors",)),
        ({"achieved_rate": 97.9}, ("achieved",)),
        ({"generator_bound": True}, ("generator",)),
    ],
)
def test_what_held_means(changes: dict[str, Any], reasons: tuple[str, ...]) -> None:
    assert made_point(100.0, p99=50.0, **changes).judged(50.0).not_held == reasons


def test_pools_come_from_text_events_and_products(tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("red shoe\n\n blue hat \nred shoe\n", encoding="utf-8")
    events = {"query": ["b", "a", None, "b"], "user_id": ["u2", "u1", "u1", None]}
    pl.DataFrame(events).write_parquet(tmp_path / "events.parquet")
    pl.DataFrame({"title": ["one two three four", "five"]}).write_parquet(tmp_path / "products.parquet")
    assert load.read_pool(tmp_path / "queries.txt", "query") == ["red shoe", "blue hat"]
    assert load.read_pool(tmp_path / "events.parquet", "query") == ["b", "a"]
    assert load.read_pool(tmp_path / "events.parquet", "user_id") == ["u1", "u2"]
    assert load.read_pool(tmp_path / "products.parquet", "query") == ["one two three", "five"]
    with pytest.raises(typer.BadParameter, match="Give a canonical table or a text file"):
        load.read_pool(tmp_path / "products.parquet", "user_id")


def test_a_mix_is_shares_that_sum_to_one() -> None:
    assert load.parse_mix("search=7, recommend=3") == pytest.approx({"search": 0.7, "recommend": 0.3})


@pytest.mark.parametrize("text", ["", "search", "search=a", "browse=1", "search=1,search=2", "search=0", "search=nan"])
def test_a_bad_mix_says_what_to_write(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"write shares as in search=0\.7,recommend=0\.3, each of"):
        load.parse_mix(text)


@pytest.mark.parametrize(
    "target", ["shop.example:50051", "127.0.0.1.example:1", "10.0.0.1:1", "127.0.0.1", "dns:///a:1"]
)
def test_another_machine_is_refused(target: str) -> None:
    with pytest.raises(typer.BadParameter, match="Add --i-own-this-server if it is yours"):
        load.check_target(target, owned=False)
    load.check_target(target, owned=True)


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_this_machine_is_allowed(target: str) -> None:
    load.check_target(target, owned=False)


def test_a_mix_without_its_pool_says_what_to_give() -> None:
    with pytest.raises(typer.BadParameter, match="Give --queries"):
        Workload({"search": 1.0}, [], [], 1.0, 24, None, 0.0)
    with pytest.raises(typer.BadParameter, match="Give --users"):
        Workload({"recommend": 1.0}, [], [], 1.0, 24, None, 0.0)
    with pytest.raises(typer.BadParameter, match="give both or neither"):
        Workload({"search": 1.0}, ["q"], [], 1.0, 24, None, 0.5)


async def command(*arguments: str) -> str:
    """Run the script beside a server of this loop and return what it printed."""
    script = [sys.executable, load.__file__, *arguments]
    process = await asyncio.create_subprocess_exec(*script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


async def test_the_command_writes_json_and_a_plot(tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("red shoe\nblue hat\n", encoding="utf-8")
    (tmp_path / "users.txt").write_text("u1\n", encoding="utf-8")
    pools = ["--queries", str(tmp_path / "queries.txt"), "--users", str(tmp_path / "users.txt")]
    times = ["--seconds", "0.5", "--warmup", "0.1", "--out", str(tmp_path / "out" / "ramp.json")]
    async with serving(Fake(at_once)) as target:
        steps = ["ramp", "--start", "40", "--factor", "2", "--most-rate", "80", "--bisect", "0", "--p99", "900"]
        printed = await command(*steps, "--target", target, "--mix", "search=0.5,recommend=0.5", *pools, *times)
    result = json.loads((tmp_path / "out" / "ramp.json").read_text(encoding="utf-8"))
    assert "Highest rate held" in printed
    assert {"cpu", "cores", "memory_bytes", "platform"} <= result["machine"].keys()
    assert {"id", "dirty"} == result["commit"].keys()
    assert {"python", "grpcio", "numpy"} <= result["versions"].keys()
    assert result["parameters"]["queries"] == "queries.txt"
    assert result["server"]["versions"] == {"release": "r1", "index": "i1", "model": "", "encoder": "e1"}
    assert result["server"]["fusion"] == "mean"
    first = result["points"][0]
    assert (first["offered_rate"], first["count"], first["stages_ms"]) == (40, 20, {"recall": 2.5})
    assert first["degraded"] == first["empty"] == first["methods"]["recommend"]["count"]
    assert str(tmp_path) not in json.dumps(result)
    assert (tmp_path / "out" / "ramp.png").read_bytes().startswith(b"\x89PNG")


async def test_run_and_closed_write_one_point_each(tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("red shoe\n", encoding="utf-8")
    common = ["--queries", str(tmp_path / "queries.txt"), "--seconds", "0.2", "--warmup", "0.1"]
    async with serving(Fake(at_once)) as target:
        for mode in (["run", "--rate", "50"], ["closed", "--concurrency", "2"]):
            out = tmp_path / f"{mode[0]}.json"
            await command(*mode, "--target", target, "--out", str(out), *common)
            assert len(json.loads(out.read_text(encoding="utf-8"))["points"]) == 1


def test_the_commit_is_unknown_outside_git(tmp_path: Path) -> None:
    assert commit(tmp_path) == {"id": "unknown", "dirty": None}
