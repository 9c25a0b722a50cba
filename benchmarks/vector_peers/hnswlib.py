"""hnswlib, the HNSW of the method's authors, in the caller's process."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
from numpy.typing import NDArray

from vector_peers.adapter import Adapter, Ask, Data, Settings


class Hnswlib:
    """Inner products in float32, one thread a search."""

    packages = ("hnswlib", "numpy")
    builds = ({"M": 16, "ef_construction": 200}, {"M": 32, "ef_construction": 200})
    searches = tuple({"ef": ef} for ef in (100, 125, 150, 200, 250, 300, 350, 400, 500, 600, 800))
    recalls = True

    def __init__(self, data: Data) -> None:
        self._data = data

    def build(self, settings: Settings, folder: Path) -> None:
        """In memory, with every core."""
        rows, dimensions = self._data.vectors.shape
        self._index = hnswlib.Index(space="ip", dim=dimensions)
        self._index.init_index(max_elements=rows, random_seed=0, **settings)
        self._index.add_items(np.asarray(self._data.vectors), np.arange(rows))

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """ef is the index's, and the same for all callers."""
        self._index.set_ef(settings["ef"])
        index, queries, k = self._index, self._data.queries, self._data.k
        return lambda i: index.knn_query(queries[i], k=k, num_threads=1)[0][0]

    def rows(self, answer: Any) -> NDArray[np.int64]:
        """Labels are rows."""
        return np.asarray(answer, np.int64)

    def close(self) -> None:
        """Nothing was started."""


def make(data: Data) -> Adapter:
    """The adapter."""
    return Hnswlib(data)
