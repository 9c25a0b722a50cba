"""A trained model: the product space, the members, and the fusion that ranks."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from indexer.amended import Vectors
from indexer.arrays import Doubles, Floats, Ints
from indexer.config import IndexerConfig
from indexer.device import card
from indexer.errors import SnapshotError
from indexer.snapshot import IndexSnapshot
from indexer.store import Store, write_json
from ranker import features
from ranker.boosted import Trees
from ranker.compiled_network import CompiledNetwork
from ranker.covisited import load_covisited
from ranker.ease import empty_ease, load_ease
from ranker.features import Catalogue
from ranker.fusion import Fusion, Isotonic, Platt, by_rank
from ranker.products import product_table
from ranker.recall import Retrieval
from ranker.scoring import Scorable
from ranker.space import ProductSpace, load_space
from ranker.weights import Weights

if TYPE_CHECKING:
    from ranker.network import Network
    from ranker.network_choice import SharedNetwork

_NETWORK = "network.safetensors"
_TREES = "trees.txt"
_STACKED = "trees_stacked.txt"
_RESIDUAL = "trees_residual.txt"
_FUSION = "fusion.json"
_SCHEMA = "schema.json"
REPORT = "report"
# What a ranking adds to a model. None of it knows a row: features and product vectors are handed to the members.
RANKING = (_NETWORK, _TREES, _STACKED, _RESIDUAL, _FUSION, _SCHEMA, REPORT)
# The fusion of a model without members.
UNRANKED = "none"

# What scores with a network.
Compiled: TypeAlias = "CompiledNetwork | SharedNetwork"


class Scores(NamedTuple):
    """One list's scores, float64 [rows]: fused, the network's logits, and the plain trees' where the fusion reads them.

    A member's scores are None where it was not run. `prior` is what the recall's order added to `fused`, if it did.
    """

    fused: Doubles
    network: Doubles | None
    trees: Doubles | None
    prior: Doubles | None = None


@dataclass(frozen=True)
class Members:
    """What is fitted on the MEMBERS slice, and how it is fused.

    `weights` are the network's, `stacked` reads its logit as its last column; `residual` is added to its log-odds.
    `compile` makes of the weights what scores.
    """

    weights: Weights
    trees: Trees
    stacked: Trees
    residual: Trees
    fusion: Fusion
    compile: Callable[[Weights], Compiled] = CompiledNetwork

    def score(self, lists: Sequence[Scorable], space: Vectors, *, skip_network: bool = False) -> list[Scores]:
        """Scores of several lists in one pass through each member; without the network where there is no time for it.

        The trees then rank alone: those that were fitted to do without the logit, where the fusion has such.
        """
        if not lists:
            return []
        lengths = [len(item.rows) for item in lists]
        ends = np.cumsum(lengths)[:-1]
        matrix = np.concatenate([item.features for item in lists])
        if skip_network:
            alone = self._without_network(matrix)
            plain = None if self.fusion.kind == "stacking" else alone
            return _split(ends, alone, None, plain)
        logits = self.compiled_network.logits(lists, space)
        plain = self.trees.score(matrix) if self.fusion.kind in ("weighted", "rank") else None
        return _split(ends, self._fused(self.fusion.kind, matrix, logits, plain, ends), logits, plain)

    def fused(self, kind: str, matrix: Floats, logits: Doubles, lengths: Sequence[int]) -> Doubles:
        """The scores of one fusion, whether or not it is the chosen one, on the rows of some lists."""
        return self._fused(kind, matrix, logits, None, np.cumsum(lengths)[:-1])

    def _fused(self, kind: str, matrix: Floats, logits: Doubles, plain: Doubles | None, ends: Ints) -> Doubles:
        if kind == "stacking":
            return self.stacked.score(stacked_features(matrix, logits))
        if kind == "residual":
            return self.start(logits) + self.residual.score(matrix)
        plain = self.trees.score(matrix) if plain is None else plain
        if kind == "weighted":
            return self.fusion.weighted(logits, plain)
        return np.concatenate(
            [by_rank(*pair) for pair in zip(np.split(logits, ends), np.split(plain, ends), strict=True)]
        )

    def start(self, logits: Doubles) -> Doubles:
        """What the residual trees start from."""
        return self.fusion.log_odds["network"].log_odds(logits)

    def tree_scores(self, matrix: Floats) -> Doubles:
        """The plain ranker's scores of a few rows, to show them."""
        return self.trees.score(matrix)

    @cached_property
    def network(self) -> "Network":
        """The network as PyTorch runs it, for training and to compare with."""
        # Imported here: a server on the CPU starts more than a second earlier without PyTorch.
        from ranker.network import network_of

        return network_of(self.weights, features.PLACE)

    @cached_property
    def compiled_network(self) -> Compiled:
        """The network, ready to score; PyTorch on the CPU takes two to five times as long."""
        return self.compile(self.weights)

    def make_ready(self) -> None:
        """Lay out the network and the trees that will rank: the first request need not. Raises `SnapshotError`."""
        _ = self.compiled_network, self.trees.forest
        if self.fusion.kind == "stacking":
            _ = self.stacked.forest
        if self.fusion.kind == "residual":
            _ = self.residual.forest

    def _without_network(self, matrix: Floats) -> Doubles:
        if self.fusion.kind == "stacking":
            return self.stacked.score(stacked_features(matrix, np.full(len(matrix), np.nan)))
        return self.trees.score(matrix)

    def save(self, folder: Path) -> None:
        """Write the members, the fusion and the feature schema."""
        save_file(dict(self.weights), folder / _NETWORK)
        for trees, name in ((self.trees, _TREES), (self.stacked, _STACKED), (self.residual, _RESIDUAL)):
            trees.save(folder / name)
        write_json(folder / _FUSION, _plain(self.fusion))
        write_json(folder / _SCHEMA, {"fingerprint": features.fingerprint(), "features": features.NAMES})


def _split(ends: Ints, fused: Doubles, network: Doubles | None, trees: Doubles | None) -> list[Scores]:
    """The scores of each list; a list ends where the next begins."""
    parts = [[None] * (len(ends) + 1) if each is None else np.split(each, ends) for each in (fused, network, trees)]
    return [Scores(*each) for each in zip(*parts, strict=True)]


def stacked_features(matrix: Floats, logits: Doubles) -> Floats:
    """The feature matrix with the network's logit as its last column."""
    return np.column_stack([matrix, logits.astype(np.float32)])


@dataclass(frozen=True)
class Model:
    """A MODEL of the store, opened together with the INDEX it was trained on, or carried over to.

    `members` is None where the log was too short to learn a ranking from: what is recalled is served in that order.
    """

    id: str
    manifest: Mapping[str, Any]
    space: ProductSpace
    members: Members | None
    catalogue: Catalogue
    retrieval: Retrieval

    def served(self, kind: str, scores: Scores, recalled: Doubles) -> Scores:
        """The scores that order recalled candidates, whose own are `recalled`.

        Members that were fitted on judged or rated lists alone never saw a product that nobody was asked about, and
        most of what is recalled is such: there the recall's order counts as much as theirs (see decision 13). Those
        that were fitted on what was shown never saw what was not: there it counts a little (see decision 31).
        """
        if kind in self.manifest["answered"]:
            return scores._replace(fused=by_rank(scores.fused, recalled))
        # A model of an earlier program has no such entry.
        if self.members is None or kind not in self.manifest.get("shown", ()):
            return scores
        prior = self.members.fusion.prior(recalled, network=scores.network is not None)
        return scores._replace(fused=scores.fused + prior, prior=prior)


def load_model(store: Store, name: str, snapshot: IndexSnapshot, config: IndexerConfig) -> Model:
    """Open a model for `snapshot`, its DNN on the configured device where that is faster.

    Raises `SnapshotError`, naming both fingerprints, where they do not fit together, or where a file is missing or
    damaged.
    """
    manifest = store.manifest("models", name)
    folder = store.path("models", name)
    _check(manifest, name, snapshot)
    try:
        return _opened(folder, name, manifest, snapshot, config)
    except (OSError, EOFError, ValueError, SafetensorError) as error:
        raise SnapshotError(
            f"{folder} is damaged: {error}. Copy it anew, or go back: `vitrine release rollback`."
        ) from error


def _opened(
    folder: Path, name: str, manifest: Mapping[str, Any], snapshot: IndexSnapshot, config: IndexerConfig
) -> Model:
    space = load_space(folder, manifest["space"], config)
    recalled = manifest["recall"]
    compiled = partial(_compiled, space=space.vectors, rows=recalled["candidates"], wanted=config.device)
    members = None if manifest["fusion"] == UNRANKED else _load_members(folder, name, compiled)
    covisited = load_covisited(folder)
    # Without members nothing reads features, and nothing was saved for them.
    ease = load_ease(folder) if members else empty_ease(len(snapshot))
    catalogue = Catalogue(product_table(snapshot), snapshot.lexical, space.vectors, covisited, ease)
    retrieval = Retrieval(
        snapshot.index, snapshot.lexical, space.index, covisited, recalled["candidates"], recalled["weights"]
    )
    return Model(name, manifest, space, members, catalogue, retrieval)


def stored_report(store: Store, name: str) -> dict[str, Any] | None:
    """The figures of a model's training, of a carried one those of the model it was carried from.

    None where it has no ranking to measure.
    """
    if store.manifest("models", name)["fusion"] == UNRANKED:
        return None
    report: dict[str, Any] = json.loads((store.path("models", name) / REPORT / "report.json").read_text())
    return report


def _load_members(folder: Path, name: str, compiled: Callable[[Weights], Compiled]) -> Members:
    _check_schema(json.loads((folder / _SCHEMA).read_text()), name)
    members = Members(
        load_file(folder / _NETWORK),
        Trees.load(folder / _TREES),
        Trees.load(folder / _STACKED),
        Trees.load(folder / _RESIDUAL),
        _load_fusion(folder / _FUSION),
        compiled,
    )
    members.make_ready()
    return members


def _compiled(weights: Weights, space: Floats, rows: int, wanted: str) -> Compiled:
    """What scores lists of at most `rows` products of `space`, as a rule, on the device that is `wanted`."""
    device = card(wanted)
    if device is None:
        return CompiledNetwork(weights)
    # Imported here, as PyTorch is.
    from ranker.network import network_of
    from ranker.network_choice import on_card

    return on_card(network_of(weights, features.PLACE), space, rows, device)


def _check(manifest: Mapping[str, Any], name: str, snapshot: IndexSnapshot) -> None:
    if manifest["encoder"] != snapshot.encoder_fingerprint:
        raise SnapshotError(
            f"Model {name} was trained with encoder {manifest['encoder']}, index {snapshot.id} was built with encoder "
            f"{snapshot.encoder_fingerprint}: their vectors cannot be compared. Train on this index: `vitrine train`."
        )
    if manifest["index"] != snapshot.id:
        raise SnapshotError(
            f"Model {name} is bound to index {manifest['index']}, not to {snapshot.id}: their rows are different "
            "products. Train on this index: `vitrine train`."
        )


def _check_schema(schema: Mapping[str, Any], name: str) -> None:
    if schema["fingerprint"] != features.fingerprint():
        changed = sorted(set(schema["features"]) ^ set(features.NAMES))
        raise SnapshotError(
            f"Model {name} has feature schema {schema['fingerprint']}, this program makes {features.fingerprint()} "
            f"(differing columns: {', '.join(changed) or 'their order'}). Train again: `vitrine train`."
        )


def _plain(fusion: Fusion) -> dict[str, Any]:
    calibration = {scorer: isotonic._asdict() for scorer, isotonic in fusion.calibration.items()}
    return fusion._asdict() | {"calibration": calibration}


def _load_fusion(path: Path) -> Fusion:
    raw = json.loads(path.read_text())
    return Fusion(
        raw["kind"],
        raw["alpha"],
        {scorer: Platt(*values) for scorer, values in raw["log_odds"].items()},
        {scorer: Isotonic(**corners) for scorer, corners in raw["calibration"].items()},
        raw["thresholds"],
    )
