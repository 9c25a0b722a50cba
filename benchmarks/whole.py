"""The whole request, from the query's text to the page: Vitrine served, in process, and a naive monolith beside it.

    python benchmarks/whole.py                                  # the shop of sample.toml, some ten minutes
    python benchmarks/whole.py -c shop/vitrine.toml --rounds 5 --seconds 3

Each round measures, one after the other and each in new processes: the naive monolith (naive.py), the pipeline in
process with one request at a time, the same in batches of 8 on every core, and `vitrine serve`: its start, one caller,
many callers, the highest rate held of Search and of Recommend, its memory. No query is asked twice in a process while
the shop has words enough. Printed are the medians over the rounds, and what was wanted of them. README.md explains.
"""

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import load
import numpy as np
import polars as pl
from client import Client, Request, precise_runner
from goals import figures_of, summary, table
from load import Arrivals, Ramp
from result import LIBRARIES, Point, Window, environment, versions, write_result
from served import serving
from side import WARM_UP, busy_cores, dropped, measured, neutral
from vitrine.v1.recommend_service_pb2 import RecommendRequest
from vitrine.v1.search_service_pb2 import SearchRequest

from server.config import Settings, load_settings

HERE = Path(__file__).parent
BATCH = 8
PAGE = 24
QUERIES = 60_000
TIMEOUT = 2.0
P99_MS = 60.0
FACTOR, BISECT = 1.2, 3
CALLERS_EACH = 8  # of a worker
CONNECTIONS_EACH = 4  # to a worker
# Draws a query wanted: a shop that has not given enough by then has no more.
_TRIES = 4


def distinct_queries(titles: Sequence[str], count: int, rng: np.random.Generator) -> list[str]:
    """Up to `count` distinct queries: two to four words of a title drawn at random, in the title's order."""
    words = [split for title in titles if len(split := title.split()) >= 2]
    found: dict[str, str] = {}
    for place in rng.integers(len(words), size=count * _TRIES).tolist():
        if len(found) == count:
            break
        title = words[place]
        most = min(len(title), 4)
        chosen = np.sort(rng.permutation(len(title))[: rng.integers(2, most + 1)])
        query = " ".join(title[i] for i in chosen)
        found.setdefault(query.casefold(), query)
    return list(found.values())


class Bench:
    """What all rounds share: the shop, the queries and users asked for, and the sizes of the measurements."""

    def __init__(self, given: argparse.Namespace, settings: Settings, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.log = folder / "sides.log"
        self.rng = np.random.default_rng(given.seed)
        titles = pl.read_parquet(settings.indexer.catalogue, columns=["title"])["title"].drop_nulls().to_list()
        self.queries = distinct_queries(titles, QUERIES, self.rng)
        if len(self.queries) < 100 * given.cores:
            raise SystemExit(f"{settings.indexer.catalogue} gives {len(self.queries)} distinct queries, too few.")
        if settings.ranker.events is None:
            raise SystemExit("The shop has no events, so nobody to recommend to. Set ranker.events.")
        self.users = load.read_pool(settings.ranker.events, "user_id")
        self.window = Window(given.seconds, WARM_UP, TIMEOUT, lag_bound_ms=P99_MS)
        self.parts = [self._written(part) for part in range(given.cores)]
        self.all = self._written(None)

    def round(self, runner: asyncio.Runner) -> dict[str, Any]:
        """Every measurement once."""
        told: dict[str, Any] = {"busy_before": round(busy_cores(), 2)}
        naive = ["naive.py", "--queries", self.all]
        alone = ["in_process.py", "--queries", self.all]
        together = [["in_process.py", "--batch", BATCH, "--queries", part] for part in self.parts]
        told["naive"] = self._measured([naive], None)[0]
        told["pipeline"] = self._measured([alone], 1)[0]
        told["ceiling"] = self._measured(together, 1)
        rate = sum(each["requests_per_second"] for each in told["ceiling"])
        return told | {"served": runner.run(self._served(rate / 2))}

    def _written(self, part: int | None) -> Path:
        """A file with all queries, or with those of one of the processes that answer at the same time."""
        path = self.folder / f"queries-{part}.txt"
        lines = self.queries if part is None else self.queries[part :: self.given.cores]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    def _measured(self, scripts: Sequence[Sequence[Any]], threads: int | None) -> list[dict[str, Any]]:
        common = ["-c", str(self.given.config), "--seconds", str(self.given.seconds)]
        commands = [[str(HERE / script), *map(str, options), *common] for script, *options in scripts]
        return measured(commands, neutral(threads), self.log)

    async def _served(self, start: float) -> dict[str, Any]:
        """The server's start, one caller, many callers, both ramps from `start` requests a second, its memory."""
        workers = self.given.workers
        searches, recommends = self._searches(), self._recommends()
        most = 1_000 * int(self.window.seconds + self.window.warmup + 1)
        # `vitrine serve` itself sets OMP_NUM_THREADS=1.
        async with serving(self.given.config, workers, neutral(), self.log) as server:
            told: dict[str, Any] = {"start_seconds": round(server.start_seconds, 3)}
            # A caller that is alone has one connection, and so one of the workers.
            async with aclosing(Client(server.target)) as client:
                await client.status()
                asked = list(itertools.islice(searches, most))
                told["one"] = _short(await load.closed_loop(client, asked, 1, self.window))
            async with aclosing(Client(server.target, CONNECTIONS_EACH * workers)) as client:
                await client.spread(workers)
                asked = list(itertools.islice(searches, most * workers))
                told["many"] = _short(await load.closed_loop(client, asked, CALLERS_EACH * workers, self.window))
                told["search"] = await self._held(client, searches, start)
                told["recommend"] = await self._held(client, recommends, start)
                told["status"] = await client.status()
            told["memory_mb"] = [each._asdict() for each in server.memory()]
        return told

    async def _held(self, client: Client, requests: Iterator[Request], start: float) -> dict[str, Any]:
        """The highest rate held, and the points on the way."""

        async def at_rate(rate: float) -> Point:
            offsets = load.schedule(rate, self.window, Arrivals.POISSON, self.rng)
            return await load.open_loop(client, list(itertools.islice(requests, len(offsets))), offsets, self.window)

        point_seconds = self.window.seconds + self.window.warmup
        ramp = Ramp(start, FACTOR, P99_MS, BISECT, most_rate=100_000.0, most_seconds=15 * point_seconds)
        found = await load.search_rate(at_rate, ramp)
        return found | {"points": [_short(point) for point in found["points"]]}

    def _searches(self) -> Iterator[Request]:
        for query in itertools.cycle(self.queries):
            yield Request("search", SearchRequest(query=query, page_size=PAGE).SerializeToString())

    def _recommends(self) -> Iterator[Request]:
        while True:
            for place in self.rng.permutation(len(self.users)).tolist():
                message = RecommendRequest(user_id=self.users[place], page_size=PAGE)
                yield Request("recommend", message.SerializeToString())


def _short(point: Point) -> dict[str, Any]:
    """What of a point is kept: a run has some eighty."""
    latency = {name: point.latency_ms.get(name) for name in ("p50", "p95", "p99", "mean")}
    kept = ("offered_rate", "achieved_rate", "count", "errors", "lag_ms", "stages_ms", "degraded", "empty", "not_held")
    return {"latency_ms": latency} | {name: getattr(point, name) for name in kept}


def run(given: argparse.Namespace, bench: Bench, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The rounds; none is begun that would end after the minutes given, if each takes as long as the longest so far."""
    rounds: list[dict[str, Any]] = []
    begin, longest = time.monotonic(), 0.0
    with precise_runner() as runner:
        for number in range(1, given.rounds + 1):
            start = time.monotonic()
            if rounds and start - begin + longest > given.minutes * 60:
                say(f"{given.minutes:g} minutes are over: {len(rounds)} of {given.rounds} rounds.")
                break
            rounds.append(bench.round(runner))
            longest = max(longest, time.monotonic() - start)
            say(f"round {number} of {given.rounds}, {time.monotonic() - start:.0f} s: {_line(rounds[-1])}")
    return rounds


def _line(told: Mapping[str, Any]) -> str:
    """A round in one line, for the person who waits."""
    figures = figures_of(told)
    names = ("naive/s", "pipeline p50 ms", "ceiling/s", "served p50 ms", "search held/s", "recommend held/s")
    return "  ".join(f"{name} {figures[name]:.1f}" for name in names)


def main() -> None:
    """Run the benchmark on the live release of a shop."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("-c", "--config", type=Path, default=HERE / "sample.toml", help="A vitrine.toml (default sample.toml).")
    add("--rounds", type=int, default=5, help="Alternating rounds (default 5).")
    add("--seconds", type=float, default=3.0, help="Seconds that count, of each measurement and rate (default 3).")
    add("--minutes", type=float, default=12.0, help="Begin no round that would end later (default 12).")
    add("--workers", type=int, default=cores, help=f"Processes of the server (default: one a core, {cores}).")
    add("--cores", type=int, default=cores, help=f"Processes of the ceiling (default {cores}).")
    add("--seed", type=int, default=0, help="Of queries and arrivals (default 0).")
    add("--out", type=Path, default=HERE / "results" / "whole.json", help="JSON (default results/whole.json).")
    given = parser.parse_args()
    settings = load_settings(given.config)
    if not (settings.store / "CURRENT").is_file():
        parser.error(f"{settings.store} has no live release. Make one: `vitrine rebuild -c {given.config}`.")
    made = environment() | {"versions": versions((*LIBRARIES, "sentence-transformers", "numba", "scipy"))}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given, settings, Path(folder))
        rounds = run(given, bench, lambda line: print(line, flush=True))
    found = summary(rounds)
    parameters = {
        **vars(given),
        "distinct_queries": len(bench.queries),
        "p99_bound_ms": P99_MS,
        "warmup_seconds": WARM_UP,
        "batch_of_the_ceiling": BATCH,
        "callers": CALLERS_EACH * given.workers,
        "connections": CONNECTIONS_EACH * given.workers,
        "environment_dropped": dropped(),
        "environment_ours": {"OMP_NUM_THREADS": "1"},
    }
    write_result(given.out, "whole", parameters, made | {"summary": found, "rounds": rounds})
    print(table(found))
    print(f"Wrote {given.out}.")


if __name__ == "__main__":
    main()
