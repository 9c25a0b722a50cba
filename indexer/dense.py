"""Approximate search: any FAISS index by factory string, with filters answered inside it or exactly beside it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from indexer.arrays import Floats, Mask
from indexer.config import IndexerConfig, links_of
from indexer.device import card
from indexer.errors import ConfigError, SnapshotError
from indexer.exact import ExactIndex
from indexer.index import NOTHING, Index, Neighbours, one_by_one
from indexer.locality import by_neighbourhood
from indexer.planner import NEIGHBOURS, Tuning
from indexer.remote import in_use

FILE = "dense.faiss"
# FAISS asks for about 39 training vectors a centroid; more than 256 a centroid it throws away itself.
_TRAIN_ROWS, _TRAIN_ROWS_A_LIST = 200_000, 40
# Rows added at a time: they are copied, and the copy of 65,536 of 384 dimensions takes 96 MiB.
_BLOCK = 65_536
# Of an index that was not tuned.
_EF_SEARCH = 128
_NPROBE = 32
# What keeps codes in place of vectors only estimates its scores: the best of so many rows, and of so many times k, are
# scored anew. Of a million titles, four bits for two components, 0.980 of the 100 nearest are among the best 800. Codes
# of what is left beside a list's centre are more exact: 0.980 are among the best 500.
_RESCORED, _RESCORED_TIMES = 800, 4.0
_RESIDUAL_RESCORED, _RESIDUAL_TIMES = 500, 2.5
# From so many lists on, their centres are searched by codes; of half as many again as are wanted, and of so many at
# least, the scores are then exact.
_QUICK_LISTS, _QUICK_TIMES, _QUICK_LEAST = 1_024, 1.5, 64
_EF_LADDER = (16, 32, 64, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800, 1_024, 1_280)


class DenseIndex:
    """A FAISS index of `vectors`, searched as `tuning` says, and their exact index for what it leaves to that.

    A graph or an inverted file loses recall under a filter that keeps little of what is near the query (HNSW, where it
    keeps 1 % of it: 0.1), while the exact product over few kept rows is cheap.
    """

    def __init__(
        self, kind: str, index: Any, vectors: Floats, config: IndexerConfig, tuning: Tuning | None = None
    ) -> None:
        self.kind = kind
        self._index = index
        self._vectors = vectors
        self._exact = ExactIndex(vectors)
        self._config = config
        self._inner = _inner(index)
        self._graph = isinstance(self._inner, faiss.IndexHNSW)
        self._coded = _coded(index)
        self.tuning = self._overruled(tuning or Tuning(config.recall_target, self._untuned()))
        # Making the parameters takes a tenth of a search; without a filter they are the same each time. Of `index`, not
        # of this object: it would refer to itself and, once dropped, hold its memory until a collection.
        self._unfiltered = lru_cache(8)(lambda effort: _parameters(index, effort, None))

    @classmethod
    def build(cls, kind: str, vectors: Floats, config: IndexerConfig) -> "DenseIndex":
        """Train on a sample of `vectors` and leave the index empty; `extended` fills it."""
        if links := links_of(kind):
            # Imported where it is used, as PyTorch is.
            from indexer import card_graph

            # Better now than when it is to be filled.
            card_graph.card_for(links, config.device)
            return cls(kind, card_graph.empty(links, vectors.shape[1]), vectors[:0], config)
        try:
            index = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise ConfigError(f'indexer.index = "{kind}" is not a FAISS factory string: {error}') from error
        if isinstance(inner := _inner(index), faiss.IndexHNSW):
            inner.hnsw.efConstruction = config.ef_construction
        if isinstance(index, faiss.IndexHNSW):
            # Places in memory of its own choice: neighbours side by side make a search 8 to 17 % quicker.
            index = faiss.IndexIDMap(index)
        if not index.is_trained:
            rows = max(_TRAIN_ROWS, _TRAIN_ROWS_A_LIST * getattr(inner, "nlist", 0))
            sample = np.random.default_rng(0).permutation(len(vectors))[:rows]
            try:
                index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
            except RuntimeError as error:
                raise ConfigError(
                    f'indexer.index = "{kind}" cannot be trained on {len(vectors)} vectors: {error}. Use "auto".'
                ) from error
        if isinstance(inner, faiss.IndexIVF) and inner.nlist >= _QUICK_LISTS:
            _quicken(inner)
        empty = cls(kind, index, vectors[:0], config)
        try:
            # Better now than at the first filtered request.
            empty._search(1, vectors[:1], 1, faiss.IDSelectorAll())
        except RuntimeError as error:
            raise ConfigError(
                f'indexer.index = "{kind}" cannot be searched under a filter: {error}. Use "auto", HNSW or IVF.'
            ) from error
        return empty

    @classmethod
    def load(
        cls, kind: str, folder: Path, vectors: Floats, config: IndexerConfig, tuning: Tuning | None = None
    ) -> "DenseIndex":
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
        return cls(kind, index, vectors, config, tuning)

    def extended(self, vectors: Floats) -> "DenseIndex":
        """This index filled up to all of `vectors`, of which it already holds the first `len(self)`.

        To a graph built on a card nothing can be added: it is built again.
        """
        if len(vectors) > len(self) and (links := links_of(self.kind)):
            from indexer import card_graph

            index = card_graph.built(links, vectors, card_graph.card_for(links, self._config.device))
            return DenseIndex(self.kind, index, vectors, self._config, self.tuning)
        for start in range(len(self), len(vectors), _BLOCK):
            self._add(start, vectors[start : start + _BLOCK])
        return DenseIndex(self.kind, self._index, vectors, self._config, self.tuning)

    def _add(self, start: int, block: Floats) -> None:
        """A sorted block is a fair sample of a catalogue in no order, so the graph is not built group by group."""
        if isinstance(self._inner, faiss.IndexIVF) and (centres := exact_centres(self._inner)) is not None:
            # A row that is not in the nearest list is not found where it is looked for.
            quick, self._inner.quantizer = self._inner.quantizer, centres
            try:
                self._index.add(np.ascontiguousarray(block))
            finally:
                self._inner.quantizer = quick
        elif isinstance(self._index, faiss.IndexIDMap):
            order = by_neighbourhood(block)
            self._index.add_with_ids(np.ascontiguousarray(block[order]), start + order)
        else:
            self._index.add(np.ascontiguousarray(block))

    def with_tuning(self, tuning: Tuning) -> "DenseIndex":
        """The same index, searched as `tuning` says."""
        return DenseIndex(self.kind, self._index, self._vectors, self._config, tuning)

    @property
    def lists(self) -> Any | None:
        """The `faiss.IndexIVFPQFastScan` that it is; None where it is of another kind."""
        index = faiss.downcast_index(self._index)
        return index if isinstance(index, faiss.IndexIVFPQFastScan) else None

    @property
    def dimensions(self) -> int:
        return int(self._index.d)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """See `Index.search`."""
        if mask is None:
            return self._search(self.tuning.effort, queries, k, None)
        kept = int(np.count_nonzero(mask))
        effort = None if kept <= k else self._filtered_effort(queries, k, mask, kept / len(self))
        return self._exact.search(queries, k, mask) if effort is None else self._searched(effort, queries, k, mask)

    def search_each(self, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours:
        """See `Index.search_each`."""
        return one_by_one(self, queries, k, masks)

    def _filtered_effort(self, queries: Floats, k: int, mask: Mask, share: float) -> int | None:
        if self.tuning.surely_exact(share) or not len(queries):
            return None
        near = self._search(self.tuning.effort, queries, NEIGHBOURS, None).rows
        return self.tuning.filtered_effort(float(mask[near].mean(axis=1).min()), share, k if self._graph else 0)

    def _searched(self, effort: int, queries: Floats, k: int, mask: Mask) -> Neighbours:
        """A graph that meets too little of what is kept returns fewer than k: those queries are answered exactly."""
        rows, scores = self.search_with(effort, queries, k, mask)
        short = rows[:, -1] == NOTHING
        if short.any():
            rows[short], scores[short] = self._exact.search(queries[short], k, mask)
        return Neighbours(rows, scores)

    def candidates(self, k: int) -> int:
        """How many of the best by their codes are scored anew where k rows are asked for."""
        if self.lists is not None and self.lists.by_residual:
            return max(_RESIDUAL_RESCORED, round(_RESIDUAL_TIMES * k))
        return max(_RESCORED, round(_RESCORED_TIMES * k))

    def efforts(self, k: int) -> Sequence[int]:
        """What can be tried when searching for k rows, rising; only what the configuration sets, if it does."""
        if self._graph:
            return [self.tuning.effort] if self._config.ef_search else [k, *(ef for ef in _EF_LADDER if ef > k)]
        if isinstance(self._inner, faiss.IndexIVF):
            lists = int(self._inner.nlist)
            ladder = sorted({1, *(each << power for each in (2, 3) for power in range(lists.bit_length()))})
            return [self.tuning.effort] if self._config.nprobe else [probes for probes in ladder if probes <= lists]
        return [0]

    def search_with(self, effort: int, queries: Floats, k: int, mask: Mask | None) -> Neighbours:
        """Approximate search whatever the mask, with an effort as `planner.Point` has it."""
        bits = None if mask is None else np.packbits(mask, bitorder="little")
        return self._search(effort, queries, k, None if bits is None else faiss.IDSelectorBitmap(bits))

    def _search(self, effort: int, queries: Floats, k: int, selector: Any) -> Neighbours:
        # HNSW returns fewer than k rows when efSearch is below k.
        effort = max(effort, k) if self._graph else effort
        queries = np.ascontiguousarray(queries, np.float32)
        if not self._coded:
            return self._found(effort, queries, k, selector)
        # A graph keeps no more than its effort.
        candidates = effort if self._graph else self.candidates(k)
        return self._exact.among(queries, self._found(effort, queries, candidates, selector).rows, k)

    def _found(self, effort: int, queries: Floats, k: int, selector: Any) -> Neighbours:
        """What FAISS answers; its scores are estimates where it keeps codes."""
        parameters = self._unfiltered(effort) if selector is None else _parameters(self._index, effort, selector)
        found = max(min(k, len(self)), 1)
        scores, rows = self._index.search(queries, found, params=parameters)
        if found < k:
            missing = ((0, 0), (0, k - found))
            rows = np.pad(rows, missing, constant_values=NOTHING)
            scores = np.pad(scores, missing)
        # What could not be filled is at the end.
        if len(rows) and rows[:, -1].min() == NOTHING:
            scores[rows == NOTHING] = -np.inf
        return Neighbours(rows, scores)

    def _untuned(self) -> int:
        """The effort without a tuning: what the file of inverted lists says, if it says one."""
        if self._graph:
            return _EF_SEARCH
        probes = int(getattr(self._inner, "nprobe", 1))
        return probes if probes > 1 else _NPROBE

    def _overruled(self, tuning: Tuning) -> Tuning:
        """The configuration's own effort goes before the measured one."""
        if self._graph:
            return replace(tuning, effort=self._config.ef_search or tuning.effort)
        if isinstance(self._inner, faiss.IndexIVF):
            return replace(tuning, effort=self._config.nprobe or tuning.effort)
        return replace(tuning, effort=0)

    def save(self, folder: Path) -> None:
        """Write dense.faiss; inverted lists with their effort, for whoever opens the file alone."""
        if isinstance(self._inner, faiss.IndexIVF):
            self._inner.nprobe = self.tuning.effort
        faiss.write_index(self._index, str(folder / FILE))


def exact_centres(lists: Any) -> Any | None:
    """The centres of inverted lists behind codes of them; None where they have no codes."""
    quantizer = faiss.downcast_index(lists.quantizer)
    return faiss.downcast_index(quantizer.refine_index) if isinstance(quantizer, faiss.IndexRefine) else None


def _quicken(lists: Any) -> None:
    """Have the nearest centres of a trained, empty index found by four-bit codes, the best of which are scored anew.

    Of 4,096 centres of a million titles it finds 0.986 of the 128 nearest in a quarter of the time, and the search the
    same share of its neighbours.
    """
    flat = faiss.downcast_index(lists.quantizer)
    if not isinstance(flat, faiss.IndexFlat):
        return
    centres = flat.reconstruct_n(0, flat.ntotal)
    parts = lists.d // 2 if lists.d % 2 == 0 else lists.d
    codes = faiss.IndexPQFastScan(lists.d, parts, 4, lists.metric_type)
    codes.train(centres)
    codes.add(centres)
    quick = faiss.IndexRefine(codes, flat)
    quick.k_factor = _QUICK_TIMES
    # Each is freed by the one before it, as the centres were until now.
    quick.own_fields = quick.own_refine_index = True
    codes.this.disown()
    quick.this.disown()
    lists.quantizer = quick


def _inner(index: Any) -> Any:
    """The index behind a map of places to rows and a transformation, as its own type."""
    index = faiss.downcast_index(index)
    return _inner(index.index) if isinstance(index, faiss.IndexPreTransform | faiss.IndexIDMap) else index


def _coded(index: Any) -> bool:
    """Whether an index keeps codes of the vectors, or of what a transformation made of them."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexIDMap):
        return _coded(index.index)
    if isinstance(index, faiss.IndexHNSW):
        return _coded(index.storage)
    return not isinstance(index, faiss.IndexFlat | faiss.IndexIVFFlat)


def _parameters(index: Any, effort: int, selector: Any) -> Any:
    """Search parameters of the index's own type."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexIDMap):
        return _parameters(index.index, effort, selector)
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=_parameters(index.index, effort, selector))
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=effort, sel=selector)
    if isinstance(index, faiss.IndexIVF):
        if exact_centres(index) is None:
            return faiss.SearchParametersIVF(nprobe=effort, sel=selector)
        quick = faiss.IndexRefineSearchParameters(k_factor=max(_QUICK_TIMES, _QUICK_LEAST / effort))
        return faiss.SearchParametersIVF(nprobe=effort, sel=selector, quantizer_params=quick)
    return None if selector is None else faiss.SearchParameters(sel=selector)


def open_index(
    kind: str, folder: Path, vectors: Floats, config: IndexerConfig, tuning: dict[str, Any] | None = None
) -> Index:
    """The index of `kind` saved in `folder` over `vectors`; `tuning` is the manifest's entry, if it has one.

    Whatever its kind, on a card that has room for the vectors they are searched exactly.
    """
    if in_use() is not None or card(config.device) is not None:
        # Imported here, as PyTorch is.
        from indexer.placement import on_card

        if (index := on_card(vectors, folder, config)) is not None:
            return index
    if kind == "exact":
        return ExactIndex(vectors)
    return DenseIndex.load(kind, folder, vectors, config, None if tuning is None else Tuning.of(tuning))
