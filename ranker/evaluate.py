"""Every member, every fusion and the plain orders side by side, on requests that nothing was fitted on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score, roc_auc_score

from indexer.arrays import Array, Doubles, Floats
from ranker import features, metrics, trees
from ranker.examples import Example
from ranker.fusion import Fusion
from ranker.metrics import Interval
from ranker.model import Members, stacked_features
from ranker.train_network import logits

SCORERS = ("network", "trees", "weighted", "stacking")
_RECALL_AT = (10, 50, 100)


class Row(NamedTuple):
    """One scorer's figures on one slice."""

    scorer: str
    metrics: Mapping[str, Interval]
    classification: Mapping[str, float]


def scores_of(members: Members, examples: Sequence[Example], space: Floats) -> dict[str, list[Doubles]]:
    """Every scorer's raw scores of every list."""
    network = logits(members.network, examples, space, torch.device("cpu"))
    plain = [trees.score(members.trees, e.features) for e in examples]
    stacked = [
        trees.score(members.stacked, stacked_features(e.features, n)) for e, n in zip(examples, network, strict=True)
    ]
    weighted = [members.fusion.weighted(n, t) for n, t in zip(network, plain, strict=True)]
    return {"network": network, "trees": plain, "weighted": weighted, "stacking": stacked}


def baselines(examples: Sequence[Example]) -> dict[str, list[Doubles]]:
    """Orders that need no model: what the lists came with, and single features that apply to them."""
    orders = {"random": [np.random.default_rng(i).random(len(e.rows)) for i, e in enumerate(examples)]}
    if any(len(e.recall_scores) for e in examples):
        orders["recall order"] = [
            e.recall_scores if len(e.recall_scores) else -np.arange(len(e.rows), dtype=np.float64) for e in examples
        ]
    for title, name in (
        ("encoder cosine", "title_cosine"),
        ("BM25", "bm25"),
        ("popularity", "popularity_30d"),
        ("user vector", "user_dot"),
        ("own purchases", "bought_before"),
    ):
        column = features.NAMES.index(name)
        values = [np.nan_to_num(e.features[:, column].astype(np.float64), nan=0.0) for e in examples]
        if any(np.ptp(v) > 0 for v in values):
            orders[title] = values
    return orders


def table(
    orders: Mapping[str, Sequence[Doubles]], examples: Sequence[Example], positive_grade: float, fusion: Fusion | None
) -> list[Row]:
    """A row for each order; classification figures only for scorers that are calibrated."""
    return [
        Row(
            name,
            _ranking(scores, examples, positive_grade),
            _classification(name, scores, examples, positive_grade, fusion) if name in SCORERS and fusion else {},
        )
        for name, scores in orders.items()
    ]


def per_request_ndcg(scores: Sequence[Doubles], examples: Sequence[Example]) -> Doubles:
    """NDCG@10 of every list."""
    return np.array([metrics.ndcg(s, e.grades, e.missed) for s, e in zip(scores, examples, strict=True)])


def compare(orders: Mapping[str, Sequence[Doubles]], examples: Sequence[Example], chosen: str) -> dict[str, Interval]:
    """The chosen scorer's NDCG@10 minus each other's on the same requests, with the interval of the mean difference."""
    mine = per_request_ndcg(orders[chosen], examples)
    others = {name: scores for name, scores in orders.items() if name != chosen}
    return {name: metrics.bootstrap(mine - per_request_ndcg(scores, examples)) for name, scores in others.items()}


def report(members: Members, examples: Sequence[Example], space: Floats, positive_grade: float) -> dict[str, Any]:
    """The whole report on a slice, ready for JSON."""
    orders = {**scores_of(members, examples, space), **baselines(examples)}
    chosen = members.fusion.kind
    return {
        "requests": len(examples),
        "rows": int(sum(len(e.rows) for e in examples)),
        "positive_share": float(np.mean(np.concatenate([e.grades >= positive_grade for e in examples]))),
        "chosen": chosen,
        "alpha": members.fusion.alpha,
        "table": [
            row._asdict() | {"metrics": _plain(row.metrics)}
            for row in table(orders, examples, positive_grade, members.fusion)
        ],
        "chosen_minus_other_ndcg": _plain(compare(orders, examples, chosen)),
    }


def _plain(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {name: interval._asdict() for name, interval in intervals.items()}


def _ranking(scores: Sequence[Doubles], examples: Sequence[Example], positive_grade: float) -> dict[str, Interval]:
    pairs = [
        (s, e, e.grades >= positive_grade, int((e.missed >= positive_grade).sum()))
        for s, e in zip(scores, examples, strict=True)
    ]
    values = {
        "ndcg@10": [metrics.ndcg(s, e.grades, e.missed) for s, e, _, _ in pairs],
        "mrr": [metrics.reciprocal_rank(s, p) if p.any() or m else np.nan for s, _, p, m in pairs],
        **{f"recall@{k}": [metrics.recall(s, p, m, k) for s, _, p, m in pairs] for k in _RECALL_AT},
    }
    return {name: metrics.bootstrap(np.array(each)) for name, each in values.items()}


def _classification(
    scorer: str, scores: Sequence[Doubles], examples: Sequence[Example], positive_grade: float, fusion: Fusion
) -> dict[str, float]:
    """AUC and log loss over all rows; accuracy, recall and F1 at the threshold that validation chose."""
    positive: Array = np.concatenate([e.grades for e in examples]) >= positive_grade
    if positive.all() or not positive.any():
        return {}
    p = fusion.probabilities(scorer, np.concatenate(scores))
    called = p >= fusion.thresholds[scorer]
    return {
        "auc": float(roc_auc_score(positive, p)),
        "log_loss": float(log_loss(positive, np.clip(p, 1e-9, 1 - 1e-9))),
        "threshold": float(fusion.thresholds[scorer]),
        "accuracy": float(accuracy_score(positive, called)),
        "recall": float(recall_score(positive, called)),
        "f1": float(f1_score(positive, called)),
    }
