"""The product space of a model: products, queries and users as vectors of one space, and the index that searches it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from indexer.amended import Amended, Vectors
from indexer.arrays import Floats, mapped
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex, open_index
from indexer.index import Index
from indexer.kinds import chosen_kind
from indexer.text import query_key
from indexer.tuning import filled
from ranker.compiled_tower import CompiledTower
from ranker.features import Context
from ranker.history import EMPTY, History

_TOWER = "user_tower.safetensors"
_PRODUCTS = "products.npy"


@dataclass(frozen=True)
class ProductSpace:
    """`vectors` float32 [products, space], `projection` float32 [space, title]; no tower where there was no log.

    `amended` are those of all rows where some were amended since, which the index knows nothing of.
    """

    tower: CompiledTower | None
    projection: Floats
    vectors: Floats
    index: Index
    amended: Amended | None = None

    @property
    def all_vectors(self) -> Vectors:
        """Those of all rows."""
        return self.vectors if self.amended is None else self.amended

    def context(
        self,
        now: float,
        history: History,
        query: str = "",
        query_vector: Floats | None = None,
        disliked: History = EMPTY,
    ) -> Context:
        """One request's context: training and serving both make it here."""
        return Context(
            now=now,
            history=history,
            disliked=disliked,
            query=query,
            query_key=query_key(query),
            query_vector=query_vector,
            query_in_space=None if query_vector is None else in_space(self.projection, query_vector),
            user_vector=self._user_vector(history, now),
        )

    def _user_vector(self, history: History, now: float) -> Floats | None:
        if self.tower is None or not history.rows:
            return None
        return self.tower.user_vector(self.all_vectors, history, now)

    def save(self, folder: Path) -> dict[str, object]:
        """Write user_tower.safetensors, products.npy and the index; returns the manifest's entry."""
        arrays = {"projection": np.ascontiguousarray(self.projection)}
        if self.tower is not None:
            arrays |= {f"tower.{name}": array for name, array in self.tower.weights.items()}
        save_file(arrays, folder / _TOWER)
        np.save(folder / _PRODUCTS, self.vectors)
        self.index.save(folder)
        entry = {"index": self.index.kind, "space": int(self.projection.shape[0]), "tower": self.tower is not None}
        return entry | {"tuning": self.index.tuning.told()} if isinstance(self.index, DenseIndex) else entry


def make_space(tower: CompiledTower | None, projection: Floats, vectors: Floats, config: IndexerConfig) -> ProductSpace:
    """The space over `vectors`, indexed as the titles are."""
    index, _ = filled(chosen_kind(config, *vectors.shape), vectors, config)
    return ProductSpace(tower, projection, vectors, index)


def load_space(folder: Path, entry: dict[str, Any], config: IndexerConfig) -> ProductSpace:
    """Open what `ProductSpace.save` wrote."""
    arrays = load_file(folder / _TOWER)
    projection = arrays.pop("projection")
    weights = {name.removeprefix("tower."): array for name, array in arrays.items()}
    tower = CompiledTower(weights) if entry["tower"] else None
    vectors = mapped(folder / _PRODUCTS)
    index = open_index(entry["index"], folder, vectors, config, entry.get("tuning"))
    return ProductSpace(tower, projection, vectors, index)


def in_space(projection: Floats, vector: Floats) -> Floats:
    """A title or query vector [title] as a unit vector [space]; `projection` is the tower's weight [space, title]."""
    projected = projection @ vector
    return np.asarray(projected / max(float(np.linalg.norm(projected)), 1e-12), np.float32)


def all_in_space(projection: Floats, vectors: Floats) -> Floats:
    """Title vectors [products, title] as unit vectors [products, space]: products of which nothing was learnt."""
    projected = np.asarray(vectors @ projection.T)
    return np.asarray(projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-12), np.float32)


def moved_in_space(projection: Floats, vectors: Floats, before: Floats, after: Floats) -> Floats:
    """What `vectors` [products, space] become where titles' vectors [products, title] change from `before` to `after`.

    Training makes a product's vector as unit(projection of the title + residual), so this is the new projection with
    the same residual: what the vector was away from the old projection, none for a product that nobody engaged with.
    """
    moved = all_in_space(projection, after) + (vectors - all_in_space(projection, before))
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12), np.float32)


def principal_projection(vectors: Floats, space: int) -> Floats:
    """The projection [space, title] on the titles' principal axes: the product space of a shop without a log."""
    sample = np.asarray(vectors[:20_000], np.float32)
    axes = np.linalg.svd(sample, full_matrices=False)[2]
    axes = axes[: min(space, len(axes))]
    return np.asarray(np.pad(axes, ((0, space - len(axes)), (0, 0))), np.float32)
