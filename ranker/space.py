"""The product space of a model: products, queries and users as vectors of one space, and the index that searches it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from indexer.arrays import Floats, mapped
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex, open_index
from indexer.index import Index
from indexer.kinds import chosen_kind
from indexer.text import query_key
from indexer.tuning import filled
from ranker.features import Context
from ranker.history import EMPTY, History
from ranker.user_tower import UserTower, in_space, user_vector

_TOWER = "user_tower.safetensors"
_PRODUCTS = "products.npy"


@dataclass(frozen=True)
class ProductSpace:
    """`vectors` float32 [products, space], `projection` float32 [space, title]; no tower where there was no log."""

    tower: UserTower | None
    projection: Floats
    vectors: Floats
    index: Index

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
        return user_vector(self.tower, self.vectors, history, now)

    def save(self, folder: Path) -> dict[str, object]:
        """Write user_tower.safetensors, products.npy and the index; returns the manifest's entry."""
        tensors = {"projection": torch.from_numpy(np.array(self.projection))}
        if self.tower is not None:
            tensors |= {f"tower.{name}": tensor.contiguous() for name, tensor in self.tower.state_dict().items()}
        save_file(tensors, folder / _TOWER)
        np.save(folder / _PRODUCTS, self.vectors)
        self.index.save(folder)
        entry = {"index": self.index.kind, "space": int(self.projection.shape[0]), "tower": self.tower is not None}
        return entry | {"tuning": self.index.tuning.told()} if isinstance(self.index, DenseIndex) else entry


def make_space(tower: UserTower | None, projection: Floats, vectors: Floats, config: IndexerConfig) -> ProductSpace:
    """The space over `vectors`, indexed as the titles are."""
    index, _ = filled(chosen_kind(config, *vectors.shape), vectors, config)
    return ProductSpace(tower, projection, vectors, index)


def load_space(folder: Path, entry: dict[str, Any], config: IndexerConfig) -> ProductSpace:
    """Open what `ProductSpace.save` wrote."""
    tensors = load_file(folder / _TOWER)
    projection = tensors.pop("projection")
    tower = None
    if entry["tower"]:
        tower = UserTower(projection.shape[1], projection.shape[0])
        tower.load_state_dict({name.removeprefix("tower."): tensor for name, tensor in tensors.items()})
        tower.eval()
    vectors = mapped(folder / _PRODUCTS)
    index = open_index(entry["index"], folder, vectors, config, entry.get("tuning"))
    return ProductSpace(tower, projection.numpy(), vectors, index)
