"""The training: log and judgments -> examples -> members -> fusion -> report -> a published model."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from indexer.arrays import Array, Doubles, Floats
from indexer.canonical import EVENTS
from indexer.config import IndexerConfig
from indexer.device import choose, one_thread
from indexer.encoder import Encoder
from indexer.errors import InputError
from indexer.snapshot import IndexSnapshot
from indexer.store import Store, write_json
from ranker import evaluate, features, log, trees
from ranker.behaviour import Behaviour
from ranker.config import RankerConfig
from ranker.examples import Example, Slice, replay, slice_of_query, slice_of_time, time_cuts
from ranker.features import Catalogue
from ranker.fusion import Fusion, best_threshold, fit_alpha, fit_platt
from ranker.log import Request
from ranker.model import REPORT, Members, Model, stacked_features
from ranker.products import product_table
from ranker.space import ProductSpace, make_space
from ranker.train_network import fit_network, logits
from ranker.train_tower import fit_tower
from ranker.user_tower import principal_projection

# Requests with a gain that a slice needs, below which its figures would be noise.
_FEWEST = 20
_FOLDS = 2

Say = Callable[[str], None]


class Sources(NamedTuple):
    """What is learnt from: canonical events (with the journal's) and judgments, either of which may be None."""

    events: pl.DataFrame | None
    judgments: pl.DataFrame | None


class Prepared(NamedTuple):
    """Requests by slice in time order, the engagements to replay, and where the slices begin."""

    requests: list[tuple[Request, Slice]]
    engagements: pl.DataFrame
    cuts: list[float]


def train(
    store: Store,
    config: RankerConfig,
    indexing: IndexerConfig,
    snapshot: IndexSnapshot,
    encoder: Encoder,
    sources: Sources,
    say: Say,
) -> str:
    """Fit and publish a model for `snapshot`; returns its id. Raises `InputError` where the log is too short."""
    started = time.perf_counter()
    device = choose(config.device)
    prepared = prepare(sources, snapshot, config)
    space = _fit_space(prepared, snapshot, config, indexing, device, say)
    catalogue = Catalogue(product_table(snapshot), space.vectors)
    with one_thread():
        slices = slice_examples(prepared, catalogue, space, snapshot, encoder, config, say)
    _check_lengths(slices)
    members = _fit_members(slices, space.vectors, config, device, say)
    say("evaluate on the test slice")
    figures = evaluate.report(members, slices[Slice.TEST], space.vectors, config.positive_grade)

    def fill(folder: Path) -> Mapping[str, Any]:
        members.save(folder)
        (folder / REPORT).mkdir()
        write_json(folder / REPORT / "report.json", figures)
        return {
            "index": snapshot.id,
            "encoder": snapshot.encoder_fingerprint,
            "schema": features.fingerprint(),
            "space": space.save(folder),
            "fusion": members.fusion.kind,
            "learnt": _learnt(slices[Slice.MEMBERS]),
            "cuts": prepared.cuts,
            "requests": {part.name.lower(): len(slices[part]) for part in Slice},
            "positive_grade": config.positive_grade,
            "seconds": round(time.perf_counter() - started, 2),
        }

    return store.publish("models", fill)


def evaluate_again(
    model: Model, config: RankerConfig, snapshot: IndexSnapshot, encoder: Encoder, sources: Sources, say: Say
) -> dict[str, Any]:
    """The report of a trained model on what was kept from its training, and on whatever was logged since."""
    prepared = prepare(sources, snapshot, config, model.manifest["cuts"])
    tests = [item for item in prepared.requests if item[1] is Slice.TEST]
    with one_thread():
        slices = slice_examples(
            prepared._replace(requests=tests), model.catalogue, model.space, snapshot, encoder, config, say
        )
    if not slices[Slice.TEST]:
        raise InputError("Nothing to evaluate on: the log holds no request with something wanted after the last cut.")
    return evaluate.report(model.members, slices[Slice.TEST], model.space.vectors, config.positive_grade)


def prepare(
    sources: Sources, snapshot: IndexSnapshot, config: RankerConfig, cuts: Sequence[float] | None = None
) -> Prepared:
    """Requests and engagements of the sources; `cuts` are a trained model's, else they are taken from the requests."""
    row_of = snapshot.row_of
    events = sources.events if sources.events is not None else pl.DataFrame(schema=EVENTS)
    found = log.engagements(events, row_of, config.positive_rating)
    requests = [*log.shown_requests(events, found, row_of), *log.basket_requests(events, found)]
    requests.sort(key=lambda request: request.time)
    where = time_cuts(np.array([request.time for request in requests])) if cuts is None else list(cuts)
    parts = [(request, slice_of_time(request.time, where)) for request in requests]
    if sources.judgments is not None:
        end = float(found["time"].max() or 0.0) if len(found) else time.time()  # type: ignore[arg-type]
        judged = log.judged_requests(sources.judgments, row_of, end)
        parts += [(request, slice_of_query(request.query, split)) for request, split in judged]
    return Prepared(_thinned(parts, config.most_requests), found, where)


def slice_examples(
    prepared: Prepared,
    catalogue: Catalogue,
    space: ProductSpace,
    snapshot: IndexSnapshot,
    encoder: Encoder,
    config: RankerConfig,
    say: Say,
) -> dict[Slice, list[Example]]:
    """Replay the log; returns the examples that have something wanted, by slice."""
    slices: dict[Slice, list[Example]] = {part: [] for part in Slice}
    requests = [(request, part) for request, part in prepared.requests if part is not Slice.TOWER]
    embed = _one_by_one(encoder)
    events = log.folding(prepared.engagements)
    behaviour = Behaviour(len(snapshot))
    made = replay(requests, events, behaviour, catalogue, space, snapshot.index, embed, config.candidates)
    for part, example in _told(made, len(requests), say):
        # A list without anything wanted teaches a ranker nothing, but its miss counts in the report.
        if (example.grades > 0).any() or (part is Slice.TEST and len(example.missed)):
            slices[part].append(example)
    return slices


def _learnt(fitted: Sequence[Example]) -> list[str]:
    """The kinds of request the members were fitted on: by `query`, by `user`."""
    queries = sum(bool(example.context.query) for example in fitted)
    counts = {"query": queries, "user": len(fitted) - queries}
    return [kind for kind, count in counts.items() if count >= _FEWEST]


def _check_lengths(slices: Mapping[Slice, list[Example]]) -> None:
    for part in (Slice.MEMBERS, Slice.CALIBRATE, Slice.VALIDATE, Slice.TEST):
        if len(slices[part]) < _FEWEST:
            raise InputError(
                f"Cannot train: the slice {part.name.lower()} has {len(slices[part])} requests with something wanted, "
                f"{_FEWEST} are needed. Set ranker.events or ranker.judgments to a longer log, or wait for more events."
            )


def _told(made: Iterator[tuple[Slice, Example]], total: int, say: Say) -> Iterator[tuple[Slice, Example]]:
    step = max(total // 5, 1)
    for i, item in enumerate(made, 1):
        if i % step == 0:
            say(f"examples: {i:,} of {total:,} requests replayed")
        yield item


def _one_by_one(encoder: Encoder) -> Callable[[str], Floats]:
    """Embeds a query alone, as a lone request does: a batch's padding changes the last bits of a compiled model."""
    known: dict[str, Floats] = {}

    def embed(query: str) -> Floats:
        if query not in known:
            known[query] = encoder.encode([query])[0]
        return known[query]

    return embed


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
        return make_space(tower, tower.project.weight.detach().numpy(), vectors, indexing)
    say("user tower: the log is too short, the product space is the titles' principal axes")
    projection = principal_projection(snapshot.vectors, config.space)
    projected = np.asarray(snapshot.vectors @ projection.T)
    norms = np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12)
    return make_space(None, projection, np.asarray(projected / norms, np.float32), indexing)


def _fit_members(
    slices: Mapping[Slice, list[Example]], space: Floats, config: RankerConfig, device: torch.device, say: Say
) -> Members:
    fit, later = slices[Slice.MEMBERS], slices[Slice.CALIBRATE]
    network = fit_network(fit, later, space, config, device, say)
    say("trees")
    plain = trees.fit_trees(_rows(fit), _rows(later), features.NAMES, config)
    say("stacking: the DNN's out-of-fold logits, then trees that read them")
    outside = _out_of_fold(fit, later, space, config, device)
    later_logits = logits(network, later, space, torch.device("cpu"))
    stacked = trees.fit_trees(
        _rows(fit, outside), _rows(later, later_logits), [*features.NAMES, "network_logit"], config
    )
    unfused = Members(network, plain, stacked, Fusion("weighted", 0.5, {}, {}))
    return Members(network, plain, stacked, _fit_fusion(unfused, slices, space, config, say))


def _rows(examples: Sequence[Example], extra: Sequence[Doubles] | None = None) -> tuple[Floats, Array, list[int]]:
    """Features, grades and list lengths of all examples, with one more column where `extra` is given."""
    matrix = np.concatenate([example.features for example in examples])
    if extra is not None:
        matrix = stacked_features(matrix, np.concatenate(extra))
    return matrix, np.concatenate([example.grades for example in examples]), [len(example.rows) for example in examples]


def _out_of_fold(
    fit: Sequence[Example], later: Sequence[Example], space: Floats, config: RankerConfig, device: torch.device
) -> list[Doubles]:
    """Logits of each list by a network that was not fitted on it; a fold is a block of whole requests."""
    out: list[Doubles] = []
    for block in np.array_split(np.arange(len(fit)), _FOLDS):
        rest = [example for i, example in enumerate(fit) if i < block[0] or i > block[-1]]
        network = fit_network(rest, later, space, config, device, lambda _: None)
        held_out = [e._replace(features=features.unplaced(e.features)) for e in fit[block[0] : block[-1] + 1]]
        out += logits(network, held_out, space, torch.device("cpu"))
    return out


def _fit_fusion(
    members: Members, slices: Mapping[Slice, list[Example]], space: Floats, config: RankerConfig, say: Say
) -> Fusion:
    """Calibrate and weigh on CALIBRATE, choose by NDCG@10 on VALIDATE."""
    calibrate, validate = slices[Slice.CALIBRATE], slices[Slice.VALIDATE]
    network = np.concatenate(logits(members.network, calibrate, space, torch.device("cpu")))
    matrix, grades, _ = _rows(calibrate)
    positive = grades >= config.positive_grade
    plain = trees.score(members.trees, matrix)
    calibration = {
        "network": fit_platt(network, positive),
        "trees": fit_platt(plain, positive),
        "stacking": fit_platt(trees.score(members.stacked, stacked_features(matrix, network)), positive),
    }
    alpha = fit_alpha(calibration["network"](network), calibration["trees"](plain), positive)
    fusion = Fusion("weighted", alpha, calibration, {})
    scores = evaluate.scores_of(Members(members.network, members.trees, members.stacked, fusion), validate, space)
    quality = {
        kind: float(np.nanmean(evaluate.per_request_ndcg(scores[kind], validate))) for kind in ("weighted", "stacking")
    }
    chosen = max(quality, key=lambda kind: quality[kind])
    told = ", ".join(f"{kind} {value:.4f}" for kind, value in quality.items())
    say(f"fusion: {chosen} (validation NDCG@10: {told}; alpha {alpha:.3f})")
    wanted = np.concatenate([example.grades for example in validate]) >= config.positive_grade
    thresholds = {
        name: best_threshold(fusion.probabilities(name, np.concatenate(scores[name])), wanted)
        for name in evaluate.SCORERS
    }
    return Fusion(chosen, alpha, calibration, thresholds)
