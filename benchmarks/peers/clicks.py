"""Click models on lists with explicit answers: pooled AUC, GAUC and log loss of DCNv2, DIN and plain biases."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from indexer.arrays import Array, Doubles, Ints
from peers.compare import Say
from peers.context import Log
from peers.sequence import run_script
from ranker.examples import Slice
from ranker.log import Request

_SCRIPT = Path(__file__).with_name("ctr.py")
_HISTORY = 50
_RESAMPLES = 500
NETWORKS = {"DCNv2": "DCNv2 (Torch-RecHub)", "DIN": "DIN (Torch-RecHub)"}


class Lists(NamedTuple):
    """Rows of lists with explicit answers; `slice` is 0 to train on, 1 to stop on, 2 to test on.

    `frame` has the columns list, user, row, category, label, slice; codes from 1, 0 for what training never saw.
    `histories` are what each list's user had engaged with before it, as rows + 1, oldest first, padded with 0.
    """

    frame: pl.DataFrame
    histories: Ints

    def part(self, number: int) -> pl.DataFrame:
        """The rows of one slice."""
        return self.frame.filter(pl.col("slice") == number)

    def positive_share(self, number: int) -> float:
        """The share of positives in one slice."""
        return float(self.part(number)["label"].to_numpy().mean())


def lists_of(requests: Sequence[tuple[Request, Slice]], log: Log, categories: Sequence[str | None]) -> Lists:
    """One row for each product of each request; everything before VALIDATE is trained on."""
    number_of = {category: number for number, category in enumerate(sorted({c for c in categories if c}), 1)}
    category = np.array([number_of.get(each or "", 0) for each in categories])
    histories = np.zeros((len(requests), _HISTORY), np.int64)
    parts = []
    for i, (request, part) in enumerate(requests):
        if request.rows is None:
            continue
        seen = log.history(request.user, request.time)[-_HISTORY:] + 1
        histories[i, : len(seen)] = seen
        columns = {
            "list": np.full(len(request.rows), i),
            "user": np.full(len(request.rows), log.code(request.user) + 1),
            "row": request.rows,
            "category": category[request.rows],
            "label": np.array([int(row in request.wanted) for row in request.rows.tolist()]),
            "slice": np.full(len(request.rows), max(int(part) - Slice.CALIBRATE, 0)),
        }
        parts.append(pl.DataFrame(columns))
    frame = pl.concat(parts)
    known = frame.filter(pl.col("slice") == 0)
    unseen = ~pl.col("user").is_in(known["user"].implode())
    return Lists(frame.with_columns(pl.when(unseen).then(0).otherwise(pl.col("user")).alias("user")), histories)


def compare_clicks(
    lists: Lists, others: Mapping[str, Doubles], python: Path | None, seed: int, say: Say
) -> list[dict[str, Any]]:
    """A row for each click model; `others` are probabilities of the test rows that were made elsewhere."""
    test = lists.part(2)
    found: dict[str, tuple[Doubles, Any]] = {
        "share of positives": (np.full(len(test), lists.positive_share(0)), {}),
        "logistic regression of user and item": biases(lists),
        **(networks(lists, python) if python is not None else {}),
        **{name: (values, {}) for name, values in others.items()},
    }
    labels, which = test["label"].to_numpy(), test["list"].to_numpy()
    rows = [
        {"name": name, "tried": tried, **click_figures(labels, values, which, seed)}
        for name, (values, tried) in found.items()
    ]
    for row in rows:
        say(f"{row['name']:<44} " + "  ".join(f"{n} {row[n]['mean']:.4f}" for n in ("auc", "gauc", "log_loss")))
    return rows


def biases(lists: Lists) -> tuple[Doubles, Any]:
    """Logistic regression on one-hot user and product; the penalty with the best log loss on VALIDATE."""
    train, stop, test = (lists.part(number) for number in range(3))
    users, rows = int(lists.frame["user"].max()) + 1, int(lists.frame["row"].max()) + 1  # type: ignore[arg-type]
    runs = []
    for strength in (0.1, 0.3, 1.0):
        model = LogisticRegression(C=strength, max_iter=1_000)
        model.fit(_one_hot(train, users, rows), train["label"].to_numpy())
        stopped, tested = (model.predict_proba(_one_hot(each, users, rows))[:, 1] for each in (stop, test))
        runs.append((float(log_loss(stop["label"].to_numpy(), stopped)), strength, tested))
    tried = [{"C": strength, "validation_log_loss": round(loss, 5)} for loss, strength, _ in runs]
    return min(runs, key=lambda run: run[0])[2], tried


def networks(lists: Lists, python: Path) -> dict[str, tuple[Doubles, Any]]:
    """Probabilities of the test rows by each network, and what was tried; run by an interpreter of its own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        lists.frame.write_parquet(folder / "rows.parquet")
        np.save(folder / "histories.npy", lists.histories)
        run_script(python, _SCRIPT, folder)
        told = json.loads((folder / "told.json").read_text())
        return {title: (np.load(folder / f"{key}.npy"), told[key]) for key, title in NETWORKS.items()}


def click_figures(labels: Ints, values: Doubles, lists: Ints, seed: int = 0) -> dict[str, Any]:
    """AUC, GAUC and log loss with 95 % intervals from resampling whole lists (their rows are not independent).

    GAUC is the mean of the lists' own AUCs, weighted by their rows (Zhou et al., KDD 2018).
    """
    distinct, which, sizes = np.unique(lists, return_inverse=True, return_counts=True)
    own = _list_aucs(labels, values, which, len(distinct))
    rng = np.random.default_rng(seed)
    count = len(distinct)
    draws = [np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(_RESAMPLES)]
    values = np.clip(values, 1e-7, 1.0 - 1e-7)

    def figures(weight: Array) -> list[float]:
        each, mixed = weight[which], ~np.isnan(own)
        return [
            float(roc_auc_score(labels, values, sample_weight=each)),
            float(np.average(own[mixed], weights=(sizes * weight)[mixed])),
            float(log_loss(labels, values, sample_weight=each)),
        ]

    spread = np.percentile([figures(weight) for weight in draws], [2.5, 97.5], axis=0)
    means = figures(np.ones(len(distinct)))
    named = zip(("auc", "gauc", "log_loss"), means, *spread, strict=True)
    return {
        name: {"mean": round(m, 5), "low": round(float(a), 5), "high": round(float(b), 5)} for name, m, a, b in named
    }


def _list_aucs(labels: Ints, values: Doubles, which: Ints, count: int) -> Doubles:
    out = np.full(count, np.nan)
    order = np.argsort(which, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(which[order])) + 1):
        if 0 < labels[part].sum() < len(part):
            out[which[part[0]]] = roc_auc_score(labels[part], values[part])
    return out


def _one_hot(frame: pl.DataFrame, users: int, rows: int) -> sparse.csr_matrix:
    user, row = frame["user"].to_numpy(), frame["row"].to_numpy()
    ones, places = np.ones(2 * len(user)), np.concatenate([user, users + row])
    return sparse.csr_matrix((ones, (np.tile(np.arange(len(user)), 2), places)), shape=(len(user), users + rows))
