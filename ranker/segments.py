"""Parts of the requests that an average hides: short and long queries, new and old users, and cold products."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from indexer.arrays import Array, Doubles, Ints, Mask
from ranker import features, ranked
from ranker.examples import Example
from ranker.ranked import Answers
from ranker.significance import Interval, bootstrap

# Engagements a user has behind him at the request; the last class is open.
_HISTORY = ((0, 0), (1, 4), (5, 19))
_COLD_AT = (10, 100)
# Above zero once anybody, or the user himself, has engaged with the product.
_TOUCHED = [features.NAMES.index(name) for name in ("popularity_30d", "engaged_before")]


class Segment(NamedTuple):
    """Some of the requests, by one way of dividing them."""

    group: str
    name: str
    requests: Mask


def segments(examples: Sequence[Example], wanted: Answers, cold: Mask) -> list[Segment]:
    """Every way of dividing the requests that leaves more than one part; `cold` is by row of all lists."""
    query = np.array([bool(e.context.query) for e in examples])
    history = np.array([len(e.context.history.rows) for e in examples])
    groups = [
        _halves("query length", _first(examples, "query_tokens"), query, "{:.0f} words"),
        _frequency(examples, query),
        [Segment("request", "with a query", query), Segment("request", "without a query", ~query)],
        _by_history(history),
        _by_cold(wanted, cold),
    ]
    filled = [[part for part in group if part.requests.any()] for group in groups]
    return [part for group in filled if len(group) > 1 for part in group]


def by_segment(
    found: Sequence[Segment], ndcg: Mapping[str, Doubles], shares: Doubles, users: Ints
) -> list[dict[str, Any]]:
    """Requests and NDCG@10 of some orders in each segment; `ndcg` [requests] by order, the others as in `Answers`."""
    table = np.column_stack(list(ndcg.values()))
    means = [float(np.nanmean(shares[part.requests])) if _any_gain(shares, part) else 1.0 for part in found]
    return [
        {
            "group": part.group,
            "segment": part.name,
            "requests": int(part.requests.sum()),
            "ndcg@10": {
                name: interval._asdict()
                for name, interval in zip(
                    ndcg, bootstrap(table[part.requests] / mean, groups=users[part.requests]), strict=True
                )
            },
        }
        for part, mean in zip(found, means, strict=True)
    ]


def _any_gain(shares: Doubles, part: Segment) -> bool:
    return bool(np.isfinite(shares[part.requests]).any())


def cold_rows(examples: Sequence[Example]) -> Mask:
    """Which rows of all lists are products that nobody had engaged with before the request [all rows]."""
    matrix = np.concatenate([e.features[:, _TOUCHED] for e in examples])
    return np.asarray((np.nan_to_num(matrix, nan=0.0) == 0).all(1))


def cold_figures(orders: Mapping[str, Sequence[Doubles]], wanted: Answers, cold: Mask) -> dict[str, Any] | None:
    """How each order treats cold products; None where no row is cold, or every one is.

    `share` is that of cold products among the first 10 of all lists, `recall@k` the mean share of a list's cold
    positives among its first k. Positives that recall missed are not known by name and are not counted. `auc` is how
    well an order tells the cold positives from the other cold rows, of all lists together: 0.5 by chance. It is the
    figure to judge an order by, since recall falls wherever cold products are wanted less than others, and rightly so.
    """
    if cold.all() or not cold.any():
        return None
    asked = np.repeat(np.arange(len(wanted.lengths)), wanted.lengths)
    sought = cold & wanted.positive
    totals = np.bincount(asked[sought], minlength=len(wanted.lengths))
    among = _cold_alone(wanted, cold, asked)
    return {
        "share_of_rows": float(cold.mean()),
        "share_wanted": float(wanted.positive[cold].mean()),
        "share_of_others_wanted": float(wanted.positive[~cold].mean()),
        "wanted": int(sought.sum()),
        "requests": int((totals > 0).sum()),
        "orders": {
            name: _cold(scores, wanted, cold, sought, totals)
            | {"auc": _auc(np.concatenate(scores)[cold], among)._asdict()}
            for name, scores in orders.items()
        },
    }


def _cold_alone(wanted: Answers, cold: Mask, asked: Ints) -> Answers:
    """The lists that hold cold rows, with those rows alone."""
    lengths = np.bincount(asked[cold], minlength=len(wanted.lengths))
    some = lengths > 0
    return wanted._replace(lengths=lengths[some], positive=wanted.positive[cold], users=wanted.users[some])


def _auc(scores: Doubles, wanted: Answers) -> Interval:
    [interval] = bootstrap(ranked.pooled_auc(scores, wanted)[:, None], groups=wanted.users)
    return interval


def _cold(
    scores: Sequence[Doubles], wanted: Answers, cold: Mask, sought: Mask, totals: Array
) -> dict[str, dict[str, float] | float]:
    first = ranked.top(scores, wanted.lengths, max(_COLD_AT))
    top = np.concatenate([places[: ranked.K] for places in first])
    found = {k: np.array([sought[places[:k]].sum() for places in first]) for k in _COLD_AT}
    shares = np.column_stack([np.where(totals > 0, found[k] / np.maximum(totals, 1), np.nan) for k in _COLD_AT])
    found_shares = zip(_COLD_AT, bootstrap(shares, groups=wanted.users), strict=True)
    intervals = {f"recall@{k}": interval._asdict() for k, interval in found_shares}
    return {"share": float(cold[top].mean()), **intervals}


def _first(examples: Sequence[Example], name: str) -> Doubles:
    """A feature that is alike in all rows of a list [requests]."""
    column = features.NAMES.index(name)
    return np.array([e.features[0, column] for e in examples], np.float64)


def _halves(group: str, values: Doubles, applies: Mask, unit: str) -> list[Segment]:
    if not applies.any():
        return []
    middle = float(np.median(values[applies]))
    low, high = (f"{side} {unit.format(middle)}" for side in ("up to", "over"))
    return [Segment(group, low, applies & (values <= middle)), Segment(group, high, applies & (values > middle))]


def _frequency(examples: Sequence[Example], query: Mask) -> list[Segment]:
    values = np.nan_to_num(_first(examples, "query_frequency"), nan=0.0)
    halves = _halves("query frequency", values, query, "{:.2f}")
    names = ("tail: seldom asked", "head: often asked")
    return [half._replace(name=name) for half, name in zip(halves, names, strict=False)]


def _by_history(history: Array) -> list[Segment]:
    closed = [
        Segment("user's history", "new user" if high == 0 else f"{low} to {high}", (history >= low) & (history <= high))
        for low, high in _HISTORY
    ]
    return [*closed, Segment("user's history", "20 and more", history > _HISTORY[-1][1])]


def _by_cold(wanted: Answers, cold: Mask) -> list[Segment]:
    if cold.all():
        return []
    asked = np.repeat(np.arange(len(wanted.lengths)), wanted.lengths)
    has = np.bincount(asked[cold & wanted.positive], minlength=len(wanted.lengths)) > 0
    return [
        Segment("wanted products", "a cold one among them", has),
        Segment("wanted products", "no cold one among them", ~has),
    ]
