"""Load on a running server over gRPC: latency from the scheduled time, at one rate, at rising rates, or closed loop."""

import asyncio
import gc
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
import typer
from client import PATHS, Client, Request, precise_runner
from numpy.typing import NDArray
from plot import plot_ramp
from result import Log, Point, Window, environment, write_result
from vitrine.v1 import recommend_service_pb2, search_service_pb2
from vitrine.v1.filter_pb2 import Filter, Range

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
CLOSED_REQUESTS = 20_000


class Mode(StrEnum):
    """One rate; rising rates up to the highest one held; N callers that each wait for their answer."""

    RUN = "run"
    RAMP = "ramp"
    CLOSED = "closed"


class Arrivals(StrEnum):
    """How requests are spread over the seconds."""

    POISSON = "poisson"
    UNIFORM = "uniform"


@dataclass(frozen=True)
class Workload:
    """What is asked: shares of the methods, queries with the most frequent first, users, and the price filter."""

    mix: Mapping[str, float]
    queries: Sequence[str]
    users: Sequence[str]
    zipf: float
    page_size: int
    max_price: float | None
    filter_share: float

    def __post_init__(self) -> None:
        if "search" in self.mix and not self.queries:
            raise typer.BadParameter("The mix has searches. Give --queries PATH, or another --mix.")
        # Without a history the server falls back to popular products, at another cost than the one asked about.
        if "recommend" in self.mix and not self.users:
            raise typer.BadParameter("The mix has recommendations. Give --users PATH, or another --mix.")
        if bool(self.filter_share) != (self.max_price is not None):
            raise typer.BadParameter("--max-price and --filter-share (above 0) go together: give both or neither.")

    def draw(self, count: int, rng: np.random.Generator) -> list[Request]:
        """`count` requests: queries by Zipf's law, users evenly."""
        methods = rng.choice(list(self.mix), size=count, p=list(self.mix.values()))
        queries = zipf_places(len(self.queries), self.zipf, count, rng) if self.queries else np.zeros(count, np.int64)
        users = rng.integers(max(len(self.users), 1), size=count)
        filtered = rng.random(count) < self.filter_share
        return [self._build(*row) for row in zip(methods, queries, users, filtered, strict=True)]

    def _build(self, method: str, query: int, user: int, filtered: bool) -> Request:
        common: dict[str, Any] = {"page_size": self.page_size, "user_id": self.users[user] if self.users else ""}
        if filtered:
            common["filter"] = Filter(range=Range(column="price", max=self.max_price))
        if method == "search":
            message: Any = search_service_pb2.SearchRequest(query=self.queries[query], **common)
        else:
            message = recommend_service_pb2.RecommendRequest(**common)
        return Request(str(method), message.SerializeToString())


@dataclass(frozen=True)
class Ramp:
    """A search for the highest rate held: from `start` up by `factor`, then `bisect` halvings of the last step."""

    start: float
    factor: float
    p99: float
    bisect: int
    most_rate: float
    most_seconds: float

    def next_rate(self, held: float, failed: float | None, halved: int) -> float | None:
        """The rate to try after the highest one held (0 for none) and the lowest one not held; None at the end."""
        if failed is not None:
            return (held + failed) / 2 if halved < self.bisect else None
        if held >= self.most_rate:
            return None
        return min(held * self.factor if held else self.start, self.most_rate)


def parse_mix(text: str) -> dict[str, float]:
    """`search=0.7,recommend=0.3` as shares that sum to 1. Raises `typer.BadParameter` with what to write instead."""
    pairs = [[piece.strip() for piece in part.split("=")] for part in text.split(",")]
    try:
        weights = {name: float(weight) for name, weight in pairs}
    except ValueError:
        weights = {}
    positive = all(0 < weight < float("inf") for weight in weights.values())
    if not positive or len(weights) < len(pairs) or not weights.keys() <= PATHS.keys():
        rule = f"each of {', '.join(PATHS)} at most once, with a share above 0"
        raise typer.BadParameter(f"--mix: write shares as in search=0.7,recommend=0.3, {rule}, not {text!r}.")
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def check_target(target: str, *, owned: bool) -> None:
    """Raise `typer.BadParameter` for a server on another machine, unless `owned`."""
    if target.rpartition(":")[0] not in LOCAL_HOSTS and not owned:
        rule = f"is not HOST:PORT with a HOST of {', '.join(LOCAL_HOSTS)}"
        raise typer.BadParameter(f"--target {target} {rule}. Add --i-own-this-server if it is yours.")


def read_pool(path: Path, column: str) -> list[str]:
    """Distinct values of a text file's lines in their order, or of a Parquet column with the most frequent first.

    For `query`, a table without that column gives the first three words of `title`. Queries end at 1,000 characters.
    """
    if path.suffix != ".parquet":
        values = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        table = pl.scan_parquet(path)
        columns = table.collect_schema().names()
        if column in columns:
            counts = table.select(column).drop_nulls().group_by(column).len()
            values = counts.sort(["len", column], descending=[True, False]).collect()[column].to_list()
        elif column == "query" and "title" in columns:
            titles = table.select("title").drop_nulls().collect()["title"].to_list()
            values = [" ".join(title.split()[:3]) for title in titles]
        else:
            raise typer.BadParameter(f"{path} has no column {column}. Give a canonical table or a text file.")
    pool = list(dict.fromkeys(value[:1000] for value in values if value.strip()))
    if not pool:
        raise typer.BadParameter(f"{path} holds no {column}. Give a file with at least one.")
    return pool


def zipf_places(size: int, exponent: float, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` places below `size`; place k (from 1) has probability k**-exponent / sum over j of j**-exponent."""
    weights = np.arange(1, size + 1, dtype=np.float64) ** -exponent
    return rng.choice(size, size=count, p=weights / weights.sum())


def schedule(rate: float, window: Window, arrivals: Arrivals, rng: np.random.Generator) -> NDArray[np.float64]:
    """Seconds, from the end of the warm-up, at which requests are due; exactly rate * seconds of them are not negative.

    Given its count, a Poisson process is a sorted sample of the uniform distribution (Ross, Introduction to Probability
    Models, theorem 5.2): fixing the count keeps the bursts and takes the chance out of the offered rate.
    """
    before, counted = round(rate * window.warmup), max(round(rate * window.seconds), 1)
    if arrivals is Arrivals.UNIFORM:
        return np.arange(-before, counted) / rate
    early, late = rng.uniform(-window.warmup, 0.0, before), rng.uniform(0.0, window.seconds, counted)
    return np.sort(np.concatenate([early, late]))


async def open_loop(client: Client, requests: Sequence[Request], offsets: NDArray[np.float64], window: Window) -> Point:
    """Send each request at its time, whatever became of those before it."""
    begin = _settled_time() + window.warmup
    log = Log(begin)
    async with asyncio.TaskGroup() as group:
        for request, due in zip(requests, (begin + offsets).tolist(), strict=True):
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            group.create_task(client.ask(request, due, window.timeout, log))
    return log.point(window, offered=True)


async def closed_loop(client: Client, requests: Sequence[Request], concurrency: int, window: Window) -> Point:
    """Keep `concurrency` callers busy, each waiting for its answer before it asks again."""
    begin, supply = _settled_time() + window.warmup, itertools.cycle(requests)
    log = Log(begin)

    async def call() -> None:
        while (now := time.perf_counter()) < begin + window.seconds:
            await client.ask(next(supply), now, window.timeout, log)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(call())
    return log.point(window, offered=False)


def _settled_time() -> float:
    # The prepared requests are many thousands of objects; frozen, no collection walks them while the clock runs.
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    return time.perf_counter()


async def search_rate(measure: Callable[[float], Awaitable[Point]], ramp: Ramp) -> dict[str, Any]:
    """The points of a ramp, the highest rate held (None where none was) and what stopped it from being higher."""
    points: list[Point] = []
    held, halved, failed = 0.0, 0, None
    limits: tuple[str, ...] = ("most_rate",)
    last = time.monotonic() + ramp.most_seconds
    while (rate := ramp.next_rate(held, failed, halved)) is not None:
        if time.monotonic() > last:
            limits = limits if failed else ("most_seconds",)
            break
        point = await measure(rate)
        halved += failed is not None
        points.append(point.judged(ramp.p99))
        if points[-1].not_held:
            failed, limits = rate, tuple(points[-1].not_held)
        else:
            held = rate
    return {"points": points, "held_rate": held or None, "limited_by": limits}


app = typer.Typer(add_completion=False)


@app.command()
def main(
    context: typer.Context,
    mode: Annotated[Mode, typer.Argument(help="run: one rate. ramp: the highest rate held. closed: N callers.")],
    target: Annotated[str, typer.Option(help="HOST:PORT of the server.")] = "127.0.0.1:50051",
    i_own_this_server: Annotated[bool, typer.Option("--i-own-this-server", help="Allow another machine.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON to write. [default: results/load-MODE.json]")] = None,
    queries: Annotated[Path | None, typer.Option(help="Text file, or a Parquet with `query` or `title`.")] = None,
    users: Annotated[Path | None, typer.Option(help="Text file, or a Parquet with `user_id`.")] = None,
    mix: Annotated[str, typer.Option(help="Shares of the methods.")] = "search=1",
    zipf: Annotated[float, typer.Option(min=0.0, help="Exponent of the queries' Zipf law; 0 is even.")] = 1.0,
    page_size: Annotated[int, typer.Option(min=1, max=100)] = 24,
    max_price: Annotated[float | None, typer.Option(help="Bound of the price filter.")] = None,
    filter_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share that carries it.")] = 0.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds that count, at each rate.")] = 10.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="Seconds before them, at the same rate.")] = 2.0,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds after which a request failed.")] = 2.0,
    arrivals: Annotated[Arrivals, typer.Option()] = Arrivals.POISSON,
    connections: Annotated[int, typer.Option(min=1, help="HTTP/2 connections, at least.")] = 4,
    workers: Annotated[int, typer.Option(min=1, help="Processes of the server, reached evenly.")] = 1,
    seed: Annotated[int, typer.Option()] = 0,
    rate: Annotated[float, typer.Option(min=0.1, help="run: requests a second.")] = 100.0,
    start: Annotated[float, typer.Option(min=0.1, help="ramp: the first rate.")] = 50.0,
    factor: Annotated[float, typer.Option(min=1.01, help="ramp: each rate over the one before.")] = 1.5,
    p99: Annotated[float, typer.Option(min=0.1, help="ramp: the bound in milliseconds.")] = 100.0,
    bisect: Annotated[int, typer.Option(min=0, help="ramp: halvings of the last step.")] = 3,
    most_rate: Annotated[float, typer.Option(help="ramp: go no higher.")] = 10_000.0,
    most_seconds: Annotated[float, typer.Option(help="ramp: begin no rate after this long.")] = 900.0,
    concurrency: Annotated[int, typer.Option(min=1, help="closed: callers.")] = 1,
) -> None:
    """Measure a running server; write JSON, and for a ramp a PNG beside it. README.md explains the figures."""
    check_target(target, owned=i_own_this_server)
    asked = read_pool(queries, "query") if queries else []
    asking = read_pool(users, "user_id") if users else []
    workload = Workload(parse_mix(mix), asked, asking, zipf, page_size, max_price, filter_share)
    window, rng, made = Window(seconds, warmup, timeout), np.random.default_rng(seed), environment()
    ramp = Ramp(start, factor, p99, bisect, most_rate, most_seconds)

    async def at_rate(client: Client, offered: float) -> Point:
        offsets = schedule(offered, window, arrivals, rng)
        point = await open_loop(client, workload.draw(len(offsets), rng), offsets, window)
        typer.echo(point.line())
        return point

    async def measure() -> dict[str, Any]:
        async with aclosing(Client(target, connections)) as client:
            await client.spread(workers)
            body = {"server": await client.status()}
            if mode is Mode.RAMP:
                return body | await search_rate(lambda offered: at_rate(client, offered), ramp)
            if mode is Mode.RUN:
                return body | {"points": [await at_rate(client, rate)]}
            point = await closed_loop(client, workload.draw(CLOSED_REQUESTS, rng), concurrency, window)
            typer.echo(point.line())
            return body | {"points": [point]}

    with precise_runner() as runner:
        body = runner.run(measure())
    path = out or Path(__file__).parent / "results" / f"load-{mode}.json"
    write_result(path, "load", context.params, made | body)
    if mode is Mode.RAMP:
        plot_ramp(body["points"], p99, path.with_suffix(".png"), held=body["held_rate"], title=f"Load: {mix}")
        typer.echo(f"Highest rate held: {body['held_rate']}/s, limited by {', '.join(body['limited_by'])}.")
    typer.echo(f"Wrote {path}.")


if __name__ == "__main__":
    app()
