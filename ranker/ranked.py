"""Ranking metrics of many lists at once, one value for each request: lists are padded into arrays, block by block."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from indexer.arrays import Array, Doubles, Ints, Mask
from ranker.examples import Example
from ranker.metrics import gains

K = 10
RECALL_AT = (10, 50, 100)
# Cells of one padded block, so that one long list does not widen all others.
_CELLS = 1 << 20


class Answers(NamedTuple):
    """What is right for each list, padded by nothing: `lengths` says where each ends in the flat arrays."""

    lengths: Ints
    gains: Doubles  # weighed, [all rows]
    positive: Mask  # [all rows]
    missed: Ints  # positives that are not in the list, [requests]
    ideal: Doubles  # what NDCG@K divides by, [requests]
    shares: Doubles  # what each request counts in the mean NDCG@K: 1 on average, NaN without a gain [requests]
    users: Ints  # a number for who asked [requests]


def answers(examples: Sequence[Example], positive_grade: float) -> Answers:
    """The answers of `examples`; a row is positive from `positive_grade` up.

    Where rows have weights, a list with rarely seen clicks counts for all those that were not given: a request's
    NDCG@K is the DCG of the weighed gains over the ideal DCG of the plain ones, divided by the mean over all requests
    of that quotient's best. So the mean NDCG@K is that of the weighed gains, weighed by their worth (self-normalised
    inverse propensities, Swaminathan and Joachims, NeurIPS 2015), and a single value may be above 1.
    """
    grades = np.concatenate([e.grades for e in examples])
    ideal = np.array([_ideal(np.concatenate([gains(e.grades), gains(e.missed)])) for e in examples])
    best = np.array([_ideal(np.concatenate([_weighed(e), gains(e.missed)])) for e in examples])
    counts = np.divide(best, ideal, out=np.full(len(ideal), np.nan), where=ideal > 0)
    mean = float(np.nanmean(counts)) if (ideal > 0).any() else 1.0
    return Answers(
        np.array([len(e.grades) for e in examples], np.int64),
        np.concatenate([_weighed(e) for e in examples]),
        grades >= positive_grade,
        np.array([(e.missed >= positive_grade).sum() for e in examples], np.int64),
        ideal * mean,
        counts / mean,
        numbered([e.user for e in examples]),
    )


def numbered(users: Sequence[str | None]) -> Ints:
    """A number for each user, and one for each request of nobody in particular [requests]."""
    numbers: dict[str | int, int] = {}
    keys = (i if user is None else user for i, user in enumerate(users))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _weighed(example: Example) -> Doubles:
    return gains(example.grades) if example.weights is None else gains(example.grades) * example.weights


def per_request(scores: Sequence[Doubles], wanted: Answers) -> dict[str, Doubles]:
    """Each metric's value for each request, NaN where it does not apply; the mean over requests is the metric.

    `gauc` is a list's own AUC; every list weighs the same, where Zhu et al. (KDD 2017) weigh by impressions. `auc` is
    that of all rows together, in parts: see `pooled_auc`.
    """
    flat = np.concatenate(scores).astype(np.float64)
    blocks = [_block(flat, wanted, part) for part in _parts(wanted.lengths)]
    values = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    return values | {"auc": pooled_auc(flat, wanted)}


def ndcg(scores: Sequence[Doubles], wanted: Answers) -> Doubles:
    """NDCG@10 of every list."""
    flat = np.concatenate(scores).astype(np.float64)
    parts = _parts(wanted.lengths)
    return np.concatenate(
        [_ndcg(_ranked(flat, wanted.gains, wanted.lengths, part), wanted.ideal[part]) for part in parts]
    )


def top(scores: Sequence[Doubles], lengths: Ints, k: int = K) -> list[Ints]:
    """Places, in the flat arrays, of the first k rows of each list; best first."""
    flat = np.concatenate(scores).astype(np.float64)
    out: list[Ints] = []
    for part in _parts(lengths):
        places, _, order = _order(flat, lengths, part)
        best = np.take_along_axis(places, order[:, :k], 1)
        out += [row[:length] for row, length in zip(best, lengths[part], strict=True)]
    return out


def pooled_auc(scores: Doubles, wanted: Answers) -> Doubles:
    """Parts of the AUC of all rows together [requests]: their mean is the AUC, their spread its spread over requests.

    A part is the AUC plus the request's influence on it: how much better its rows are told apart from all others than
    rows are on the whole (placement values, DeLong et al. 1988, summed by cluster as in Obuchowski 1997). So the AUC
    has an interval and a paired test like any mean, and nothing is sorted again. NaN where rows are all alike.
    """
    positive, requests = wanted.positive, len(wanted.lengths)
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        return np.full(requests, np.nan)
    order = np.argsort(-scores)
    beaten = np.empty(len(scores))
    beaten[order] = np.where(
        positive[order],
        _after(scores[order][None], ~positive[order][None])[0] / others,
        1.0 - _after(scores[order][None], positive[order][None])[0] / count,
    )
    total = float(beaten[positive].mean())
    request = np.repeat(np.arange(requests), wanted.lengths)
    influence = (beaten - total) / np.where(positive, count, others)
    return np.asarray(total + requests * np.bincount(request, influence, requests), np.float64)


def _ideal(worth: Doubles) -> float:
    """The best DCG@K of a list whose rows have these gains."""
    best = np.sort(worth)[::-1][:K]
    return float(best @ _discounts(len(best)))


def _discounts(k: int) -> Doubles:
    return np.asarray(1.0 / np.log2(np.arange(2, k + 2)), np.float64)


def _parts(lengths: Ints) -> list[slice]:
    """Runs of requests whose padded lists fit a block."""
    cuts, widest, start = [0], 0, 0
    for i, length in enumerate(lengths.tolist()):
        widest = max(widest, length)
        if i > start and (i + 1 - start) * widest > _CELLS:
            cuts.append(i)
            start, widest = i, length
    return [slice(a, b) for a, b in zip(cuts, [*cuts[1:], len(lengths)], strict=True)]


def _order(flat: Doubles, lengths: Ints, part: slice) -> tuple[Ints, Mask, Ints]:
    """Padded places in the flat arrays, which of them are rows, and the best-first order; all [requests, widest]."""
    mine = lengths[part]
    starts = np.cumsum(lengths)[part] - mine
    columns = np.arange(max(int(mine.max()), 1))
    inside = columns < mine[:, None]
    places = np.where(inside, starts[:, None] + columns, 0)
    # NaN sorts behind every number, and the order is stable: padding comes last.
    order = np.argsort(np.where(inside, -flat[places], np.nan), axis=1, kind="stable")
    return places, inside, order


def _ranked(flat: Doubles, values: Array, lengths: Ints, part: slice) -> Array:
    """`values` in the order of the scores, 0 behind each list's end [requests, widest]."""
    places, inside, order = _order(flat, lengths, part)
    return np.take_along_axis(np.where(inside, values[places], 0), order, 1)


def _ndcg(ranked: Doubles, ideal: Doubles) -> Doubles:
    found = ranked[:, :K] @ _discounts(min(K, ranked.shape[1]))
    return np.asarray(np.divide(found, ideal, out=np.full(len(found), np.nan), where=ideal > 0), np.float64)


def _block(flat: Doubles, wanted: Answers, part: slice) -> dict[str, Doubles]:
    places, inside, order = _order(flat, wanted.lengths, part)
    places, inside = np.take_along_axis(places, order, 1), np.take_along_axis(inside, order, 1)
    positive = wanted.positive[places] & inside
    total = positive.sum(1) + wanted.missed[part]
    first = np.where(positive.any(1), 1.0 / (positive.argmax(1) + 1.0), 0.0)
    found = np.cumsum(positive, axis=1)
    hits = {k: found[:, min(k, found.shape[1]) - 1] for k in RECALL_AT}
    return {
        "ndcg@10": _ndcg(np.where(inside, wanted.gains[places], 0.0), wanted.ideal[part]),
        "mrr": np.where(total > 0, first, np.nan),
        "hr@10": np.where(total > 0, hits[K] > 0, np.nan),
        **{f"recall@{k}": np.where(total > 0, hits[k] / np.maximum(total, 1), np.nan) for k in RECALL_AT},
        "gauc": _list_auc(flat[places], positive, inside & ~positive),
    }


def _list_auc(ranked: Doubles, positive: Mask, negative: Mask) -> Doubles:
    pairs = positive.sum(1) * negative.sum(1)
    won = (_after(ranked, negative) * positive).sum(1)
    return np.asarray(np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0), np.float64)


def _after(ranked: Doubles, marked: Mask) -> Doubles:
    """How many `marked` cells each cell is scored above, ties counting half; scores fall along each row."""
    width = ranked.shape[1]
    begins = np.ones(ranked.shape, bool)
    begins[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    columns = np.arange(width)
    first = np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
    ends = np.ones(ranked.shape, bool)
    ends[:, :-1] = begins[:, 1:]
    last = np.minimum.accumulate(np.where(ends, columns, width)[:, ::-1], axis=1)[:, ::-1]
    up_to = np.zeros((len(ranked), width + 1))
    np.cumsum(marked, axis=1, out=up_to[:, 1:])
    before, within = np.take_along_axis(up_to, first, 1), np.take_along_axis(up_to, last + 1, 1)
    return np.asarray(up_to[:, -1:] - (before + within) / 2.0)
