"""A trained model: the product space, the members, and the fusion that ranks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm as lgb
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from indexer.arrays import Doubles, Floats
from indexer.config import IndexerConfig
from indexer.errors import SnapshotError
from indexer.snapshot import IndexSnapshot
from indexer.store import Store, write_json
from ranker import features, trees
from ranker.features import Catalogue
from ranker.fusion import Fusion, Platt
from ranker.network import Network
from ranker.products import product_table
from ranker.scoring import Scorable, network_input
from ranker.space import ProductSpace, load_space

_NETWORK = "network.safetensors"
_TREES = "trees.txt"
_STACKED = "trees_stacked.txt"
_FUSION = "fusion.json"
_SCHEMA = "schema.json"
REPORT = "report"


class Scores(NamedTuple):
    """One list's fused scores and its network logits, float64 [rows]."""

    fused: Doubles
    network: Doubles


@dataclass(frozen=True)
class Members:
    """What is fitted on the MEMBERS slice, and how it is fused. `stacked` reads the network's logit as last column."""

    network: Network
    trees: lgb.Booster
    stacked: lgb.Booster
    fusion: Fusion

    def score(self, lists: Sequence[Scorable], space: Floats) -> list[Scores]:
        """Scores of several lists in one pass through each member."""
        if not lists:
            return []
        with torch.inference_mode():
            logits = self.network(network_input(lists, space)).numpy().astype(np.float64)
        matrix = np.concatenate([item.features for item in lists])
        if self.fusion.kind == "stacking":
            fused = trees.score(self.stacked, stacked_features(matrix, logits))
        else:
            fused = self.fusion.weighted(logits, trees.score(self.trees, matrix))
        ends = np.cumsum([len(item.rows) for item in lists])[:-1]
        return [Scores(*parts) for parts in zip(np.split(fused, ends), np.split(logits, ends), strict=True)]

    def tree_scores(self, matrix: Floats) -> Doubles:
        """The plain ranker's scores of a few rows, to show them."""
        return trees.score(self.trees, matrix)

    def save(self, folder: Path) -> None:
        """Write the members, the fusion and the feature schema."""
        save_file(self.network.state_dict(), folder / _NETWORK)
        self.trees.save_model(folder / _TREES)
        self.stacked.save_model(folder / _STACKED)
        write_json(folder / _FUSION, self.fusion._asdict())
        write_json(folder / _SCHEMA, {"fingerprint": features.fingerprint(), "features": features.NAMES})


def stacked_features(matrix: Floats, logits: Doubles) -> Floats:
    """The feature matrix with the network's logit as its last column."""
    return np.column_stack([matrix, logits.astype(np.float32)])


@dataclass(frozen=True)
class Model:
    """A MODEL of the store, opened together with the INDEX it was trained on."""

    id: str
    manifest: Mapping[str, Any]
    space: ProductSpace
    members: Members
    catalogue: Catalogue


def load_model(store: Store, name: str, snapshot: IndexSnapshot, config: IndexerConfig) -> Model:
    """Open a model for `snapshot`. Raises `SnapshotError`, naming both fingerprints, where they do not fit together."""
    manifest = store.manifest("models", name)
    folder = store.path("models", name)
    _check(manifest, json.loads((folder / _SCHEMA).read_text()), name, snapshot)
    space = load_space(folder, manifest["space"], config)
    network = Network(len(features.NAMES), space.vectors.shape[1])
    network.load_state_dict(load_file(folder / _NETWORK))
    members = Members(
        network.eval(),
        lgb.Booster(model_file=folder / _TREES),
        lgb.Booster(model_file=folder / _STACKED),
        _load_fusion(folder / _FUSION),
    )
    return Model(name, manifest, space, members, Catalogue(product_table(snapshot), space.vectors))


def _check(manifest: Mapping[str, Any], schema: Mapping[str, Any], name: str, snapshot: IndexSnapshot) -> None:
    if manifest["encoder"] != snapshot.encoder_fingerprint:
        raise SnapshotError(
            f"Model {name} was trained with encoder {manifest['encoder']}, index {snapshot.id} was built with encoder "
            f"{snapshot.encoder_fingerprint}: their vectors cannot be compared. Train on this index: `vitrine train`."
        )
    if schema["fingerprint"] != features.fingerprint():
        changed = sorted(set(schema["features"]) ^ set(features.NAMES))
        raise SnapshotError(
            f"Model {name} has feature schema {schema['fingerprint']}, this program makes {features.fingerprint()} "
            f"(differing columns: {', '.join(changed) or 'their order'}). Train again: `vitrine train`."
        )
    if manifest["index"] != snapshot.id:
        raise SnapshotError(
            f"Model {name} was trained on index {manifest['index']}, not on {snapshot.id}: their rows are different "
            "products. Train on this index: `vitrine train`."
        )


def _load_fusion(path: Path) -> Fusion:
    raw = json.loads(path.read_text())
    calibration = {scorer: Platt(*values) for scorer, values in raw["calibration"].items()}
    return Fusion(raw["kind"], raw["alpha"], calibration, raw["thresholds"])
