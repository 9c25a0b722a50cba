"""Every member, every fusion and the plain orders side by side, on requests that nothing was fitted on."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from indexer.arrays import Doubles, Floats, Ints
from ranker import features, ranked
from ranker.boosted import Trees
from ranker.calibration import classification, reliability
from ranker.examples import Example
from ranker.fusion import KINDS, Fusion
from ranker.model import Members
from ranker.ranked import Answers
from ranker.segments import by_segment, cold_figures, cold_rows, segments
from ranker.significance import DRAWS, Difference, Interval, bootstrap, paired
from ranker.train_network import logits
from ranker.variety import variety

# Scorers that fuse nothing; every other scorer is a fusion.
MEMBERS = ("network", "trees", "transformer")
_CANDIDATES = (10, 20, 50, 100, 150, 200)

Orders = Mapping[str, Sequence[Doubles]]
# A figure's value for each request [requests], by order and figure.
Values = Mapping[str, Mapping[str, Doubles]]


class Row(NamedTuple):
    """One order's figures on one slice; `kind` is member, fusion or baseline."""

    scorer: str
    kind: str
    metrics: Mapping[str, Interval]
    classification: Mapping[str, float]


def scores_of(members: Members, examples: Sequence[Example], space: Floats) -> dict[str, list[Doubles]]:
    """Every scorer's raw scores of every list."""
    network = logits(members.network, examples, space, torch.device("cpu"))
    matrix, flat = np.concatenate([e.features for e in examples]), np.concatenate(network)
    lengths = [len(e.rows) for e in examples]
    ends = np.cumsum(lengths)[:-1]
    fused = {kind: np.split(members.fused(kind, matrix, flat, lengths), ends) for kind in KINDS}
    plain = np.split(members.tree_scores(matrix), ends)
    return {"transformer": [_transformer(e) for e in examples], "network": network, "trees": plain, **fused}


def _transformer(example: Example) -> Doubles:
    """What the Transformers alone say: the encoder's cosine for a query, the user tower's for a user."""
    name = "title_cosine" if example.context.query else "user_dot"
    return np.nan_to_num(example.features[:, features.NAMES.index(name)].astype(np.float64), nan=0.0)


def baselines(examples: Sequence[Example]) -> dict[str, list[Doubles]]:
    """Orders that need no model: what the lists came with, and single features that apply to them."""
    orders = {"random": [np.random.default_rng(i).random(len(e.rows)) for i, e in enumerate(examples)]}
    if any(len(e.recall_scores) for e in examples):
        orders["recall order"] = [
            e.recall_scores if len(e.recall_scores) else -np.arange(len(e.rows), dtype=np.float64) for e in examples
        ]
    for title, name in (
        ("BM25", "lexical"),
        ("popularity", "popularity_30d"),
        ("co-visited", "covisited"),
        ("own purchases", "bought_before"),
    ):
        column = features.NAMES.index(name)
        values = [np.nan_to_num(e.features[:, column].astype(np.float64), nan=0.0) for e in examples]
        if any(np.ptp(v) > 0 for v in values):
            orders[title] = values
    return orders


def per_request_ndcg(scores: Sequence[Doubles], examples: Sequence[Example]) -> Doubles:
    """NDCG@10 of every list."""
    return ranked.ndcg(scores, ranked.answers(examples, math.inf))


def per_request(orders: Orders, wanted: Answers) -> Values:
    """Every ranking figure of every order, for each request."""
    return {name: ranked.per_request(scores, wanted) for name, scores in orders.items()}


def table(values: Values, orders: Orders, scorers: Sequence[str], wanted: Answers, fusion: Fusion) -> list[Row]:
    """A row for each order; only `scorers` are no baselines. Classification figures where a threshold was fitted."""
    figures = list(next(iter(values.values())))
    columns = np.column_stack([values[name][figure] for name in values for figure in figures])
    intervals = iter(bootstrap(columns, groups=wanted.users))
    return [
        Row(
            name,
            _kind(name, scorers),
            {figure: next(intervals) for figure in figures},
            classification(_probabilities(fusion, name, orders), wanted.positive, fusion.thresholds[name])
            if name in fusion.thresholds and name in scorers
            else {},
        )
        for name in values
    ]


def compare(values: Values, chosen: str, figure: str, users: Ints) -> dict[str, Difference]:
    """The chosen order's `figure` minus each other's on the same requests; empty where the figure does not apply.

    `users` are as in `Answers`.
    """
    mine = values[chosen][figure]
    others = {name: each[figure] for name, each in values.items() if name != chosen}
    if not others or np.isnan(mine).all():
        return {}
    return dict(zip(others, paired(mine, np.column_stack(list(others.values())), users), strict=True))


def report(members: Members, examples: Sequence[Example], space: Floats, positive_grade: float) -> dict[str, Any]:
    """The whole report on a slice, ready for JSON: null stands where a figure does not apply."""
    scored = scores_of(members, examples, space)
    orders = {**scored, **baselines(examples)}
    chosen, fusion, wanted = members.fusion.kind, members.fusion, ranked.answers(examples, positive_grade)
    values = per_request(orders, wanted)
    rows = table(values, orders, list(scored), wanted, fusion)
    shown = _shown(rows, chosen)
    cold = cold_rows(examples)
    content = {
        "requests": len(examples),
        "rows": len(wanted.positive),
        "positive_grade": positive_grade,
        "positive_share": float(wanted.positive.mean()),
        "chosen": chosen,
        "alpha": fusion.alpha,
        "draws": DRAWS,
        "table": [row._asdict() | {"metrics": _plain(row.metrics)} for row in rows],
        "chosen_minus_other_ndcg": _plain(compare(values, chosen, "ndcg@10", wanted.users)),
        "chosen_minus_other_auc": _plain(compare(values, chosen, "auc", wanted.users)),
        "shown": shown,
        "segments": by_segment(
            segments(examples, wanted, cold),
            {role: values[name]["ndcg@10"] for role, name in shown.items()},
            wanted.shares,
            wanted.users,
        ),
        "cold": cold_figures({role: orders[name] for role, name in shown.items()}, wanted, cold),
        "calibration": {
            row.scorer: reliability(_probabilities(fusion, row.scorer, orders), wanted.positive)._asdict()
            for row in rows
            if row.classification and (row.kind == "member" or row.scorer == chosen)
        },
        "recall_by_candidates": recall_by_candidates(examples, positive_grade),
        "gains": gain_shares(members),
        "variety": variety(orders, examples, len(space)),
    }
    return dict(_without_nan(content))


def recall_by_candidates(examples: Sequence[Example], positive_grade: float) -> list[dict[str, float]]:
    """The share of all positives among the first candidates in recall order, by their number; recalled lists only."""
    recalled = [e for e in examples if len(e.recall_scores)]
    if not recalled:
        return []
    longest = max(len(e.rows) for e in recalled)
    counts = sorted({*(k for k in _CANDIDATES if k < longest), longest})
    shares = np.array([_recall_at(e, positive_grade, counts) for e in recalled])
    intervals = bootstrap(shares, groups=ranked.numbered([e.user for e in recalled]))
    return [{"candidates": k, **each._asdict()} for k, each in zip(counts, intervals, strict=True)]


def gain_shares(members: Members) -> dict[str, dict[str, float]]:
    """Each booster's features by their share of its split gain, largest first."""
    boosters = {name: value.booster for name, value in vars(members).items() if isinstance(value, Trees)}
    out = {}
    for name, booster in boosters.items():
        gains = np.asarray(booster.feature_importance("gain"), np.float64)
        shares = gains / (gains.sum() or 1.0)
        names = booster.feature_name()
        out[name] = {names[i]: float(shares[i]) for i in np.argsort(-shares, kind="stable")}
    return out


def _kind(name: str, scorers: Sequence[str]) -> str:
    if name not in scorers:
        return "baseline"
    return "member" if name in MEMBERS else "fusion"


def _probabilities(fusion: Fusion, name: str, orders: Orders) -> Doubles:
    return fusion.probabilities(name, np.concatenate(orders[name]))


def _shown(rows: Sequence[Row], chosen: str) -> dict[str, str]:
    """The orders that stand for all in the finer tables, by role."""
    others = [row for row in rows if row.scorer not in (chosen, "random")]
    best = {
        f"best {kind}": max(mine, key=lambda row: row.metrics["ndcg@10"].mean).scorer
        for kind in ("member", "baseline")
        if (mine := [row for row in others if row.kind == kind])
    }
    return {"chosen": chosen, **best, "random": "random"}


def _recall_at(example: Example, positive_grade: float, counts: Sequence[int]) -> Doubles:
    positive = example.grades >= positive_grade
    total = int(positive.sum() + (example.missed >= positive_grade).sum())
    if not total:
        return np.full(len(counts), np.nan)
    found = np.cumsum(positive[np.argsort(-example.recall_scores, kind="stable")])
    return np.asarray(found[np.minimum(counts, len(found)) - 1] / total, np.float64)


def _plain(figures: Mapping[str, Interval] | Mapping[str, Difference]) -> dict[str, dict[str, float]]:
    return {name: figure._asdict() for name, figure in figures.items()}


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
