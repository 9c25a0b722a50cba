"""USearch, an HNSW with vectors in bfloat16, in the caller's process."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from usearch.index import Index

from vector_peers.adapter import Adapter, Ask, Data, Settings


class USearch:
    """Inner products, one thread a search."""

    packages = ("usearch", "numkong", "numpy")
    builds = (
        {"dtype": "bf16", "connectivity": 16, "expansion_add": 128},
        {"dtype": "bf16", "connectivity": 32, "expansion_add": 128},
        {"dtype": "f32", "connectivity": 32, "expansion_add": 128},
    )
    searches = tuple(
        {"expansion_search": width} for width in (64, 80, 100, 125, 150, 200, 250, 300, 350, 400, 500, 600, 800)
    )
    recalls = True

    def __init__(self, data: Data) -> None:
        self._data = data

    def build(self, settings: Settings, folder: Path) -> None:
        """In memory, with every core."""
        rows, dimensions = self._data.vectors.shape
        self._index = Index(ndim=dimensions, metric="ip", **settings)
        self._index.add(np.arange(rows), np.asarray(self._data.vectors))

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """The width is the index's, and the same for all callers."""
        self._index.expansion_search = settings["expansion_search"]
        index, queries, k = self._index, self._data.queries, self._data.k
        return lambda i: index.search(queries[i], k, threads=1).keys

    def rows(self, answer: Any) -> NDArray[np.int64]:
        """Keys are rows."""
        return np.asarray(answer, np.int64)

    def close(self) -> None:
        """Nothing was started."""


def make(data: Data) -> Adapter:
    """The adapter."""
    return USearch(data)
