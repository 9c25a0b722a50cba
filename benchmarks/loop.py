"""A shop whose shoppers' minds are known: what its pages are worth to them, and how that grows as it learns from them.

    python benchmarks/loop.py                                  # some fifteen minutes
    python benchmarks/loop.py --products 10000 --seed 1 --out loop.json

An imagined old engine shows the first visits their pages, and Vitrine learns from their log. Then it serves, in rounds:
each visit gets the page that the live release makes of it, in process, what happens there is folded in, and after each
round it is rebuilt on the whole log. A page is worth the clicks it gets on average, known without any luck. README.md
explains the figures.
"""

import argparse
import dataclasses
import io
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from result import environment, write_result

from indexer.arrays import Doubles, Ints
from indexer.sample.products import make_products
from indexer.sample.shoppers import PAGE
from indexer.sample.visitors import Visitors, draw_visitors
from ranker.significance import paired
from server import pipeline
from server.app import open_live
from server.config import Settings, load_settings
from server.pipeline import Answer, Ask
from server.rebuild import JobLog, rebuild
from server.state import State

# Visits that are answered before what happened on their pages counts.
_TOGETHER = 50
_BATCH = 8
_CONFIG = 'store = "store"\n[indexer]\ncatalogue = "products.parquet"\n[ranker]\nevents = "events.parquet"\nseed = {}\n'
# Whose pages the visits of a round could have got; the first one they got.
ORDERS = ("served", "old engine", "recall", "DNN", "LightGBM", "best order", "no events since", "first release")


class Shop(NamedTuple):
    """A folder with a shop in it, and its visitors."""

    folder: Path
    settings: Settings
    visitors: Visitors


class States(NamedTuple):
    """Who answers: the live release, the same without any event since its rebuild, and the first release."""

    live: State
    frozen: State
    first: State


def opened(folder: Path, visitors: Visitors, events: pl.DataFrame, seed: int) -> Shop:
    """The shop in a folder, with its log so far."""
    visitors.products.write_parquet(folder / "products.parquet")
    events.write_parquet(folder / "events.parquet")
    (folder / "vitrine.toml").write_text(_CONFIG.format(seed), encoding="utf-8")
    return Shop(folder, load_settings(folder / "vitrine.toml"), visitors)


def rebuilt(shop: Shop) -> State:
    """The state of a new release, made of the shop's log."""
    rebuild(shop.settings, JobLog(io.StringIO()), lambda *_: None, lambda _: None, "loop")
    return state_of(shop)


def state_of(shop: Shop) -> State:
    """The live release, opened; what is folded into this state is in no other."""
    live = open_live(shop.settings)
    live.journal.close()
    return live.state


def answered(state: State, visitors: Visitors) -> Iterator[Answer]:
    """All candidates of each visit, ranked, at the time of the first visit."""
    then = dataclasses.replace(state, clock_offset=float(visitors.times[0]) - time.time())
    asks = [
        Ask(query=query or "", user=user, size=state.model.retrieval.candidates)
        for query, user in zip(visitors.queries, visitors.users, strict=True)
    ]
    answers: dict[int, Answer] = {}
    for work, mine in (
        (pipeline.search, [i for i, ask in enumerate(asks) if ask.query]),
        (pipeline.recommend, [i for i, ask in enumerate(asks) if not ask.query]),
    ):
        for start in range(0, len(mine), _BATCH):
            batch = mine[start : start + _BATCH]
            answers.update(zip(batch, work(then, [asks[i] for i in batch]), strict=True))
    return (answers[i] for i in range(len(asks)))


def pages_of(answers: Sequence[Answer], visitors: Visitors, table_row: Ints) -> dict[str, Ints]:
    """The pages [visits, 20] by each order of the same candidates, as rows of the table of products."""
    pages: dict[str, list[Ints]] = {name: [] for name in ("served", "recall", "DNN", "LightGBM", "best order")}
    for i, answer in enumerate(answers):
        hits = answer.hits
        if len(hits) < PAGE or hits.network is None or hits.trees is None:
            raise SystemExit(f"A visit was not ranked ({answer.degraded}): the log is too short. Give more --visits.")
        rows = table_row[hits.rows]
        drawn = visitors.part(slice(i, i + 1)).drawn(rows[None])[0]
        keys = (-hits.scores, -hits.recall, -hits.network, -hits.trees, -drawn)
        for name, key in zip(pages, keys, strict=True):
            pages[name].append(rows[np.argsort(key, kind="stable")[:PAGE]])
    return {name: np.array(each) for name, each in pages.items()}


def played(
    shop: Shop, visitors: Visitors, states: States, rng: np.random.Generator, name: str
) -> tuple[dict[str, Doubles], pl.DataFrame]:
    """A round: what the pages of each visit are worth by each of ORDERS, and the events on those that were served.

    They are folded into the live release and the first one, as a server does.
    """
    worth: dict[str, list[Doubles]] = {order: [] for order in ORDERS}
    events = []
    table_row = _table_rows(states.live, visitors.products)
    for start in range(0, len(visitors), _TOGETHER):
        part = visitors.part(slice(start, start + _TOGETHER))
        pages = pages_of(list(answered(states.live, part)), part, table_row)
        for other, state in (("no events since", states.frozen), ("first release", states.first)):
            pages[other] = pages_of(list(answered(state, part)), part, _table_rows(state, visitors.products))["served"]
        pages["old engine"] = part.old_pages(rng)
        for order in ORDERS:
            worth[order].append(part.expected_clicks(pages[order]))
        happened = part.events(pages["served"], rng, f"{name}-{start}-")
        states.live.fold(happened)
        # In the first round they are the same, and nothing happens twice.
        if states.first is not states.live:
            states.first.fold(happened)
        events.append(happened)
    return {order: np.concatenate(each) for order, each in worth.items()}, pl.concat(events)


def run(shop: Shop, rounds: Sequence[Visitors], rng: np.random.Generator) -> list[dict[str, Doubles]]:
    """What the pages of each round are worth."""
    found = []
    first = live = rebuilt(shop)
    for number, visitors in enumerate(rounds, 1):
        begin = time.perf_counter()
        # The first release has folded in what came since; the live one is opened anew, and so is its frozen twin.
        worth, events = played(shop, visitors, States(live, state_of(shop), first), rng, f"round-{number}")
        found.append(worth)
        told = ", ".join(f"{order} {values.mean():.3f}" for order, values in worth.items())
        print(f"round {number}, {len(visitors):,} visits, {time.perf_counter() - begin:.0f} s: {told}", flush=True)
        if number < len(rounds):
            log = shop.folder / "events.parquet"
            pl.concat([pl.read_parquet(log), events]).write_parquet(log)
            live = rebuilt(shop)
    return found


def summary(rounds: Sequence[Mapping[str, Doubles]]) -> list[dict[str, Any]]:
    """For each of ORDERS the mean of each round, and over all of them the served pages' mean less its own, with p."""
    everything = {order: np.concatenate([each[order] for each in rounds]) for order in ORDERS}
    others = ORDERS[1:]
    differences = paired(everything["served"], np.column_stack([everything[order] for order in others]))
    less = dict(zip(others, differences, strict=True))
    return [
        {
            "order": order,
            "rounds": [float(each[order].mean()) for each in rounds],
            "mean": float(everything[order].mean()),
            "served_less_this": less[order]._asdict() if order in less else None,
        }
        for order in ORDERS
    ]


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table: a row for each order."""
    rounds = [f"round {number}" for number in range(1, len(rows[0]["rounds"]) + 1)]
    made = [f"| pages by | {' | '.join(rounds)} | all | served less this |", "|---" * (len(rounds) + 3) + "|"]
    for row in rows:
        less = row["served_less_this"]
        told = "" if less is None else f"{less['mean']:+.3f} ({less['low']:+.3f} to {less['high']:+.3f})"
        means = " | ".join(f"{mean:.3f}" for mean in (*row["rounds"], row["mean"]))
        made.append(f"| {row['order']} | {means} | {told} |")
    return made


def _table_rows(state: State, products: pl.DataFrame) -> Ints:
    """The row in the table of products of each row of an index."""
    rows = np.empty(len(products), np.int64)
    for row, product in enumerate(products["product_id"].to_list()):
        rows[state.row_of[product]] = row
    return rows


def main() -> None:
    """Run the loop of one shop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--products", type=int, default=3_000, help="Products of the shop (default 3000).")
    add("--users", type=int, default=1_500, help="Its users (default 1500).")
    add(
        "--visits",
        type=int,
        default=20_000,
        help="Visits of 60 days, the first half by the old engine (default 20000).",
    )
    add("--rounds", type=int, default=4, help="Rounds of the second half; rebuilt between them (default 4).")
    add("--seed", type=int, default=0, help="Of the shop, its visits and the training (default 0).")
    add("--out", type=Path, help="Where the JSON goes; by default only the table is printed.")
    given = parser.parse_args()
    visitors = draw_visitors(make_products(given.products, given.seed), given.users, given.visits, given.seed)
    rng = np.random.default_rng([given.seed, 4])
    half = given.visits // 2
    bounds = np.linspace(half, given.visits, given.rounds + 1).astype(int)
    before = visitors.part(slice(0, half))
    made = environment()
    with tempfile.TemporaryDirectory() as folder:
        shop = opened(Path(folder), visitors, before.events(before.old_pages(rng), rng, "old-"), given.seed)
        rounds = [visitors.part(slice(*pair)) for pair in pairwise(bounds)]
        rows = summary(run(shop, rounds, rng))
    print("\n".join(lines(rows)))
    if given.out:
        write_result(given.out, "loop", vars(given), {**made, "rows": rows})


if __name__ == "__main__":
    main()
