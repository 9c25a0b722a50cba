"""What products said after a release cost, new and changed ones: to take them in, and each search from then on.

    OMP_NUM_THREADS=1 python benchmarks/newcomers.py -c benchmarks/sample.toml

One thread, in process, on the live release; nothing is written to its journal. New and changed products have titles of
the catalogue with a word of their own.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from result import environment, write_result

from indexer.config import IndexerConfig
from ranker.upserts import Upsert
from server import pipeline
from server.amendments import MOST_CHANGED, MOST_NEW, prepared, with_upserts
from server.app import open_live, settle, warm_up
from server.config import load_settings
from server.pipeline import Ask
from server.state import State

R = TypeVar("R")

# Changed products are so far apart in the catalogue; a prime, so that none comes twice.
_STRIDE = 7_919


class Taken(NamedTuple):
    """So many products taken in at once, in milliseconds, and one more after them; and the state that has them."""

    new: int
    changed: int
    embed_ms: float
    add_ms: float
    one_more_ms: float
    state: State


def timed(work: Callable[[], R]) -> tuple[R, float]:
    """What `work` returns, and its milliseconds."""
    begin = time.perf_counter()
    made = work()
    return made, 1e3 * (time.perf_counter() - begin)


def upserts(titles: Sequence[str], first: int, count: int, ids: Sequence[str] = ()) -> list[Upsert]:
    """So many products, of now, numbered from `first` on: new ones, or those of `ids` with another title."""
    now = round(time.time() * 1e6)
    return [
        Upsert(
            ids[n * _STRIDE % len(ids)] if ids else f"new-{n}",
            now,
            {"title": f"{titles[n % len(titles)]} zq{n}", "price": 10.0 + n % 90},
        )
        for n in range(first, first + count)
    ]


def taken(state: State, titles: Sequence[str], count: int, config: IndexerConfig, *, changed: bool = False) -> Taken:
    """`count` products taken in by `state`, which has none, and then one more; new ones, or the release's own."""
    ids = state.snapshot.ids if changed else ()
    said, embed_ms = timed(lambda: prepared(state, upserts(titles, 0, count, ids)))
    made, add_ms = timed(lambda: with_upserts(state, said, config))
    more = prepared(made, upserts(titles, count, 1, ids))
    _, one_more_ms = timed(lambda: with_upserts(made, more, config))
    return Taken(0 if changed else count, count if changed else 0, embed_ms, add_ms, one_more_ms, made)


def search_ms(state: State, queries: Sequence[str]) -> float:
    """The median search, in milliseconds, of queries asked one after the other."""
    return float(np.median([timed(partial(pipeline.search, state, [Ask(query=query)]))[1] for query in queries]))


def compared(states: Sequence[State], queries: Sequence[str], rounds: int) -> list[tuple[float, float]]:
    """For each state the median search, and the median of its ratios to the first state's in the same round."""
    for state in states:
        search_ms(state, queries)
    laps = np.array([[search_ms(state, queries) for state in states] for _ in range(rounds)])
    ratios = laps / laps[:, :1]
    return list(zip(np.median(laps, axis=0).tolist(), np.median(ratios, axis=0).tolist(), strict=True))


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table: a row for each number of products."""
    made = [
        "| new | changed | embed, ms | take in, ms | one more, ms | search, ms | to none |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [f"{row[name]:.1f}" if name in row else "" for name in ("embed_ms", "add_ms", "one_more_ms")]
        cells = [str(row["new"]), str(row["changed"]), *cells, f"{row['search_ms']:.2f}", f"{row['ratio']:.2f}"]
        made.append(f"| {' | '.join(cells)} |")
    return made


def main() -> None:
    """Run the benchmark of one shop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, required=True, help="The shop's vitrine.toml.")
    counts = [1, 100, 1_000, MOST_NEW - 1]
    parser.add_argument("--counts", type=int, nargs="+", default=counts, help="How many new products.")
    changed = [1, 100, MOST_CHANGED - 1]
    parser.add_argument("--changed", type=int, nargs="+", default=changed, help="How many changed products.")
    parser.add_argument(
        "--queries", type=int, default=200, help="Searches of a lap, their vectors known (default 200)."
    )
    parser.add_argument("--rounds", type=int, default=7, help="Laps of each, in turn (default 7).")
    parser.add_argument("--out", type=Path, help="Where the JSON goes; by default only the table is printed.")
    given = parser.parse_args()
    settings = load_settings(given.config)
    live = open_live(settings)
    state = live.state.first
    warm_up(state)
    # As the server does: a collection would walk all that the release holds.
    settle()
    titles: list[str] = state.snapshot.products.column("title").to_pylist()
    queries = [" ".join(title.split()[:3]) for title in titles[: given.queries]]
    found = [taken(state, titles, count, settings.indexer) for count in given.counts]
    found += [taken(state, titles, count, settings.indexer, changed=True) for count in given.changed]
    searches = compared([state, *(each.state for each in found)], queries, given.rounds)
    rows: list[dict[str, Any]] = [{"new": 0, "changed": 0, "search_ms": searches[0][0], "ratio": 1.0}]
    for each, (ms, ratio) in zip(found, searches[1:], strict=True):
        costs = {name: value for name, value in each._asdict().items() if name != "state"}
        rows.append({**costs, "search_ms": ms, "ratio": ratio})
    print("\n".join(lines(rows)))
    if given.out:
        body = {**environment(), "products": len(state.snapshot), "rows": rows}
        write_result(given.out, "newcomers", vars(given), body)
    live.journal.close()


if __name__ == "__main__":
    main()
