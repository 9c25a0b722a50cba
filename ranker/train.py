"""The training: log and judgments -> examples -> members -> fusion -> report -> a published model."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from indexer.canonical import EVENTS
from indexer.config import IndexerConfig
from indexer.device import choose
from indexer.encoder import Encoder
from indexer.errors import InputError
from indexer.snapshot import IndexSnapshot
from indexer.store import Store, write_json
from indexer.threads import one_thread
from ranker import evaluate, features, log
from ranker.compiled_tower import CompiledTower
from ranker.config import RankerConfig
from ranker.covisited import fit_covisited
from ranker.ease import fit_ease
from ranker.examination import Examination, fit_examination, stored_examination
from ranker.examples import Example, Slice, slice_of_query, slice_of_time, time_cuts
from ranker.exposure import shown_of
from ranker.fit import fit_members
from ranker.log import Request, Sources
from ranker.model import REPORT, UNRANKED, Members, Model
from ranker.recall import kind_of
from ranker.report import write_report
from ranker.space import ProductSpace, all_in_space, make_space, principal_projection
from ranker.stages import Prepared, Say, fit_recall, make_stages, slice_examples, with_weights
from ranker.train_tower import fit_tower

# Requests with a gain that a slice needs, below which its figures would be noise. Of so many events and judgments, one
# should be of a product that is there.
_FEWEST = 20


class Material(NamedTuple):
    """What the members are fitted and measured on: the lists of every slice, and what they were made with."""

    prepared: Prepared
    space: ProductSpace
    weights: dict[str, dict[str, float]]
    slices: dict[Slice, list[Example]]


class Ranking(NamedTuple):
    """The fitted members, and their report on the test slice."""

    members: Members
    figures: dict[str, Any]

    def save(self, folder: Path) -> None:
        """Write both."""
        self.members.save(folder)
        (folder / REPORT).mkdir()
        write_json(folder / REPORT / "report.json", self.figures)
        write_report(self.figures, folder / REPORT / "report.html")


def train(
    store: Store,
    config: RankerConfig,
    indexing: IndexerConfig,
    snapshot: IndexSnapshot,
    encoder: Encoder,
    sources: Sources,
    say: Say,
) -> str:
    """Fit and publish a model for `snapshot`; returns its id. Where the log is too short, it has no members.

    Raises `InputError` where the log cannot be used.
    """
    started = time.perf_counter()
    made = gather(config, indexing, snapshot, encoder, sources, say)
    prepared, space, slices = made.prepared, made.space, made.slices
    ranking = _fit_ranking(made, config, say)
    fitted = slices[Slice.MEMBERS] if ranking else []

    def fill(folder: Path) -> Mapping[str, Any]:
        # What is served has seen the whole log, as a server's histories have.
        fit_covisited(prepared.engagements, len(snapshot)).save(folder)
        if ranking:
            fit_ease(prepared.engagements, len(snapshot)).save(folder)
            ranking.save(folder)
        return {
            "index": snapshot.id,
            "encoder": snapshot.encoder_fingerprint,
            "schema": features.fingerprint(),
            "space": space.save(folder),
            "fusion": ranking.members.fusion.kind if ranking else UNRANKED,
            "unranked": shortfall(slices),
            "recall": {"candidates": config.candidates, "weights": made.weights},
            "learnt": _learnt(fitted),
            "answered": _answered(fitted),
            "shown": _shown(fitted),
            **prepared.told(),
            "requests": {part.name.lower(): len(slices[part]) for part in Slice},
            "positive_grade": config.positive_grade,
            "seconds": round(time.perf_counter() - started, 2),
        }

    return store.publish("models", fill)


def gather(
    config: RankerConfig,
    indexing: IndexerConfig,
    snapshot: IndexSnapshot,
    encoder: Encoder,
    sources: Sources,
    say: Say,
) -> Material:
    """Fit the product space and the recall weights, and replay the log. Raises `InputError` where it cannot be used."""
    _check_known(sources, snapshot.row_of)
    prepared = prepare(sources, snapshot, config)
    say(f"how often a place is looked at, as a share of the first: {prepared.examination}")
    space = _fit_space(prepared, snapshot, config, indexing, choose(config.device), say)
    stages = make_stages(prepared, snapshot, space, config, {})
    with one_thread():
        weights = fit_recall(prepared, stages, space, snapshot, encoder, config, say)
        slices = slice_examples(prepared, with_weights(stages, weights), space, snapshot, encoder, say)
    weighed = {part: prepared.examination.weighed(examples) for part, examples in slices.items()}
    return Material(prepared, space, weights, weighed)


def shortfall(slices: Mapping[Slice, Sequence[Example]]) -> str | None:
    """Why the log is too short to learn a ranking from, or None where it is not."""
    for part in (Slice.MEMBERS, Slice.CALIBRATE, Slice.VALIDATE, Slice.TEST):
        if len(slices[part]) < _FEWEST:
            return (
                f"the log is too short to learn a ranking from (slice {part.name.lower()} has {len(slices[part])} "
                f"requests, {_FEWEST} are needed): hits come in recall order until the next rebuild"
            )
    return None


def evaluate_again(
    model: Model, config: RankerConfig, snapshot: IndexSnapshot, encoder: Encoder, sources: Sources, say: Say
) -> dict[str, Any]:
    """The report of a trained model on what was kept from its training, and on whatever was logged since."""
    if model.members is None:
        raise InputError(
            f"Nothing to evaluate: model {model.id} has no ranking, because its log was too short to learn one from. "
            "Rebuild with a longer log (`vitrine rebuild`), or name another model with --model."
        )
    prepared = prepare(sources, snapshot, config, model.manifest)
    recall = model.manifest["recall"]
    asked = config.model_copy(update={"candidates": recall["candidates"]})
    test = held_back_lists(prepared, model.space, recall["weights"], asked, snapshot, encoder, say)
    if not test:
        raise InputError("Nothing to evaluate on: the log holds no request with something wanted after the last cut.")
    return _report(model.members, prepared.examination.weighed(test), model.space, config, prepared.examination)


def _report(
    members: Members, test: Sequence[Example], space: ProductSpace, config: RankerConfig, examination: Examination
) -> dict[str, Any]:
    figures = evaluate.report(members, test, space.vectors, config.positive_grade)
    return figures | {"examination": examination.shares.tolist()}


def held_back_lists(
    prepared: Prepared,
    space: ProductSpace,
    weights: Mapping[str, Mapping[str, float]],
    config: RankerConfig,
    snapshot: IndexSnapshot,
    encoder: Encoder,
    say: Say,
) -> list[Example]:
    """The lists of the test slice alone, recalled with the given weights."""
    tests = [item for item in prepared.requests if item[1] is Slice.TEST]
    stages = make_stages(prepared, snapshot, space, config, weights)
    with one_thread():
        return slice_examples(prepared._replace(requests=tests), stages, space, snapshot, encoder, say)[Slice.TEST]


def prepare(
    sources: Sources,
    snapshot: IndexSnapshot,
    config: RankerConfig,
    trained: Mapping[str, Any] | None = None,
) -> Prepared:
    """Requests and engagements of the sources. Where the slices begin, and how often places are looked at, is as in the
    manifest of a `trained` model; else it is taken from the requests."""
    row_of = snapshot.row_of
    tuned = snapshot.manifest["encoder"].get("tuned", {})
    events = sources.events if sources.events is not None else pl.DataFrame(schema=EVENTS)
    found = log.engagements(events, row_of, config.positive_rating)
    requests = log.requests(events, found, row_of, config)
    times = np.array([request.time for request in requests])
    where = time_cuts(times, config.time_cuts) if trained is None else list(trained["cuts"])
    if where and where[0] < tuned.get("events_before", -np.inf):
        raise InputError(
            "The encoder was tuned on events after the first of ranker.time_cuts: figures would be too good. "
            "Tune it again: `vitrine train encoder`."
        )
    parts = [(request, slice_of_time(request.time, where)) for request in requests]
    if sources.judgments is not None:
        end = float(found["time"].max() or 0.0) if len(found) else time.time()  # type: ignore[arg-type]
        judged = log.judged_requests(sources.judgments, row_of, end)
        share = tuned.get("queries_below", 0.0)
        parts += [(request, slice_of_query(request.query, split, share)) for request, split in judged]
    kept = _thinned(parts, config.most_requests)
    if trained is None:
        examination = fit_examination([request for request, part in kept if part is Slice.MEMBERS])
    else:
        examination = stored_examination(trained)
    return Prepared(kept, found, where, examination, shown_of(events, row_of, examination.shares))


def _fit_ranking(made: Material, config: RankerConfig, say: Say) -> Ranking | None:
    """What ranks, measured; None where the log is too short for it."""
    if lacking := shortfall(made.slices):
        say(lacking)
        return None
    members = fit_members(made.slices, made.space.vectors, config, choose(config.device), say)
    say("evaluate on the test slice")
    test = made.slices[Slice.TEST]
    return Ranking(members, _report(members, test, made.space, config, made.prepared.examination))


def _learnt(fitted: Sequence[Example]) -> list[str]:
    """The kinds of request the members were fitted on: by `query`, by `user`."""
    counts = Counter(kind_of(example.context) for example in fitted)
    return [kind for kind in ("query", "user") if counts[kind] >= _FEWEST]


def _answered(fitted: Sequence[Example]) -> list[str]:
    """The kinds of request whose lists were all judged or rated: no product that nobody was asked about was in them."""
    kinds = {kind_of(example.context) for example in fitted}
    return sorted(kinds - {kind_of(example.context) for example in fitted if not example.answered})


def _shown(fitted: Sequence[Example]) -> list[str]:
    """The other kinds of request whose lists were all of the log: what was recalled and not shown was in none."""
    recalled = {kind_of(example.context) for example in fitted if len(example.recall_scores)}
    return sorted({kind_of(example.context) for example in fitted} - recalled - set(_answered(fitted)))


def _check_known(sources: Sources, row_of: Mapping[str, int]) -> None:
    """A log of other products than the catalogue's is a mistake, not a short log."""
    named = [table["product_id"] for table in sources if table is not None]
    total = sum(map(len, named))
    if total >= _FEWEST and not any(product in row_of for products in named for product in products):
        raise InputError(
            f"Cannot train: of {total:,} events and judgments none names a product of the catalogue. Set "
            "ranker.events, ranker.judgments and indexer.catalogue to tables of one shop, with the same product ids."
        )


def _thinned(parts: list[tuple[Request, Slice]], most: int) -> list[tuple[Request, Slice]]:
    """At most `most` requests of each slice, spread evenly; time order stays."""
    kept: list[int] = []
    for part in Slice:
        mine = [i for i, (_, p) in enumerate(parts) if p is part]
        kept += mine if len(mine) <= most else [mine[i] for i in np.linspace(0, len(mine) - 1, most).astype(int)]
    return [parts[i] for i in sorted(kept)]


def _fit_space(
    prepared: Prepared,
    snapshot: IndexSnapshot,
    config: RankerConfig,
    indexing: IndexerConfig,
    device: torch.device,
    say: Say,
) -> ProductSpace:
    before = prepared.engagements.filter(pl.col("time") < prepared.cuts[0]) if prepared.cuts else prepared.engagements
    fitted = fit_tower(before, snapshot.vectors, config, device, say)
    if fitted is not None:
        tower, vectors = fitted
        return make_space(CompiledTower.of(tower), tower.project.weight.detach().numpy(), vectors, indexing)
    say("user tower: the log is too short, the product space is the titles' principal axes")
    projection = principal_projection(snapshot.vectors, config.space)
    return make_space(None, projection, all_in_space(projection, snapshot.vectors), indexing)
