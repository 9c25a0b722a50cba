"""Replay the log in time order and note, at each request, the rows a ranker would have seen at that moment."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from indexer.arrays import Array, Doubles, Floats, Ints
from indexer.index import Index
from indexer.text import normalise
from ranker import features, recall
from ranker.behaviour import Behaviour
from ranker.features import Catalogue, Context
from ranker.history import Engagement
from ranker.log import Request, graded
from ranker.space import ProductSpace


class Slice(IntEnum):
    """What a request is used for. Slices follow each other in time, or hold different queries; never parts of one."""

    TOWER = 0  # fit the user tower
    MEMBERS = 1  # fit the network and the trees
    CALIBRATE = 2  # stop their training, calibrate, fit alpha
    VALIDATE = 3  # choose the fusion and the thresholds
    TEST = 4  # report, nothing else


# Where each slice after the first begins, as a share of the requests. Queries have no tower to fit.
TIME_CUTS = (0.5, 0.8, 0.85, 0.9)
QUERY_CUTS = (0.0, 0.7, 0.8, 0.9)


class Example(NamedTuple):
    """One ranked list with its answers. `recall_scores` and `missed` are empty where the list was logged or judged."""

    context: Context
    rows: Ints
    features: Floats
    grades: Doubles
    missed: Doubles
    recall_scores: Doubles


def time_cuts(times: Array) -> list[float]:
    """The times at which the slices after the first begin."""
    return [float(t) for t in np.quantile(times, TIME_CUTS)] if len(times) else []


def slice_of_time(time: float, cuts: Sequence[float]) -> Slice:
    """The slice of a request at `time`."""
    return Slice(int(np.searchsorted(cuts, time, side="right")))


def slice_of_query(query: str, split: str | None) -> Slice:
    """The slice of a judged query, by a hash of its text; a data set's own test split stays the test."""
    if split == "test":
        return Slice.TEST
    share = zlib.crc32(normalise(query).casefold().encode()) % 10_000 / 10_000
    return Slice(int(np.searchsorted(QUERY_CUTS, share, side="right")))


def replay(
    requests: Iterable[tuple[Request, Slice]],
    events: Iterator[Engagement],
    behaviour: Behaviour,
    catalogue: Catalogue,
    space: ProductSpace,
    titles: Index,
    embed: Callable[[str], Floats],
    candidates: int,
) -> Iterator[tuple[Slice, Example]]:
    """An example for each request, which must come in time order, as `events` do.

    At a request, `behaviour` holds the events strictly before it, and no later one. Requests of the slice MEMBERS keep
    the positions they were logged with; all others are seen as serving sees them.
    """
    pending = next(events, None)
    for request, part in requests:
        while pending is not None and pending.time < request.time:
            behaviour.apply(pending)
            pending = next(events, None)
        example = _example(request, part, behaviour, catalogue, space, titles, embed, candidates)
        if example is not None:
            yield part, example
    if pending is not None:
        behaviour.apply(pending)
    behaviour.apply_all(events)


def _example(
    request: Request,
    part: Slice,
    behaviour: Behaviour,
    catalogue: Catalogue,
    space: ProductSpace,
    titles: Index,
    embed: Callable[[str], Floats],
    candidates: int,
) -> Example | None:
    query = normalise(request.query)
    history = behaviour.history(request.user)
    context = space.context(request.time, history, query, embed(query) if query else None)
    scores = np.empty(0)
    rows = request.rows
    if rows is None:
        found = _recalled(context, behaviour, space, titles, candidates)
        rows, scores = found.rows, found.scores
    grades, missed = graded(request, rows)
    if not len(rows):
        return None
    positions = request.positions if part is Slice.MEMBERS else None
    matrix = features.matrix(context, rows, catalogue, behaviour, positions)
    return Example(context, rows, matrix, grades, missed, scores)


def _recalled(
    context: Context, behaviour: Behaviour, space: ProductSpace, titles: Index, candidates: int
) -> recall.Candidates:
    if context.query_vector is not None:
        return recall.fuse([recall.for_vector(titles, context.query_vector, candidates, None)], candidates)
    return recall.for_user(space.index, behaviour, context.history, context.user_vector, context.now, candidates, None)
