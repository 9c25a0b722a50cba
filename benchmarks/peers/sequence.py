"""SASRec, run by an interpreter of its own: its package wants other versions than Vitrine's."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from indexer.arrays import Doubles, Ints
from peers.context import Context
from ranker.log import Request

_SCRIPT = Path(__file__).with_name("sasrec.py")
_LENGTH = 20
# Up to so many products the loss over all of them costs no more than one over negatives.
_SMALL = 5_000


class SasRec:
    """SASRec (Kang and McAuley, ICDM 2018) by RecTools, with the softmax loss.

    A large catalogue has the gBCE loss over 128 negatives instead (Petrov and Macdonald, RecSys 2023). Longer users
    are cut into sequences of 20, so that every engagement before the cut is learnt from.
    """

    name = "SASRec (RecTools)"

    def __init__(self, python: Path, seconds: float, settings: Mapping[str, Any] | None = None) -> None:
        self._python = python
        self.settings = {
            "n_blocks": 2,
            "n_heads": 2,
            "n_factors": 64,
            "dropout_rate": 0.2,
            "session_max_len": _LENGTH,
            "batch_size": 128,
            "epochs": 100,
            "seconds": seconds,
            **(settings or {}),
        }

    def fit(self, context: Context) -> None:
        """Train on what was before the cut and answer all cases; training ends after `seconds`."""
        self._products = context.products
        large = {"loss": "gBCE", "n_negatives": 128, "gbce_t": 0.75}
        self.settings |= {"loss": "softmax"} if context.products <= _SMALL else large
        with TemporaryDirectory() as name:
            folder = Path(name)
            _training(context).write_parquet(folder / "training.parquet")
            _histories(context).write_parquet(folder / "cases.parquet")
            (folder / "settings.json").write_text(json.dumps({**self.settings, "seed": context.seed}))
            run_script(self._python, _SCRIPT, folder)
            answers = pl.read_parquet(folder / "answers.parquet")
            self.tried = json.loads((folder / "told.json").read_text())
        keys = [(case.request.user, case.request.time) for case in context.cases]
        self._answers = {
            keys[int(case[0])]: (part["row"].to_numpy(), part["score"].to_numpy())
            for case, part in answers.group_by("case")
        }

    def scores(self, request: Request, history: Ints) -> Doubles:
        """The model's scores of its best rows, new and known ones; -inf for the others, 0 for a stranger."""
        found = self._answers.get((request.user, request.time))
        if found is None:
            return np.zeros(self._products)
        scores = np.full(self._products, -np.inf)
        scores[found[0]] = found[1]
        return scores


def run_script(python: Path, script: Path, folder: Path) -> None:
    """Run a peer's script on `folder`. Raises `RuntimeError` with the end of what it said where it fails."""
    done = subprocess.run([python, script, folder], capture_output=True, text=True)
    if done.returncode:
        message = f"{script.name} failed. Does {python} have benchmarks/peers/requirements.txt installed?"
        raise RuntimeError(f"{message}\n{done.stderr[-2_000:]}")


def _training(context: Context) -> pl.DataFrame:
    """Columns user, row, step: sequences of at most 20, in time order."""
    users, rows, _ = context.log.sequences(context.cut)
    order = np.argsort(users, kind="stable")
    step = np.arange(len(order)) - np.searchsorted(users[order], users[order])
    return pl.DataFrame(
        {"user": users[order] * 1_000_000 + step // _LENGTH, "row": rows[order], "step": step % _LENGTH}
    )


def _histories(context: Context) -> pl.DataFrame:
    """Columns case, row, step."""
    histories = [case.history for case in context.cases]
    lengths = [len(history) for history in histories]
    return pl.DataFrame(
        {
            "case": np.repeat(np.arange(len(histories)), lengths),
            "row": np.concatenate([*histories, np.empty(0, np.int64)]),
            "step": np.concatenate([*(np.arange(length) for length in lengths), np.empty(0, np.int64)]),
        }
    )
