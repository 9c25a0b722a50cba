"""Tuning: an index asked held-out queries at rising efforts, without and with filters, until it finds enough."""

from collections.abc import Callable
from functools import partial
from statistics import median
from time import thread_time_ns
from typing import Any

import numpy as np

from indexer.arrays import Floats, Ints, Mask
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex
from indexer.exact import ExactIndex
from indexer.index import NOTHING, Index, Neighbours
from indexer.planner import NEIGHBOURS, Filtered, Point, Tuning
from indexer.threads import one_thread

# Vectors held out of the index while it is tuned, at most, and how many of them are asked under a filter.
_HELD_OUT = 1_000
_FILTERED = 100
# Queries scored exactly at a time: 64 need 16 MiB.
_BATCH = 64
# An exact search of a filter's rows always takes the same time: a few tell it.
_EXACT_TIMES = 7
# Efforts tried after the first that reaches the target, for whoever wants more.
_MORE = 2
# Shares of random filters, rising, and efforts as multiples of the chosen one. Of 100,000 rows a graph finds 0.98 at
# four times the effort where a fifth is kept, at eight times where a tenth is, and at none where a twentieth is.
_SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_WIDER = (1, 2, 4, 8)


def filled(
    kind: str, vectors: Floats, config: IndexerConfig, ask: Callable[[int], Floats] | None = None
) -> tuple[Index, dict[str, Any]]:
    """The index over all `vectors` in no order, and the manifest's entry: its recall and the tuning it searches by.

    The last rows are held out and added after it was tuned. `ask` makes that many queries, given their number; without
    it these rows are the queries themselves.
    """
    entry = {"kind": kind, "recall_at_100": 1.0, "held_out": held_out(len(vectors))}
    if kind == "exact":
        return ExactIndex(vectors), entry
    # `np.memmap` takes microseconds to index, which would be measured.
    vectors = np.asarray(vectors)
    first = len(vectors) - held_out(len(vectors))
    held = vectors[:first]
    index = DenseIndex.build(kind, held, config).extended(held)
    if first < len(vectors):
        queries = vectors[first:] if ask is None else ask(len(vectors) - first)
        tuning = tuned(index, ExactIndex(held), queries, config)
        index = index.with_tuning(tuning)
        [recall] = [point.recall for point in tuning.points if point.effort == tuning.effort]
        entry |= {"recall_at_100": recall, "tuning": tuning.told()}
    return index.extended(vectors), entry


def held_out(rows: int) -> int:
    """How many of `rows` are held out."""
    return min(_HELD_OUT, rows // 10)


def tuned(index: DenseIndex, oracle: ExactIndex, queries: Floats, config: IndexerConfig) -> Tuning:
    """The least effort that reaches `indexer.recall_target`, or the one that finds most, and what filters cost."""
    with one_thread():
        return _tuned(index, oracle, queries, config)


def _tuned(index: DenseIndex, oracle: ExactIndex, queries: Floats, config: IndexerConfig) -> Tuning:
    points = _points(index, oracle, queries, config)
    reached = [point for point in points if point.recall >= config.recall_target]
    chosen = reached[0] if reached else max(points, key=lambda point: point.recall)
    filtered = [_filtered(index, oracle, queries[:_FILTERED], chosen.effort, share) for share in _SHARES]
    return Tuning(config.recall_target, chosen.effort, points, filtered)


def _points(index: DenseIndex, oracle: ExactIndex, queries: Floats, config: IndexerConfig) -> list[Point]:
    k = min(NEIGHBOURS, len(index))
    worst = _worst(oracle, queries, k)
    points: list[Point] = []
    for effort in index.efforts(k):
        points.append(_point(index, oracle, queries, worst, effort, None))
        if sum(point.recall >= config.recall_target for point in points) > _MORE:
            break
    return points


def _filtered(index: DenseIndex, oracle: ExactIndex, queries: Floats, effort: int, share: float) -> Filtered:
    mask = np.zeros(len(index), bool)
    mask[np.random.default_rng(0).permutation(len(index))[: max(round(share * len(index)), 1)]] = True
    worst = _worst(oracle, queries, min(NEIGHBOURS, int(mask.sum())), mask)
    efforts = [effort * times for times in _WIDER] if effort else [0]
    points = [_point(index, oracle, queries, worst, each, mask) for each in efforts]
    # Another filter each time: rows that were just read are read again sooner than a shop's next request finds them.
    exact = [
        _timed(partial(oracle.search, query, NEIGHBOURS, np.roll(mask, 7_919 * time)))[0]
        for time, query in enumerate(queries[:_EXACT_TIMES, None])
    ]
    return Filtered(share, round(median(exact), 5), points)


def _point(
    index: DenseIndex, oracle: ExactIndex, queries: Floats, worst: Floats, effort: int, mask: Mask | None
) -> Point:
    """Each query is asked alone, as a server asks; `worst` [queries] is the score of its last true neighbour."""
    k = NEIGHBOURS if mask is None else min(NEIGHBOURS, int(mask.sum()))
    ask = partial(index.search_with, effort, k=min(k, len(index)), mask=mask)
    answers = [_timed(partial(ask, query)) for query in queries[:, None]]
    found = np.concatenate([neighbours.rows for _, neighbours in answers])
    return Point(effort, round(_share(found, oracle, queries, worst), 5), round(median(ms for ms, _ in answers), 5))


def _worst(oracle: ExactIndex, queries: Floats, k: int, mask: Mask | None = None) -> Floats:
    """The score of the k-th best row of each query."""
    batches = [queries[start : start + _BATCH] for start in range(0, len(queries), _BATCH)]
    return np.concatenate([oracle.search(batch, k, mask).scores[:, -1] for batch in batches])


def _timed(search: Callable[[], Neighbours]) -> tuple[float, Neighbours]:
    """Milliseconds of this thread alone, which other processes do not lengthen, and the answer."""
    start = thread_time_ns()
    found = search()
    return max(thread_time_ns() - start, 1) / 1e6, found


def measure_recall(index: Index, oracle: ExactIndex, queries: Floats, k: int = NEIGHBOURS) -> float:
    """The mean share of the oracle's k best that `index` finds; a neighbour that ties with the k-th counts as found."""
    if not len(queries) or not len(index):
        return 1.0
    k = min(k, len(index))
    return _share(index.search(queries, k).rows, oracle, queries, _worst(oracle, queries, k))


def _share(rows: Ints, oracle: ExactIndex, queries: Floats, worst: Floats) -> float:
    """What was found is scored again by the vectors themselves: a compressed index only estimates its scores."""
    scores = (oracle.vectors[near[near != NOTHING]] @ query for near, query in zip(rows, queries, strict=True))
    hits = sum(int((s >= least - 1e-5).sum()) for s, least in zip(scores, worst, strict=True))
    return hits / rows.size
