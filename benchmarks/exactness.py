"""What speed costs in quality: the served form of a release beside the plain one, on the same held-back requests.

    python benchmarks/exactness.py -c examples/homedepot/vitrine.toml --out results/exactness-homedepot.json

Served: the compiled encoder's vectors, the approximate index, the DNN and the trees as serving scores them. Plain:
titles and queries embedded in float32 by the model itself, exact search, `Network.forward` in PyTorch and
`Booster.predict`. The members are the same ones, fitted once. Differences carry a paired randomisation test.
"""

import argparse
import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result import environment, write_result

from indexer.arrays import Doubles
from indexer.encoder import Encoder
from indexer.exact import ExactIndex
from indexer.snapshot import IndexSnapshot, open_latest
from indexer.store import Store
from indexer.threads import one_thread
from indexer.tuned import encoder_of
from ranker import ranked, trees
from ranker.examples import Example, Slice
from ranker.model import Members, Model, load_model
from ranker.significance import paired
from ranker.space import ProductSpace, in_space
from ranker.stages import make_stages, slice_examples
from ranker.train import prepare
from ranker.train_network import logits
from server.config import Settings, load_settings
from server.rebuild import read_sources


def plain_snapshot(snapshot: IndexSnapshot, encoder: Encoder) -> IndexSnapshot:
    """The same products with float32 vectors, searched exactly, and every query through the encoder."""
    plain = copy.copy(snapshot)
    plain.vectors = encoder.encode(snapshot.products.column("title").to_pylist())
    plain.index = ExactIndex(plain.vectors)
    plain.query_table = None
    return plain


def plain_space(space: ProductSpace, snapshot: IndexSnapshot) -> ProductSpace:
    """The product space searched exactly; without a tower its vectors are projections of the titles'."""
    vectors = space.vectors
    if space.tower is None:
        vectors = np.stack([in_space(space.projection, vector) for vector in snapshot.vectors])
    return replace(space, vectors=vectors, index=ExactIndex(vectors))


def examples(
    model: Model, settings: Settings, snapshot: IndexSnapshot, space: ProductSpace, encoder: Encoder
) -> list[Example]:
    """The requests of the test slice with their candidates and features."""
    prepared = prepare(read_sources(settings), snapshot, settings.ranker, model.manifest)
    tests = prepared._replace(requests=[item for item in prepared.requests if item[1] is Slice.TEST])
    recall = model.manifest["recall"]
    asked = settings.ranker.model_copy(update={"candidates": recall["candidates"]})
    stages = make_stages(tests, snapshot, space, asked, recall["weights"])
    return slice_examples(tests, stages, space, snapshot, encoder, print)[Slice.TEST]


def served_scores(members: Members, made: Sequence[Example], space: ProductSpace) -> list[Doubles]:
    """What the server scores."""
    return [score.fused for score in members.score(list(made), space.vectors)]


def plain_scores(members: Members, made: Sequence[Example], space: ProductSpace) -> list[Doubles]:
    """The weighted fusion of what PyTorch and LightGBM themselves score."""
    network = logits(members.network, made, space.vectors, torch.device("cpu"))
    return [
        members.fusion.weighted(scores, trees.score(members.trees.booster, example.features))
        for scores, example in zip(network, made, strict=True)
    ]


def figures(made: Sequence[Example], scores: Sequence[Doubles], positive_grade: float) -> dict[str, Doubles]:
    """NDCG@10 and recall@100 of each request."""
    values = ranked.per_request(scores, ranked.answers(made, positive_grade))
    return {name: values[name] for name in ("ndcg@10", "recall@100")}


def measure(settings: Settings) -> dict[str, Any]:
    """Both figures of both forms, and their differences, served minus plain."""
    store = Store(settings.store)
    snapshot = open_latest(store, settings.indexer)
    model = load_model(store, store.latest("models"), snapshot, settings.indexer)
    if model.members is None or model.members.fusion.kind != "weighted":
        raise SystemExit("The newest model has no ranking, or is not fused by `weighted`: it has no plain form here.")
    encoder = encoder_of(store, snapshot.manifest, settings.indexer)
    exact = encoder_of(store, snapshot.manifest, settings.indexer.model_copy(update={"backend": "torch"}))
    plain = plain_snapshot(snapshot, exact)
    space = plain_space(model.space, plain)
    grade = settings.ranker.positive_grade
    with one_thread():
        made = examples(model, settings, snapshot, model.space, encoder)
        served = figures(made, served_scores(model.members, made, model.space), grade)
        made = examples(model, settings, plain, space, exact)
        beside = figures(made, plain_scores(model.members, made, space), grade)
    return {
        "requests": len(made),
        "encoder": {"served": encoder.backend, "plain": exact.backend},
        "index": {"served": snapshot.index.kind, "plain": plain.index.kind},
        "served": {name: float(np.nanmean(values)) for name, values in served.items()},
        "plain": {name: float(np.nanmean(values)) for name, values in beside.items()},
        "served_minus_plain": {
            name: paired(values, beside[name][:, None])[0]._asdict() for name, values in served.items()
        },
    }


def main() -> None:
    """Compare both forms of the newest model of a shop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, required=True, help="The shop's vitrine.toml.")
    parser.add_argument("--out", type=Path, help="Where the JSON goes; by default only the table is printed.")
    given = parser.parse_args()
    found = measure(load_settings(given.config))
    print("| figure | served | plain | difference | 95 % interval | p |\n|---|---|---|---|---|---|")
    for name, difference in found["served_minus_plain"].items():
        low, high = difference["low"], difference["high"]
        told = f"{found['served'][name]:.4f} | {found['plain'][name]:.4f} | {difference['mean']:+.5f}"
        print(f"| {name} | {told} | {low:+.5f} to {high:+.5f} | {difference['p']:.2f} |")
    if given.out:
        write_result(given.out, "exactness", {"config": given.config.as_posix()}, {**environment(), **found})


if __name__ == "__main__":
    main()
