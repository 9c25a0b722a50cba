"""The obvious monolith: what a shop gets by calling the libraries one after the other, in process, without a network.

sentence-transformers float32 -> FAISS HNSW -> features -> `Booster.predict` -> PyTorch eager -> weighted fusion, one
request at a time, every library with its own default threads. `whole.py` starts it. Two variants:

`ranked` scores the same candidates' real features with the shop's own trees, network and fusion. The features come
from `ranker.features.matrix`, so that only the use of the libraries is compared; with features of its own it would be
slower. `bare` makes no features: trees and network get ready random arrays of the same shapes, and nothing is fused.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from side import report, timed

from indexer.dense import FILE
from indexer.encoder import load_sentence_transformer, resolve
from indexer.store import Store
from indexer.tuned import model_folder
from ranker import features
from ranker.history import EMPTY
from ranker.network import NetworkInput, network_input
from ranker.scoring import Scorable
from server.app import open_live
from server.config import Settings, load_settings
from server.state import State

TOP = 24
_COUNTED = 2_000


class Monolith:
    """One process, one request at a time."""

    def __init__(self, settings: Settings) -> None:
        threads = torch.get_num_threads(), faiss.omp_get_max_threads()
        self.state = open_live(settings).state
        # Opening a release pins PyTorch and FAISS to one thread; who calls the libraries has their defaults.
        torch.set_num_threads(threads[0])
        faiss.omp_set_num_threads(threads[1])
        if self.state.model.members is None:
            raise SystemExit(f"Model {self.state.model.id} has no ranking to measure.")
        self.members = self.state.model.members
        self.encoder = load_sentence_transformer(_weights(settings, self.state), torch.device("cpu"))
        self.candidates = min(self.state.model.retrieval.candidates, len(self.state.snapshot))
        self.index, self._rows = _graph(self.state)
        self.index.hnsw.efSearch = self.candidates
        rng = np.random.default_rng(0)
        self._matrix = rng.normal(size=(self.candidates, len(features.NAMES))).astype(np.float32)
        self._input = _random_input(self._matrix, int(self.state.model.space.projection.shape[0]), rng)

    def ranked(self, query: str) -> np.ndarray:
        """The rows of the page."""
        vector, rows = self._found(query)
        model, behaviour = self.state.model, self.state.behaviour
        context = model.space.context(self.state.now(), EMPTY, query, vector)
        matrix = features.matrix(context, rows, model.catalogue, behaviour)
        trees = self.members.trees.booster.predict(matrix)
        with torch.inference_mode():
            network = self.members.network(network_input([Scorable(context, rows, matrix)], model.space.vectors))
        fused = self.members.fusion.weighted(network.numpy(), trees)
        return rows[np.argsort(-fused)[:TOP]]

    def bare(self, query: str) -> None:
        """Every library called once, on arrays that are there."""
        self._found(query)
        self.members.trees.booster.predict(self._matrix)
        with torch.inference_mode():
            self.members.network(self._input)

    def tokens(self, queries: Sequence[str]) -> float:
        """The mean length of queries in the encoder's tokens, its two marks included."""
        return float(np.mean([len(ids) for ids in self.encoder.tokenizer(list(queries))["input_ids"]]))

    def _found(self, query: str) -> tuple[np.ndarray, np.ndarray]:
        vector = self.encoder.encode(query)
        _, places = self.index.search(vector[None], self.candidates)
        return vector, self._rows[places[0][places[0] >= 0]]


def _weights(settings: Settings, state: State) -> Path:
    """The model folder that the index was built with."""
    tuned = state.snapshot.manifest["encoder"].get("tuned")
    return model_folder(Store(settings.store), tuned["id"]) if tuned else resolve(settings.indexer.encoder)


def _graph(state: State) -> tuple[Any, np.ndarray]:
    """HNSW over the titles, in memory, and the rows of its places: the shop's own graph, else one with 32 neighbours.

    Without FAISS's map from places to rows: that starts a team of OpenMP threads for each search, which wait for those
    of PyTorch, and a search takes eight milliseconds.
    """
    if state.snapshot.index.kind.startswith("HNSW"):
        index = faiss.read_index(str(state.snapshot.folder / FILE))
        if not isinstance(index, faiss.IndexIDMap):
            return index, np.arange(len(state.snapshot))
        graph = faiss.downcast_index(index.index)
        graph.referenced_objects = [index]  # It would free the graph with itself.
        return graph, faiss.vector_to_array(index.id_map)
    index = faiss.IndexHNSWFlat(state.snapshot.index.dimensions, 32, faiss.METRIC_INNER_PRODUCT)
    index.add(np.ascontiguousarray(state.snapshot.vectors))
    return index, np.arange(len(state.snapshot))


def _random_input(matrix: np.ndarray, space: int, rng: np.random.Generator) -> NetworkInput:
    """A request without a history, as `ranked` has."""

    def vectors(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.normal(size=(*shape, space)).astype(np.float32))

    return NetworkInput(
        features=torch.from_numpy(matrix),
        candidates=vectors(len(matrix)),
        request=torch.zeros(len(matrix), dtype=torch.int64),
        queries=vectors(1),
        history=vectors(1, 1),
        ages=torch.zeros((1, 1), dtype=torch.int64),
        present=torch.zeros((1, 1), dtype=torch.bool),
    )


def main() -> None:
    """Load the live release, then measure both variants on the word."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, required=True, help="The shop's vitrine.toml.")
    parser.add_argument("--queries", type=Path, required=True, help="Text file, one query a line.")
    parser.add_argument("--seconds", type=float, default=3.0, help="Seconds that count, of each variant (default 3).")
    given = parser.parse_args()
    queries = given.queries.read_text(encoding="utf-8").splitlines()
    monolith = Monolith(load_settings(given.config))
    told = {
        "candidates": monolith.candidates,
        "torch_threads": torch.get_num_threads(),
        "faiss_threads": faiss.omp_get_max_threads(),
        "mean_query_tokens": round(monolith.tokens(queries[:_COUNTED]), 2),
    }

    def measure() -> dict[str, Any]:
        half = len(queries) // 2
        return told | {
            "bare": timed(lambda batch: monolith.bare(batch[0]), queries[:half], 1, given.seconds),
            "ranked": timed(lambda batch: monolith.ranked(batch[0]), queries[half:], 1, given.seconds),
        }

    report(measure)


if __name__ == "__main__":
    main()
