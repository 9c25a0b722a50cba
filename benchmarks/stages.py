"""What one request costs, stage by stage, each beside the bare library call, on one thread.

    python benchmarks/stages.py -c examples/retail/vitrine.toml

For users of the log and queries of the judgments: embedding, recall, then features, DNN, trees and fusion of `--rows`
candidates. The bare calls get what the stage got, in the same run, right after it; the ratio is bare / ours.
"""

import argparse
import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import bm25s
import faiss
import numpy as np
import torch
from result import distribution, environment, write_result

from indexer.dense import FILE, DenseIndex
from indexer.encoder import Encoder, load_sentence_transformer, resolve
from indexer.query_table import QueryEncoder
from indexer.snapshot import LEXICAL, IndexSnapshot, open_latest
from indexer.store import Store
from indexer.text import normalise, tokens
from indexer.threads import one_thread
from indexer.tuned import encoder_of
from ranker import features
from ranker.behaviour import Behaviour
from ranker.features import Context
from ranker.log import engagements, folding
from ranker.model import Model, load_model
from ranker.network import network_input
from ranker.scoring import Scorable
from server.batcher import Batcher
from server.config import Settings, load_settings
from server.rebuild import read_sources

Watch = Callable[[str, Callable[[], Any]], Any]


def contexts(
    settings: Settings, snapshot: IndexSnapshot, model: Model, encoder: QueryEncoder, count: int
) -> tuple[Behaviour, list[Context]]:
    """The shop's behaviour after the whole log, and requests at its end by the users and queries it knows."""
    sources = read_sources(settings)
    behaviour = Behaviour(len(snapshot))
    if sources.events is not None:
        found = engagements(sources.events, snapshot.row_of, settings.ranker.positive_rating)
        behaviour.apply_all(folding(found))
        behaviour.exposure.fold(sources.events, snapshot.row_of)
    now = behaviour.last_time if np.isfinite(behaviour.last_time) else time.time()
    rng = np.random.default_rng(0)
    made = []
    if behaviour.users:
        users = rng.choice(sorted(behaviour.users), count)
        made += [model.space.context(now, behaviour.history(str(user))) for user in users]
    queries = sorted(behaviour.queries) if sources.judgments is None else sources.judgments["query"].unique().to_list()
    if queries:
        asked = rng.choice(sorted(queries), count).tolist()
        made += [
            model.space.context(now, behaviour.history(None), query, encoder.encode([query])[0]) for query in asked
        ]
    return behaviour, made


class Bare(NamedTuple):
    """What the libraries themselves do with the same models."""

    encode: Callable[[str], Any]
    lexical: Callable[[Context], Any]
    dense: Callable[[np.ndarray], Any]

    @classmethod
    def of(cls, settings: Settings, snapshot: IndexSnapshot, encoder: Encoder) -> "Bare":
        """sentence-transformers, bm25s and FAISS with their own top k."""
        folder = Path(encoder.name) if Path(encoder.name).is_dir() else resolve(settings.indexer.encoder)
        model = load_sentence_transformer(folder, torch.device("cpu"))
        bm25 = bm25s.BM25.load(snapshot.folder / LEXICAL, mmap=True, show_progress=False)
        k = settings.ranker.candidates
        index, parameters = None, None
        if snapshot.index.kind != "exact":
            index = faiss.read_index(str(snapshot.folder / FILE))
            if snapshot.index.kind.startswith("HNSW") and isinstance(snapshot.index, DenseIndex):
                parameters = faiss.SearchParametersHNSW(efSearch=max(snapshot.index.tuning.effort, k))

        def lexical(context: Context) -> Any:
            words = [word for word in tokens(normalise(context.query)) if word in bm25.vocab_dict]
            return bm25.retrieve([words], k=min(k, len(snapshot)), show_progress=False) if words else None

        return cls(
            lambda query: model.encode([query], normalize_embeddings=True, show_progress_bar=False),
            lexical,
            lambda vector: index.search(vector[None], k, params=parameters) if index else snapshot.vectors @ vector,
        )


def measure(
    model: Model,
    snapshot: IndexSnapshot,
    encoder: QueryEncoder,
    bare: Bare,
    behaviour: Behaviour,
    asked: list[Context],
    rows: int,
) -> dict[str, list[float]]:
    """Milliseconds of every stage for each request, by stage; the first tenth warms up."""
    spent: dict[str, list[float]] = defaultdict(list)

    def watch(stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        done = work()
        spent[stage].append((time.perf_counter() - start) * 1e3)
        return done

    rng = np.random.default_rng(0)
    for context in asked:
        if context.query_vector is not None:
            _recall_parts(watch, model, snapshot, encoder, bare, context)
        found = watch("recall, all channels", lambda c=context: model.retrieval.recall(c, behaviour))
        others = rng.integers(0, len(model.space.vectors), rows)
        _rank(watch, model, behaviour, context, np.unique(np.concatenate([found.rows, others]))[:rows])
    parts = (spent[stage] for stage in ("features", "members and fusion"))
    spent["features, members and fusion"] = np.add(*parts).tolist()
    return {stage: values[len(values) // 10 :] for stage, values in spent.items()}


def _recall_parts(
    watch: Watch, model: Model, snapshot: IndexSnapshot, encoder: QueryEncoder, bare: Bare, context: Context
) -> None:
    k, vector = model.retrieval.candidates, context.query_vector
    watch("encode", lambda: encoder.encode([context.query]))
    watch("bare encode", lambda: bare.encode(context.query))
    watch("lexical", lambda: snapshot.lexical.search(context.query, k))
    watch("bare lexical", lambda: bare.lexical(context))
    watch("dense", lambda: snapshot.index.search(vector[None], k))
    watch("bare dense", lambda: bare.dense(vector))


def _rank(watch: Watch, model: Model, behaviour: Behaviour, context: Context, rows: np.ndarray) -> None:
    members, space = model.members, model.space.vectors
    matrix = watch("features", lambda: features.matrix(context, rows, model.catalogue, behaviour))
    item = Scorable(context, rows, matrix)
    watch("members and fusion", lambda: members.score([item], space))
    watch("DNN", lambda: members.compiled_network.logits([item], space))
    inputs = network_input([item], space)
    with torch.inference_mode():
        watch("bare DNN", lambda: members.network(inputs))
    watch("trees", lambda: members.trees.score(matrix))
    watch("bare trees", lambda: members.trees.booster.predict(matrix, num_threads=1, raw_score=True))


async def crossings(count: int) -> list[float]:
    """Milliseconds from handing a request to the batcher until its answer is there, when there is nothing to do."""
    batcher: Batcher[int, int] = Batcher(lambda items: items, max_batch=8, max_waiting=256)
    spent = []
    for i in range(count):
        start = time.perf_counter()
        await batcher.submit(i)
        spent.append((time.perf_counter() - start) * 1e3)
    await batcher.close()
    return spent[count // 10 :]


def lines(stages: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The table: ours, the bare call's, and how many times as long that takes."""
    made = ["| stage | p50 ms | p99 ms | bare p50 ms | bare / ours |", "|---|---|---|---|---|"]
    for stage, spent in stages.items():
        if stage.startswith("bare "):
            continue
        beside = stages.get(f"bare {stage}")
        told = f"{beside['p50']:.2f} | {beside['p50'] / spent['p50']:.1f}" if beside else "|"
        made.append(f"| {stage} | {spent['p50']:.2f} | {spent['p99']:.2f} | {told} |")
    return made


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
    config = settings.indexer.model_copy(update={"threads": 1})
    encoder = encoder_of(store, snapshot.manifest, config)
    queries = QueryEncoder(encoder, snapshot.query_table)
    behaviour, asked = contexts(settings, snapshot, model, queries, given.requests)
    with one_thread():
        spent = measure(model, snapshot, queries, Bare.of(settings, snapshot, encoder), behaviour, asked, given.rows)
    spent["batcher crossing"] = asyncio.run(crossings(2_000))
    stages = {stage: distribution(np.array(values)) for stage, values in spent.items()}
    print("\n".join(lines(stages)))
    if given.out:
        parameters = {"config": given.config.as_posix(), "rows": given.rows, "requests": len(asked)}
        told = {"products": len(snapshot), "fusion": model.members.fusion.kind, "stages_ms": stages}
        write_result(given.out, "stages", parameters, {**environment(), **told})


if __name__ == "__main__":
    main()
