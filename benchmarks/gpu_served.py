"""A shop served on a device: searches with filters at rising rates until p99 is too long, and what was busy then."""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import load
import numpy as np
import polars as pl
from client import ANSWERS, CHANNEL_OPTIONS, PATHS, Client, Request, precise_runner
from gpu_load import Generators
from gpu_usage import Usage, limits, server_processes
from load import Ramp
from result import Point, Window
from served import Server, serving
from side import neutral
from vitrine.v1.filter_pb2 import Equals, Filter, FilterList, Range, Value
from vitrine.v1.search_service_pb2 import SearchRequest
from whole import distinct_queries

PAGE = 24
# Distinct queries; each generator asks its own share over and over.
QUERIES = 60_000
CONNECTIONS = 2  # of each generator to each worker
_PROBES = 32
# One caller alone is asked for no longer than this.
_ALONE = 3.0
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Load:
    """How a server is asked: a ramp from `start` by `factor`, each rate for `seconds`, until p99 is over `p99` ms."""

    start: float = 100.0
    factor: float = 2.0
    bisect: int = 3
    p99: float = 25.0
    seconds: float = 5.0
    warmup: float = 1.5
    timeout: float = 2.0
    most_seconds: float = 150.0
    generators: int = 4

    @property
    def window(self) -> Window:
        """Of one rate."""
        return Window(self.seconds, self.warmup, self.timeout)


def searches(products: pl.DataFrame, users: Sequence[str], count: int, rng: np.random.Generator) -> list[Request]:
    """`count` searches of users, each with a filter: half by department, half by price and stock, of any strictness."""
    queries = distinct_queries(products["title"].drop_nulls().to_list(), count, rng)
    departments = products["department"].drop_nulls()
    prices = products["price"].drop_nulls()
    drawn_departments = departments.gather(rng.integers(len(departments), size=len(queries))).to_list()
    drawn_prices = prices.gather(rng.integers(len(prices), size=len(queries))).to_list()
    made = []
    for i, query in enumerate(queries):
        bound = max(drawn_prices[i], float(prices.quantile(0.05) or 0.0))
        condition = _department(drawn_departments[i]) if i % 2 else _affordable(bound)
        message = SearchRequest(query=query, user_id=users[i % len(users)], page_size=PAGE, filter=condition)
        made.append(Request("search", message.SerializeToString()))
    return made


def _department(name: str) -> Filter:
    return Filter(equals=Equals(column="department", value=Value(string_value=name)))


def _affordable(most: float) -> Filter:
    in_stock = Filter(equals=Equals(column="in_stock", value=Value(bool_value=True)))
    return Filter(all=FilterList(filters=[Filter(range=Range(column="price", max=most)), in_stock]))


def requests_of(data: Path, seed: int) -> list[Request]:
    """What the servers of a shop are asked, from its canonical tables."""
    products = pl.read_parquet(data / "products.parquet", columns=["title", "department", "price", "in_stock"])
    users = load.read_pool(data / "events.parquet", "user_id")
    return searches(products, users, QUERIES, np.random.default_rng(seed))


def measure(
    config: Path, workers: int, requests: Sequence[Request], asked: Load, log: Path, tell: Tell
) -> dict[str, Any]:
    """Serve a configuration by so many processes and find the rate it holds; `tell` gets what is known so far."""
    with precise_runner() as runner:
        return runner.run(measured(config, workers, requests, asked, log, tell))


async def measured(
    config: Path, workers: int, requests: Sequence[Request], asked: Load, log: Path, tell: Tell
) -> dict[str, Any]:
    """See `measure`."""
    async with serving(config, workers, neutral(), log) as server:
        told: dict[str, Any] = {"workers": workers, "start_seconds": round(server.start_seconds, 2)}
        async with aclosing(Client(server.target)) as client:
            told["status"] = await client.status()
            told["answers"] = await _probed(server.target, requests[:_PROBES])
            alone = replace(asked.window, seconds=min(asked.seconds, _ALONE))
            told["one_caller"] = short(await load.closed_loop(client, requests, 1, alone))
        tell(told)
        found = await _ramp(server, workers, requests, asked, lambda points: tell(told | {"points": points}))
        return told | found | {"memory_mb": [each._asdict() for each in server.memory()]}


async def _probed(target: str, requests: Sequence[Request]) -> dict[str, Any]:
    """Of some answers what a load test does not look at: their candidates, and why any was degraded."""
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        call = channel.unary_unary(PATHS["search"])
        answers = [ANSWERS["search"].FromString(await call(request.payload, timeout=30)) for request in requests]
    counts = sorted(answer.info.candidates for answer in answers)
    return {
        "candidates": {"least": counts[0], "median": counts[len(counts) // 2], "most": counts[-1]},
        "degraded": sorted({f"{each.stage}: {each.reason}" for answer in answers for each in answer.info.degraded}),
    }


async def _ramp(
    server: Server, workers: int, requests: Sequence[Request], asked: Load, tell: Callable[[list[dict[str, Any]]], None]
) -> dict[str, Any]:
    """The highest rate held, the points on the way, and what was busy where it was no longer held."""
    points: list[dict[str, Any]] = []
    generators = await asyncio.to_thread(Generators, server.target, requests, asked.generators, workers, CONNECTIONS)
    watched = server_processes(server.workers)

    async def at_rate(rate: float) -> Point:
        usage = Usage(watched, generators.ids)
        with usage.watched():
            point = await asyncio.to_thread(generators.point, rate, asked.window)
        busy = limits(usage.told, os.cpu_count() or 1)
        points.append(short(point.judged(asked.p99)) | {"usage": usage.told, "limits": busy})
        tell(points)
        return point

    try:
        ramp = Ramp(asked.start, asked.factor, asked.p99, asked.bisect, 100_000.0, asked.most_seconds)
        found = await load.search_rate(at_rate, ramp)
    finally:
        generators.close()
    return found | {"points": points, "limits": limit_of(points)}


def limit_of(points: Sequence[dict[str, Any]]) -> list[str]:
    """What was busy at the lowest rate that was not held; where all were, at the highest rate."""
    failed = [point for point in points if point["not_held"]]
    ordered = sorted(failed or points, key=lambda point: float(point["offered_rate"]))
    return list(ordered[0 if failed else -1]["limits"]) if ordered else []


def short(point: Point) -> dict[str, Any]:
    """What of a point is kept."""
    latency = {name: point.latency_ms.get(name) for name in ("p50", "p95", "p99", "mean")}
    kept = ("offered_rate", "achieved_rate", "count", "errors", "lag_ms", "stages_ms", "degraded", "empty", "not_held")
    return {"latency_ms": latency} | {name: getattr(point, name) for name in kept}
