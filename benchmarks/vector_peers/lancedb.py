"""LanceDB: a table on disk with an HNSW of quantised vectors, opened in the caller's process."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vector_peers.adapter import Adapter, Ask, Data, Settings


class Lance:
    """One partition, so that no probing costs recall; 8-bit vectors."""

    packages = ("lancedb", "pyarrow", "numpy")
    builds = ({"index_type": "IVF_HNSW_SQ", "num_partitions": 1, "m": 20, "ef_construction": 300},)
    searches = (
        *({"ef": ef, "refine_factor": None} for ef in (100, 125, 150, 200, 250, 300, 350, 400)),
        *({"ef": ef, "refine_factor": 2} for ef in (200, 300, 400, 600, 800)),
    )
    recalls = True

    def __init__(self, data: Data) -> None:
        self._data = data

    def build(self, settings: Settings, folder: Path) -> None:
        """A table of ids and vectors, and its index."""
        rows, dimensions = self._data.vectors.shape
        flat = pa.array(np.asarray(self._data.vectors).reshape(-1))
        columns = {"id": pa.array(np.arange(rows)), "vector": pa.FixedSizeListArray.from_arrays(flat, dimensions)}
        self._table = lancedb.connect(folder).create_table("titles", pa.table(columns))
        self._table.create_index(metric="dot", **settings)

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """The table is safe to ask from several threads."""
        table, queries, k = self._table, self._data.queries, self._data.k
        ef, refine = settings["ef"], settings["refine_factor"]

        def ask(i: int) -> Any:
            query = table.search(queries[i], vector_column_name="vector").distance_type("dot").select(["id"])
            query = query.limit(k).nprobes(1).ef(ef)
            return (query if refine is None else query.refine_factor(refine)).to_arrow()["id"].to_numpy()

        return ask

    def rows(self, answer: Any) -> NDArray[np.int64]:
        """Ids are rows."""
        return np.asarray(answer, np.int64)

    def close(self) -> None:
        """Nothing was started."""


def make(data: Data) -> Adapter:
    """The adapter."""
    return Lance(data)
