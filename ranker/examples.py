"""Replay the log in time order and note, at each request, the rows a ranker would have seen at that moment."""

import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from indexer.arrays import Array, Doubles, Floats, Ints, Mask
from indexer.text import normalise, query_key
from ranker import features
from ranker.behaviour import Behaviour
from ranker.features import Catalogue, Context
from ranker.history import Engagement
from ranker.log import Request, graded
from ranker.recall import Retrieval
from ranker.space import ProductSpace

# Rows of a recalled list that the members are fitted on, beside those wanted. Evenly spread: were more of the first
# places kept than of the last, what stands far back would seem wanted more often than it is.
_FIT_ROWS = 100


class Slice(IntEnum):
    """What a request is used for. Slices follow each other in time, or hold different queries; never parts of one."""

    TOWER = 0  # fit the encoder and the user tower
    MEMBERS = 1  # fit the network and the trees, and alpha on their out-of-fold scores
    CALIBRATE = 2  # stop their training, calibrate, fit alpha; then fit the members again with it
    VALIDATE = 3  # choose the fusion and the thresholds; then fit the members again with it
    TEST = 4  # report, nothing else


# Where the last three slices of the judged queries begin, as a share of the queries.
_QUERY_CUTS = (0.8, 0.85, 0.9)


class Example(NamedTuple):
    """One ranked list with its answers. `recall_scores` and `missed` are empty where the list was logged or judged.

    `features` are as serving sees them, with every row at the first place; `positions` are the places that the rows
    were shown at, where they were logged, and `weights` what their gains count for it (see `examination`), 1 where
    there are none. `answered`: every row was judged or rated, so that a grade of 0 means no, not that nobody was asked.
    `user` is who asked: nothing is learned from it, but lists of one user are no independent evidence.
    """

    context: Context
    rows: Ints
    features: Floats
    grades: Doubles
    missed: Doubles
    recall_scores: Doubles
    answered: bool = False
    positions: Ints | None = None
    weights: Doubles | None = None
    user: str | None = None


class Stage(NamedTuple):
    """What features and recall read from `since` (Unix seconds) on: what counts neighbours is renewed now and then."""

    since: float
    catalogue: Catalogue
    retrieval: Retrieval


def time_cuts(times: Array, shares: Sequence[float]) -> list[float]:
    """The times at which the slices after the first begin."""
    return [float(t) for t in np.quantile(times, shares)] if len(times) else []


def slice_of_time(time: float, cuts: Sequence[float]) -> Slice:
    """The slice of a request at `time`."""
    return Slice(int(np.searchsorted(cuts, time, side="right")))


def slice_of_query(query: str, split: str | None, tower_share: float) -> Slice:
    """The slice of a judged query, by a hash of its text; a data set's own test split stays the test."""
    if split == "test":
        return Slice.TEST
    share = zlib.crc32(query_key(query).encode()) % 10_000 / 10_000
    return Slice(bisect_right((tower_share, *_QUERY_CUTS), share))


def replay(
    requests: Iterable[tuple[Request, Slice]],
    events: Iterator[Engagement],
    behaviour: Behaviour,
    stages: Sequence[Stage],
    space: ProductSpace,
    embed: Callable[[str], Floats],
) -> Iterator[tuple[Slice, Example]]:
    """An example for each request, which must come in time order, as `events` and `stages` do.

    At a request, `behaviour` holds the events strictly before it, and no later one. Recalled lists of the slice MEMBERS
    come thinned.
    """
    for request, part, context, stage in moments(requests, events, behaviour, stages, space, embed):
        example = _example(request, part, context, stage, behaviour)
        if example is not None:
            yield part, example


def moments(
    requests: Iterable[tuple[Request, Slice]],
    events: Iterator[Engagement],
    behaviour: Behaviour,
    stages: Sequence[Stage],
    space: ProductSpace,
    embed: Callable[[str], Floats],
) -> Iterator[tuple[Request, Slice, Context, Stage]]:
    """Each request with its context and stage; while the caller holds one, `behaviour` is as of that request."""
    begins = [stage.since for stage in stages]
    pending = next(events, None)
    for request, part in requests:
        while pending is not None and pending.time < request.time:
            behaviour.apply(pending)
            pending = next(events, None)
        behaviour.exposure.advance(request.time)
        yield (
            request,
            part,
            space.context(
                request.time,
                behaviour.history(request.user),
                normalise(request.query),
                embed(normalise(request.query)) if request.query else None,
                behaviour.disliked(request.user),
            ),
            stages[max(bisect_right(begins, request.time) - 1, 0)],
        )
    if pending is not None:
        behaviour.apply(pending)
    behaviour.apply_all(events)
    behaviour.exposure.advance(np.inf)


def thinned(example: Example) -> Example:
    """The rows of a recalled list that the members are fitted on; other lists stay whole."""
    if not len(example.recall_scores):
        return example
    kept = _kept(example.grades > 0)
    return example._replace(
        rows=example.rows[kept],
        features=example.features[kept],
        grades=example.grades[kept],
        recall_scores=example.recall_scores[kept],
    )


def as_shown(example: Example) -> Example:
    """The list with its rows at the places they were shown at, where those were logged."""
    if example.positions is None:
        return example
    return example._replace(features=features.placed(example.features, example.positions))


def _example(request: Request, part: Slice, context: Context, stage: Stage, behaviour: Behaviour) -> Example | None:
    rows, scores = request.rows, np.empty(0)
    if rows is None:
        found = stage.retrieval.recall(context, behaviour)
        rows, scores = found.rows, found.scores
    if not len(rows):
        return None
    grades, missed = graded(request, rows)
    if request.rows is None and part is Slice.MEMBERS:
        # Before the features are made: most of the lists are of this slice.
        kept = _kept(grades > 0)
        rows, scores, grades = rows[kept], scores[kept], grades[kept]
    matrix = features.matrix(context, rows, stage.catalogue, behaviour)
    answered = request.rows is not None and request.positions is None
    return Example(context, rows, matrix, grades, missed, scores, answered, request.positions, user=request.user)


def _kept(wanted: Mask) -> Ints:
    """The places of a recalled list that the members are fitted on, by which of its rows were wanted."""
    others = np.linspace(0, len(wanted) - 1, min(_FIT_ROWS, len(wanted))).astype(np.int64)
    return np.union1d(others, np.flatnonzero(wanted))
