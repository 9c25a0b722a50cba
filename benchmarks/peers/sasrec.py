"""Trains RecTools' SASRec and answers cases. Run by `sequence.py` with an interpreter that has requirements.txt."""

import json
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

_DEPTH = 100


def main(folder: Path) -> None:
    """Read training.parquet, cases.parquet and settings.json; write answers.parquet and told.json."""
    torch.set_num_threads(1)
    settings = json.loads((folder / "settings.json").read_text())
    seconds = settings.pop("seconds")
    seed_everything(settings.pop("seed"), verbose=False)
    model = SASRecModel(**settings, get_trainer_func=trainer, get_trainer_func_kwargs={"seconds": seconds, **settings})
    start = time.perf_counter()
    model.fit(dataset(pd.read_parquet(folder / "training.parquet"), "user"))
    told = {"epochs": model.fit_trainer.current_epoch, "seconds": round(time.perf_counter() - start, 1)}
    cases = pd.read_parquet(folder / "cases.parquet")
    lists = [answers(model, cases, known) for known in (False, True)]
    pd.concat(lists).drop_duplicates(["case", "row"]).to_parquet(folder / "answers.parquet", index=False)
    (folder / "told.json").write_text(json.dumps(told))


def trainer(seconds: float, epochs: int, **others: Any) -> Trainer:
    """A quiet trainer on one core that stops when its time is up."""
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        max_time=timedelta(seconds=seconds),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )


def dataset(frame: pd.DataFrame, user: str) -> Dataset:
    """RecTools' data set of sequences; a step is a day, for the order is all that counts."""
    moments = pd.Timestamp("2000-01-01") + pd.to_timedelta(frame["step"], unit="D")
    columns = {Columns.User: frame[user], Columns.Item: frame["row"], Columns.Weight: 1.0, Columns.Datetime: moments}
    return Dataset.construct(pd.DataFrame(columns))


def answers(model: SASRecModel, cases: pd.DataFrame, new_only: bool) -> pd.DataFrame:
    """Columns case, row, score of the hundred best rows of each case."""
    found = model.recommend(
        users=cases["case"].unique(),
        dataset=dataset(cases, "case"),
        k=_DEPTH,
        filter_viewed=new_only,
        on_unsupported_targets="ignore",
    )
    return found.rename(columns={Columns.User: "case", Columns.Item: "row", Columns.Score: "score"})[
        ["case", "row", "score"]
    ]


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(Path(sys.argv[1]))
