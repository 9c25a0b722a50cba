"""What ranking one request costs, stage by stage, each beside the bare library call, on one thread.

    python benchmarks/stages.py -c examples/retail/vitrine.toml

For users of the log and queries of the judgments in turn: recall, then features, DNN, trees and fusion of `--rows`
candidates. The bare calls get the arrays that the stage made, so the difference is what our code adds.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result import distribution, environment, write_result

from indexer.device import one_thread
from indexer.snapshot import IndexSnapshot, open_latest
from indexer.store import Store
from indexer.tuned import encoder_of
from ranker import features
from ranker.behaviour import Behaviour
from ranker.features import Context
from ranker.log import engagements, folding
from ranker.model import Model, load_model
from ranker.scoring import Scorable, network_input
from server.config import Settings, load_settings
from server.rebuild import read_sources

Watch = Callable[[str, Callable[[], Any]], Any]


def contexts(settings: Settings, snapshot: IndexSnapshot, model: Model, count: int) -> tuple[Behaviour, list[Context]]:
    """The shop's behaviour after the whole log, and requests at its end by the users and queries it knows."""
    sources = read_sources(settings)
    behaviour = Behaviour(len(snapshot))
    if sources.events is not None:
        found = engagements(sources.events, snapshot.row_of, settings.ranker.positive_rating)
        behaviour.apply_all(folding(found))
    now = behaviour.last_time if np.isfinite(behaviour.last_time) else time.time()
    rng = np.random.default_rng(0)
    made = []
    if behaviour.users:
        users = rng.choice(sorted(behaviour.users), count)
        made += [model.space.context(now, behaviour.history(str(user))) for user in users]
    queries = sorted(behaviour.queries) if sources.judgments is None else sources.judgments["query"].unique().to_list()
    if queries:
        encoder = encoder_of(Store(settings.store), snapshot.manifest, settings.indexer)
        asked = rng.choice(sorted(queries), count).tolist()
        made += [
            model.space.context(now, behaviour.history(None), query, encoder.encode([query])[0]) for query in asked
        ]
    return behaviour, made


def measure(model: Model, behaviour: Behaviour, asked: list[Context], rows: int) -> dict[str, dict[str, float]]:
    """Milliseconds of every stage over the requests, by stage; the first tenth warms up."""
    spent: dict[str, list[float]] = defaultdict(list)

    def watch(stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        done = work()
        spent[stage].append((time.perf_counter() - start) * 1e3)
        return done

    rng = np.random.default_rng(0)
    for context in asked:
        found = watch("recall", lambda c=context: model.retrieval.recall(c, behaviour))
        others = rng.integers(0, len(model.space.vectors), rows)
        candidates = np.unique(np.concatenate([found.rows, others]))[:rows]
        _rank(watch, model, behaviour, context, candidates)
    spent["features, members and fusion"] = np.add(spent["features"], spent["members and fusion"]).tolist()
    return {stage: distribution(np.array(values[len(values) // 10 :])) for stage, values in spent.items()}


def _rank(watch: Watch, model: Model, behaviour: Behaviour, context: Context, rows: np.ndarray) -> None:
    members, space = model.members, model.space.vectors
    matrix = watch("features", lambda: features.matrix(context, rows, model.catalogue, behaviour))
    item = Scorable(context, rows, matrix)
    watch("members and fusion", lambda: members.score([item], space))
    inputs = network_input([item], space)
    with torch.inference_mode():
        watch("bare torch forward", lambda: members.network(inputs))
    watch("bare Booster.predict, one thread", lambda: members.trees.predict(matrix, num_threads=1))


def main() -> None:
    """Run the benchmark on the newest model of a shop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, required=True, help="The shop's vitrine.toml.")
    parser.add_argument("--rows", type=int, default=300, help="Candidates of a request (default 300).")
    parser.add_argument("--requests", type=int, default=300, help="Requests of each kind (default 300).")
    parser.add_argument("--out", type=Path, help="Where the JSON goes; by default only the table is printed.")
    given = parser.parse_args()
    settings = load_settings(given.config)
    store = Store(settings.store)
    snapshot = open_latest(store, settings.indexer)
    model = load_model(store, store.latest("models"), snapshot, settings.indexer)
    if model.members is None:
        parser.error(f"Model {model.id} has no ranking to measure: {model.manifest['unranked']}.")
    behaviour, asked = contexts(settings, snapshot, model, given.requests)
    with one_thread():
        stages = measure(model, behaviour, asked, given.rows)
    print("| stage | p50 ms | p99 ms |\n|---|---|---|")
    for stage, spent in stages.items():
        print(f"| {stage} | {spent['p50']:.2f} | {spent['p99']:.2f} |")
    if given.out:
        parameters = {"config": given.config.as_posix(), "rows": given.rows, "requests": len(asked)}
        told = {"products": len(snapshot), "fusion": model.members.fusion.kind, "stages_ms": stages}
        write_result(given.out, "stages", parameters, {**environment(), **told})


if __name__ == "__main__":
    main()
