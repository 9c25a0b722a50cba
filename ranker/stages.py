"""From the log to lists: what a request reads by its time, the weights of the recall channels, and the replay."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from indexer.arrays import Floats
from indexer.encoder import Encoder
from indexer.query_table import QueryEncoder
from indexer.snapshot import IndexSnapshot
from ranker import log
from ranker.behaviour import Behaviour
from ranker.config import RankerConfig
from ranker.covisited import fit_covisited
from ranker.ease import fit_ease
from ranker.examination import ALIKE, Examination
from ranker.examples import Example, Slice, Stage, moments, replay
from ranker.exposure import NOTHING, Exposure, Shown
from ranker.features import Catalogue
from ranker.log import Request
from ranker.products import product_table
from ranker.recall import Retrieval, Weights, kind_of
from ranker.recall_weights import Sample, fit_weights, mean_recall
from ranker.space import ProductSpace

# Times at which the neighbours are counted anew within the members' slice.
_RENEWALS = 5
# Requests that the weights of the recall channels are fitted on, and the fewest of a kind.
_RECALL_REQUESTS, _FEWEST = 1_000, 20

Say = Callable[[str], None]


class Prepared(NamedTuple):
    """Requests by slice in time order, the engagements to replay, where the slices begin, how often places are looked
    at, and what was shown at them."""

    requests: list[tuple[Request, Slice]]
    engagements: pl.DataFrame
    cuts: list[float]
    examination: Examination = ALIKE
    shown: Shown = NOTHING

    def told(self) -> dict[str, Any]:
        """What the manifest of a model says of it, for its log to be prepared alike."""
        return {"cuts": self.cuts, "examination": self.examination.shares.tolist()}

    def behaviour(self, products: int) -> Behaviour:
        """Of a time before the log; what was shown is folded in as a replay goes on."""
        return Behaviour(products, Exposure(products, self.examination.shares, self.shown))


def make_stages(
    prepared: Prepared,
    snapshot: IndexSnapshot,
    space: ProductSpace,
    config: RankerConfig,
    weights: Mapping[str, Weights],
) -> list[Stage]:
    """What a request reads, by its time: the neighbours are counted anew at each cut, as a nightly rebuild would."""
    table = product_table(snapshot)
    stages = []
    for since in _renewals(prepared.cuts) or [-np.inf]:
        before = prepared.engagements.filter(pl.col("time") < since)
        covisited, ease = fit_covisited(before, len(snapshot)), fit_ease(before, len(snapshot))
        retrieval = Retrieval(
            snapshot.index, snapshot.lexical, space.index, covisited, config.candidates, dict(weights)
        )
        stages.append(Stage(since, Catalogue(table, snapshot.lexical, space.vectors, covisited, ease), retrieval))
    return stages


def with_weights(stages: Sequence[Stage], weights: Mapping[str, Weights]) -> list[Stage]:
    """The stages with the recall channels weighed."""
    return [stage._replace(retrieval=stage.retrieval._replace(weights=weights)) for stage in stages]


def slice_examples(
    prepared: Prepared,
    stages: Sequence[Stage],
    space: ProductSpace,
    snapshot: IndexSnapshot,
    encoder: Encoder,
    say: Say,
) -> dict[Slice, list[Example]]:
    """Replay the log; returns the examples that have something wanted, by slice."""
    slices: dict[Slice, list[Example]] = {part: [] for part in Slice}
    requests = [(request, part) for request, part in prepared.requests if part is not Slice.TOWER]
    events = log.folding(prepared.engagements)
    made = replay(requests, events, prepared.behaviour(len(snapshot)), stages, space, _one_by_one(encoder, snapshot))
    for part, example in _told(made, len(requests), say):
        # A list without anything wanted teaches a ranker nothing, but its miss counts in the report.
        if (example.grades > 0).any() or (part is Slice.TEST and len(example.missed)):
            slices[part].append(example)
    return slices


def _renewals(cuts: Sequence[float]) -> list[float]:
    """The cuts, and in the long slice of the members a few times between."""
    if not cuts:
        return []
    return sorted({*np.linspace(cuts[0], cuts[1], _RENEWALS, endpoint=False).tolist(), *cuts[1:]})


def fit_recall(
    prepared: Prepared,
    stages: Sequence[Stage],
    space: ProductSpace,
    snapshot: IndexSnapshot,
    encoder: Encoder,
    config: RankerConfig,
    say: Say,
) -> dict[str, dict[str, float]]:
    """The weights of the recall channels, by kind of request, on requests of the members' slice."""
    fit = [item for item in prepared.requests if item[1] is Slice.MEMBERS]
    fit = [fit[i] for i in np.unique(np.linspace(0, max(len(fit) - 1, 0), _RECALL_REQUESTS).astype(int)) if fit]
    samples: dict[str, list[Sample]] = {"query": [], "user": []}
    behaviour = prepared.behaviour(len(snapshot))
    events = log.folding(prepared.engagements)
    for request, _, context, stage in moments(fit, events, behaviour, stages, space, _one_by_one(encoder, snapshot)):
        # Of a logged list everything was recalled once; what to recall can be learnt only where the log does not say.
        if request.rows is None or request.positions is None:
            wanted = np.array([row for row, grade in request.wanted.items() if grade >= config.positive_grade])
            samples[kind_of(context)].append(Sample(stage.retrieval.channels(context, behaviour), wanted))
    weights = {kind: fit_weights(each, kind=kind) for kind, each in samples.items() if len(each) >= _FEWEST}
    for kind, fitted in weights.items():
        equal = mean_recall(samples[kind], dict.fromkeys(fitted, 1.0), kind=kind)
        best = mean_recall(samples[kind], fitted, kind=kind)
        told = ", ".join(f"{name} {weight:g}" for name, weight in fitted.items())
        say(f"recall by {kind}: recall@100 {best:.4f}, {equal:.4f} unweighed ({told})")
    return weights


def _told(made: Iterator[tuple[Slice, Example]], total: int, say: Say) -> Iterator[tuple[Slice, Example]]:
    step = max(total // 5, 1)
    for i, item in enumerate(made, 1):
        if i % step == 0:
            say(f"examples: {i:,} of {total:,} requests replayed")
        yield item


def _one_by_one(encoder: Encoder, snapshot: IndexSnapshot) -> Callable[[str], Floats]:
    """Embeds a mended query alone, as a lone request does: a batch's padding changes a compiled model's last bits."""
    known: dict[str, Floats] = {}
    queries = QueryEncoder(encoder, snapshot.query_table)

    def embed(query: str) -> Floats:
        if query not in known:
            known[query] = queries.encode([snapshot.lexical.mended(query)])[0]
        return known[query]

    return embed
