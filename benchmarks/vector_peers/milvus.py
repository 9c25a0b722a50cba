"""Milvus Lite through pymilvus: a database in a file."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient

from vector_peers.adapter import Adapter, Ask, Data, Settings

_INSERTED = 5_000


class Milvus:
    """HNSW by inner product; an answer is ids and scores."""

    packages = ("milvus-lite", "pymilvus", "faiss-cpu", "numpy")
    builds = ({"M": 16, "efConstruction": 200},)
    searches = tuple({"ef": ef} for ef in (100, 125, 150, 200, 250, 300, 350, 400, 500, 600, 800))
    recalls = True

    def __init__(self, data: Data) -> None:
        self._data = data
        self._client: MilvusClient | None = None

    def build(self, settings: Settings, folder: Path) -> None:
        """A collection of ids and vectors, indexed and loaded."""
        vectors = self._data.vectors
        self._client = client = MilvusClient(str(folder / "milvus.db"))
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
        client.create_collection("titles", schema=schema)
        for start in range(0, len(vectors), _INSERTED):
            part = np.asarray(vectors[start : start + _INSERTED])
            client.insert("titles", [{"id": start + i, "vector": row} for i, row in enumerate(part)])
        client.flush("titles")
        index = client.prepare_index_params()
        index.add_index("vector", index_type="HNSW", metric_type="IP", params=dict(settings))
        client.create_index("titles", index)
        client.load_collection("titles")

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """The client is safe to ask from several threads."""
        client, queries, k = self._client, self._data.queries, self._data.k
        if client is None:
            raise RuntimeError("Milvus is asked before it is built.")
        parameters = {"metric_type": "IP", "params": dict(settings)}

        def ask(i: int) -> Any:
            return client.search("titles", data=[queries[i].tolist()], limit=k, search_params=parameters)[0]

        return ask

    def rows(self, answer: Any) -> NDArray[np.int64]:
        """Ids are rows."""
        return np.array([hit["id"] for hit in answer], np.int64)

    def close(self) -> None:
        """Close the file."""
        if self._client is not None:
            self._client.close()


def make(data: Data) -> Adapter:
    """The adapter."""
    return Milvus(data)
