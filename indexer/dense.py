"""Approximate search: any FAISS index by factory string, with filters answered inside it or exactly beside it."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from indexer.arrays import Floats, Mask
from indexer.config import IndexerConfig
from indexer.errors import ConfigError, SnapshotError
from indexer.exact import ExactIndex
from indexer.index import NOTHING, Index, Neighbours

FILE = "dense.faiss"
# FAISS asks for about 39 training vectors a centroid; more than 256 a centroid it throws away itself.
_TRAIN_ROWS = 200_000


class DenseIndex:
    """A FAISS index of `vectors`, and the exact index of the same vectors for selective filters.

    A graph or an inverted file loses recall under a filter that keeps little (HNSW keeping 1 % of 100,000: 0.23), while
    the exact product over the few kept rows is cheap: below `exact_below_share` the filter is answered that way.
    """

    def __init__(self, kind: str, index: Any, vectors: Floats, config: IndexerConfig) -> None:
        self.kind = kind
        self._index = index
        self._exact = ExactIndex(vectors)
        self._config = config
        # Making the parameters takes a tenth of a search; without a filter they are the same each time.
        self._unfiltered = lru_cache(8)(lambda k: self._parameters(self._index, k, None))

    @classmethod
    def build(cls, kind: str, vectors: Floats, config: IndexerConfig) -> "DenseIndex":
        """Train on a sample of `vectors` and leave the index empty; `extended` fills it."""
        try:
            index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise ConfigError(f'indexer.index = "{kind}" is not a FAISS factory string: {error}') from error
        if not index.is_trained:
            sample = np.random.default_rng(0).permutation(len(vectors))[:_TRAIN_ROWS]
            try:
                index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
            except RuntimeError as error:
                raise ConfigError(
                    f'indexer.index = "{kind}" cannot be trained on {len(vectors)} vectors: {error}. Use "auto".'
                ) from error
        empty = cls(kind, index, vectors[:0], config)
        try:
            # Better now than at the first filtered request.
            empty._search(vectors[:1], 1, faiss.IDSelectorAll())
        except RuntimeError as error:
            raise ConfigError(
                f'indexer.index = "{kind}" cannot be searched under a filter: {error}. Use "auto", HNSW or IVF.'
            ) from error
        return empty

    @classmethod
    def load(cls, kind: str, folder: Path, vectors: Floats, config: IndexerConfig) -> "DenseIndex":
        """Open what `save` wrote, memory-mapped: processes that serve one index share it.

        Raises `SnapshotError` where it does not hold as many rows as `vectors`.
        """
        try:
            index = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise SnapshotError(f"{folder / FILE} cannot be read: {error}. Build the index again.") from error
        if index.ntotal != len(vectors):
            raise SnapshotError(
                f"{folder / FILE} holds {index.ntotal} vectors, {len(vectors)} expected. Build the index again."
            )
        return cls(kind, index, vectors, config)

    def extended(self, vectors: Floats) -> "DenseIndex":
        """This index filled up to all of `vectors`, of which it already holds the first `len(self)`."""
        self._index.add(np.ascontiguousarray(vectors[len(self) :]))
        return DenseIndex(self.kind, self._index, vectors, self._config)

    @property
    def dimensions(self) -> int:
        return int(self._index.d)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """See `Index.search`."""
        if mask is None:
            return self._search(queries, k, None)
        kept = int(np.count_nonzero(mask))
        if kept <= max(self._config.exact_below_share * len(self), k):
            return self._exact.search(queries, k, mask)
        bits = np.packbits(mask, bitorder="little")
        return self._search(queries, k, faiss.IDSelectorBitmap(bits))

    def _search(self, queries: Floats, k: int, selector: Any) -> Neighbours:
        parameters = self._unfiltered(k) if selector is None else self._parameters(self._index, k, selector)
        found = max(min(k, len(self)), 1)
        scores, rows = self._index.search(np.ascontiguousarray(queries, np.float32), found, params=parameters)
        if found < k:
            missing = ((0, 0), (0, k - found))
            rows = np.pad(rows, missing, constant_values=NOTHING)
            scores = np.pad(scores, missing)
        scores[rows == NOTHING] = -np.inf
        return Neighbours(rows, scores)

    def _parameters(self, index: Any, k: int, selector: Any) -> Any:
        """Search parameters of the index's own type; HNSW returns fewer than k rows when efSearch is below k."""
        index = faiss.downcast_index(index)
        if isinstance(index, faiss.IndexPreTransform):
            return faiss.SearchParametersPreTransform(index_params=self._parameters(index.index, k, selector))
        if isinstance(index, faiss.IndexHNSW):
            # A filter makes a share of the visited rows useless: look at twice as many.
            width = max(self._config.ef_search, k) * (1 if selector is None else 2)
            return faiss.SearchParametersHNSW(efSearch=width, sel=selector)
        if isinstance(index, faiss.IndexIVF):
            return faiss.SearchParametersIVF(nprobe=self._config.nprobe, sel=selector)
        return None if selector is None else faiss.SearchParameters(sel=selector)

    def save(self, folder: Path) -> None:
        """Write dense.faiss."""
        faiss.write_index(self._index, str(folder / FILE))


def chosen_kind(config: IndexerConfig, rows: int) -> str:
    """The index kind for a catalogue of `rows` products."""
    if config.index != "auto":
        return config.index
    return "exact" if rows <= config.exact_up_to else "HNSW32"


def open_index(kind: str, folder: Path, vectors: Floats, config: IndexerConfig) -> Index:
    """The index of `kind` saved in `folder` over `vectors`."""
    return ExactIndex(vectors) if kind == "exact" else DenseIndex.load(kind, folder, vectors, config)
