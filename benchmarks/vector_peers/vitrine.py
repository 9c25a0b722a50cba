"""Vitrine in the caller's process, on the newest index of a store or on its live release."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.dense import open_index
from indexer.snapshot import open_latest
from indexer.store import Store
from server import pipeline
from server.app import open_live
from server.config import Settings as Shop
from server.config import load_settings
from server.pipeline import Ask as Asked
from vector_peers.adapter import Adapter, Ask, Data, Settings

_WIDTHS = (100, 125, 150, 200, 250, 300, 350, 400, 500, 600, 800)
_LISTS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)


def searches_of(kind: str) -> list[Settings]:
    """What can be set at an index of this kind, the cheapest first."""
    if kind.startswith("HNSW"):
        return [{"ef_search": width} for width in _WIDTHS]
    return [{"nprobe": lists} for lists in _LISTS] if "IVF" in kind else [{}]


class _InProcess:
    packages = ("vitrine", "faiss-cpu", "bm25s", "numpy")
    recalls = False

    def __init__(self, data: Data, shop: Shop) -> None:
        self._data, self._shop = data, shop
        self.builds: list[Settings] = [{"as": "the store has it"}]
        self.searches: list[Settings] = [{}]

    def build(self, settings: Settings, folder: Path) -> None:
        """The store is built."""

    def rows(self, answer: Any) -> NDArray[np.int64]:
        """Rows as they are."""
        return np.asarray(answer, np.int64)

    def close(self) -> None:
        """Nothing was started."""


class Dense(_InProcess):
    """The index of the titles' vectors."""

    recalls = True

    def __init__(self, data: Data, shop: Shop) -> None:
        super().__init__(data, shop)
        self._snapshot = open_latest(Store(shop.store), shop.indexer)
        self.builds = [{"index": self._snapshot.index.kind}]
        self.searches = searches_of(self._snapshot.index.kind)

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """The same mapped files with other search settings."""
        held, config = self._snapshot, self._shop.indexer.model_copy(update=dict(settings))
        index = open_index(held.index.kind, held.folder, held.vectors, config)
        queries, k = self._data.queries, self._data.k
        return lambda i: index.search(queries[i : i + 1], k).rows[0]


class Lexical(_InProcess):
    """The index of the words of titles and text columns."""

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """Spelling included."""
        lexical = open_latest(Store(self._shop.store), self._shop.indexer).lexical
        texts, k = self._data.texts, self._data.k
        return lambda i: lexical.search(texts[i], k).rows


class Pipeline(_InProcess):
    """The request path of the live release: a query in words to a page."""

    def __init__(self, data: Data, shop: Shop) -> None:
        super().__init__(data, shop)
        self._live = open_live(shop)
        self.searches = [{"candidates": self._live.state.model.retrieval.candidates}]

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """One request at a time, as a server's worker thread answers it."""
        state, texts = self._live.state, self._data.texts
        return lambda i: pipeline.search(state, [Asked(query=texts[i])])[0].hits

    def close(self) -> None:
        """Close the journal."""
        self._live.journal.close()


def make(data: Data) -> Adapter:
    """The adapter of `options["stage"]`: dense, lexical or pipeline."""
    shop = load_settings(Path(data.options["config"]))
    stage = {"dense": Dense, "lexical": Lexical, "pipeline": Pipeline}[data.options["stage"]]
    return stage(data, shop)
