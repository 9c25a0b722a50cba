"""Trains Torch-RecHub's DCNv2 and DIN. Run by `clicks.py` with an interpreter that has requirements.txt."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.ranking import DIN, DCNv2
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import TorchDataset

_SIZE = 16
_EPOCHS = 20
_DECAYS = (1e-5, 1e-4, 1e-3)


def main(folder: Path) -> None:
    """Read rows.parquet and histories.npy; write NAME.npy, the test rows' probabilities, and told.json."""
    torch.set_num_threads(1)
    frame = pd.read_parquet(folder / "rows.parquet")
    histories = np.load(folder / "histories.npy")
    inputs = {
        "user": frame["user"].to_numpy(),
        "item": frame["row"].to_numpy() + 1,
        "category": frame["category"].to_numpy(),
        "history": histories[frame["list"].to_numpy()],
    }
    labels, part = frame["label"].to_numpy().astype(np.float32), frame["slice"].to_numpy()
    told: dict[str, Any] = {}
    for name in ("DCNv2", "DIN"):
        runs = [run(name, decay, inputs, labels, part, folder) for decay in _DECAYS]
        told[name] = [
            {"weight_decay": d, "validation_auc": round(a, 5)} for d, (a, _) in zip(_DECAYS, runs, strict=True)
        ]
        np.save(folder / f"{name}.npy", np.array(max(runs, key=lambda pair: pair[0])[1], np.float64))
    (folder / "told.json").write_text(json.dumps(told))


def run(name: str, decay: float, inputs: dict[str, Any], labels: Any, part: Any, folder: Path) -> tuple[float, Any]:
    """AUC on the rows to stop on, and probabilities of the test rows."""
    torch.manual_seed(0)
    model = make(name, inputs)
    loaders = [loader(inputs, labels, part == number, shuffle=number == 0) for number in range(3)]
    options = {"lr": 1e-3, "weight_decay": decay}
    trainer = CTRTrainer(model, optimizer_params=options, n_epoch=_EPOCHS, earlystop_patience=3, model_path=str(folder))
    trainer.fit(loaders[0], loaders[1])
    stopped, tested = (trainer.predict(trainer.model, each) for each in loaders[1:])
    return float(roc_auc_score(labels[part == 1], stopped)), tested


def make(name: str, inputs: dict[str, Any]) -> torch.nn.Module:
    """A network over user, product, category and history."""
    sizes = {key: int(values.max()) + 1 for key, values in inputs.items()}
    items = max(sizes["item"], sizes["history"])
    user = SparseFeature("user", sizes["user"], _SIZE)
    category = SparseFeature("category", sizes["category"], _SIZE)
    item = SparseFeature("item", items, _SIZE, padding_idx=0)
    pooling = "concat" if name == "DIN" else "mean"
    history = SequenceFeature("history", items, _SIZE, pooling=pooling, shared_with="item", padding_idx=0)
    mlp = {"dims": [128, 64], "dropout": 0.2}
    if name == "DIN":
        return DIN([user, category], [history], [item], mlp, {"dims": [64, 32]})
    return DCNv2([user, category, item, history], n_cross_layers=3, mlp_params=mlp)


def loader(inputs: dict[str, Any], labels: Any, kept: Any, shuffle: bool) -> DataLoader:
    """Batches of the rows where `kept`."""
    generator = torch.Generator().manual_seed(0)
    rows = TorchDataset({key: values[kept] for key, values in inputs.items()}, labels[kept])
    return DataLoader(rows, batch_size=256, shuffle=shuffle, generator=generator)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
