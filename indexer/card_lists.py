"""Inverted lists of codes on a card: for catalogues whose vectors do not fit on it, in an eighth of their room."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch

from indexer import fallbacks
from indexer.arrays import Array, Bits, Bytes, Floats, Ints, Mask
from indexer.card import BATCH, merged, placed_in, scan_dtype
from indexer.dense import DenseIndex, exact_centres
from indexer.exact import ExactIndex
from indexer.index import NOTHING, Neighbours
from indexer.masks import Masks
from indexer.owner import Owner, owner_of
from indexer.room import needed_for_codes

logger = logging.getLogger(__name__)

# Bytes of a block's score matrix, and of the vectors that its codes stand for: 87,381 of 384 in half precision.
_BLOCK = 64 * 2**20
# Rows of which a filter's are picked at a time.
_PICKED = 2**22


class Lists(NamedTuple):
    """Inverted lists of codes as arrays; the rows of list i have the places from `starts[i]` to `starts[i + 1]`.

    `centres` float32 [lists, dimensions]; `starts` int64 [lists + 1]; `rows` int32 [places]; `codes` uint8 [places,
    bytes]; `words` float32 [bytes, 256, parts], what each value of each byte stands for. One after the other they make
    the vector, with zeros beyond its dimensions where these do not fill the last byte; where `residual`, what the
    vector is beside its list's centre.
    """

    centres: Floats
    starts: Ints
    rows: Array
    codes: Bytes
    words: Floats
    residual: bool


def size_on_card(index: DenseIndex) -> int | None:
    """The bytes that the lists of an index take; None where it has not four bits for each part of a vector."""
    fast = index.lists
    if fast is None or fast.nbits != 4:
        return None
    return needed_for_codes(len(index), _code_bytes(fast), fast.nlist, index.dimensions)


def _code_bytes(fast: Any) -> int:
    return int(fast.M * fast.nbits + 7) // 8


def lists_of(index: DenseIndex) -> Lists:
    """The lists of an index that has a `size_on_card`."""
    fast: Any = index.lists
    # FAISS keeps 32 rows interleaved, for a processor's registers.
    plain = faiss.ArrayInvertedLists(fast.nlist, _code_bytes(fast))
    fast.orig_invlists = plain
    try:
        fast.reconstruct_orig_invlists()
    finally:
        fast.orig_invlists = None
    sizes = [plain.list_size(number) for number in range(fast.nlist)]
    starts = np.cumsum([0, *sizes])
    rows = np.empty(starts[-1], np.int32)
    codes = np.empty((starts[-1], plain.code_size), np.uint8)
    for number, size in enumerate(sizes):
        if size:
            places = slice(starts[number], starts[number + 1])
            rows[places] = faiss.rev_swig_ptr(plain.get_ids(number), size)
            codes[places] = faiss.rev_swig_ptr(plain.get_codes(number), size * plain.code_size).reshape(size, -1)
    centres = (exact_centres(fast) or fast.quantizer).reconstruct_n(0, fast.nlist)
    return Lists(centres, starts, rows, codes, _words(fast), fast.by_residual)


def _words(fast: Any) -> Floats:
    """What the bytes stand for: two codes each, the first in the lower bits, and an odd last one alone."""
    parts = faiss.vector_to_array(fast.pq.centroids).reshape(fast.M, 16, fast.pq.dsub)
    parts = np.pad(parts, ((0, fast.M % 2), (0, 0), (0, 0)))
    values = np.arange(256)
    return np.concatenate([parts[::2, values & 15], parts[1::2, values >> 4]], axis=2)


class _Block(NamedTuple):
    """Rows that are scored together: their places, their lists, and from which query they are hidden."""

    places: torch.Tensor
    lists: torch.Tensor
    hidden: torch.Tensor | None


class CardLists:
    """The inverted lists of `own` on a device, freed with the last reference to it.

    Without a filter a query is compared with the codes of as many lists as `own` is tuned to, with a filter with the
    codes of all that it keeps, however many or few these are. The best by their codes are scored by the vectors
    themselves, on the host. Raises `torch.OutOfMemoryError` where the lists do not fit.
    """

    def __init__(
        self,
        own: DenseIndex,
        vectors: Floats,
        device: torch.device,
        dtype: torch.dtype | None = None,
        *,
        block: int = _BLOCK,
        picked: int = _PICKED,
    ) -> None:
        """`own`, an index of `vectors` that has a `size_on_card`, stands in where the device has no memory left.

        `dtype` is what scores are computed in, by default float16 on a card and float32 on the CPU. `block` bounds the
        bytes of a score matrix and of decoded vectors, `picked` the rows among which a filter's are sought at a time.
        """
        self._own = own
        self._exact = ExactIndex(vectors)
        self._device = device
        self._dtype = dtype or scan_dtype(device)
        self._block, self._picked = block, picked
        self._owner: Owner = owner_of(device)
        self._said = False
        self._owner.run(partial(self._upload, lists_of(own)))

    @property
    def kind(self) -> str:
        """See `Index.kind`; for people, since what is saved is the index of its lists."""
        fast: Any = self._own.lists
        residual = "r" * self._residual
        return f"IVF{fast.nlist},PQ{fast.M}x{fast.nbits}{residual} on {placed_in(self._device, self._dtype)}"

    @property
    def dimensions(self) -> int:
        return self._exact.dimensions

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def size(self) -> int:
        """The bytes it holds on the device."""
        tables = (self._centres, self._starts, self._rows, self._codes, self._words, self._bytes)
        return sum(table.nbytes for table in tables)

    def save(self, folder: Path) -> None:
        """Write the lists it was made of."""
        self._own.save(folder)

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """See `Index.search`. Scores are float32, ties are broken by row."""
        return self.search_each(queries, k, [mask] * len(queries))

    def search_each(self, queries: Floats, k: int, masks: Sequence[Mask | Bits | None]) -> Neighbours:
        """As `search`, under a mask for each query, of which an array that is given several times is one.

        Raises `ValueError` where the shapes do not fit.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        if queries.shape != (len(masks), self.dimensions):
            raise ValueError(f"queries of shape {queries.shape}, ({len(masks)}, {self.dimensions}) expected")
        found = Neighbours(
            np.full((len(queries), k), NOTHING, np.int64), np.full((len(queries), k), -np.inf, np.float32)
        )
        known = Masks(masks, len(self))
        for places in known.parts(BATCH, 1) if len(self) and k else ():
            found.rows[places], found.scores[places] = self._answered(
                queries[places], k, known, known.number[places[0]]
            )
        return found

    def _answered(self, queries: Floats, k: int, masks: Masks, number: int) -> Neighbours:
        """Queries under one mask."""
        try:
            candidates = self._owner.run(
                partial(self._candidates, queries, self._own.candidates(k), masks.packed(number))
            )
        except torch.OutOfMemoryError as error:
            if not self._said:
                logger.warning("The CPU searches in place of %s, which has no memory left: %s", self._device, error)
            self._said = True
            fallbacks.count("search", len(queries))
            return self._own.search(queries, k, masks.unpacked(number))
        return self._exact.among(queries, candidates, k)

    # What follows runs in the owner's thread.

    def _upload(self, lists: Lists) -> None:
        self._centres = torch.from_numpy(lists.centres).to(self._device)
        self._starts = torch.from_numpy(lists.starts).to(self._device)
        self._sizes = np.diff(lists.starts)
        self._rows = torch.from_numpy(lists.rows).to(self._device)
        self._codes = torch.from_numpy(lists.codes).to(self._device)
        self._words = torch.from_numpy(lists.words).to(self._device, self._dtype).flatten(0, 1)
        self._residual = lists.residual
        self._bytes = torch.arange(0, len(self._words), 256, dtype=torch.int32, device=self._device)

    def _candidates(self, queries: Floats, width: int, kept: Bits | None) -> Ints:
        """The rows of the `width` best by their codes, in no order, NOTHING where there are fewer."""
        asked = torch.from_numpy(queries).to(self._device)
        padding = len(self._bytes) * self._words.shape[1] - self.dimensions
        rounded = torch.nn.functional.pad(asked, (0, padding)).to(self._dtype)
        centres = asked @ self._centres.T
        best = self._nothing(len(asked))
        for block in self._near(centres) if kept is None else self._kept(kept, len(asked)):
            best = self._merge(best, rounded, centres, block, width)
        scores, rows = best
        return rows.masked_fill(scores == -torch.inf, NOTHING).long().cpu().numpy()

    def _nothing(self, queries: int) -> tuple[torch.Tensor, torch.Tensor]:
        scores = torch.empty((queries, 0), dtype=self._dtype, device=self._device)
        return scores, torch.empty((queries, 0), dtype=torch.int32, device=self._device)

    def _merge(
        self,
        best: tuple[torch.Tensor, torch.Tensor],
        queries: torch.Tensor,
        centres: torch.Tensor,
        block: _Block,
        width: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The scores and rows of the `width` best so far and of a block, of which some may be hidden from a query.

        `centres` [queries, lists] are the queries' scores of the centres.
        """
        scores = queries @ self._decoded(block.places).T
        if self._residual:
            scores += centres[:, block.lists]
        if block.hidden is not None:
            scores.masked_fill_(block.hidden, -torch.inf)
        near, which = scores.topk(min(width, len(block.places)), 1, sorted=False)
        found = torch.cat([best[0], near], 1), torch.cat([best[1], self._rows[block.places[which]]], 1)
        return merged(*found, width)

    def _near(self, centres: torch.Tensor) -> Iterator[_Block]:
        """The lists that any query looks into, hidden from those that look into others.

        So an answer does not depend on what else is asked at the same time.
        """
        near = centres.topk(min(self._own.tuning.effort, len(self._centres)), 1).indices
        own = torch.zeros(centres.shape, dtype=torch.bool, device=self._device).scatter_(1, near, True)
        wanted = own.any(0).nonzero()[:, 0].cpu().numpy()
        for group in self._groups(wanted, self._step(len(centres))):
            numbers = torch.from_numpy(group).to(self._device)
            sizes = self._starts[numbers + 1] - self._starts[numbers]
            lists = torch.repeat_interleave(numbers, sizes)
            shift = self._starts[numbers] - (sizes.cumsum(0) - sizes)
            places = torch.arange(len(lists), device=self._device) + torch.repeat_interleave(shift, sizes)
            if len(places):
                yield _Block(places, lists, ~own[:, lists])

    def _groups(self, lists: Ints, step: int) -> Iterator[Ints]:
        """The lists in turn, as many together as have `step` rows; one at least."""
        ends = np.cumsum(self._sizes[lists])
        start = 0
        while start < len(lists):
            before = ends[start - 1] if start else 0
            stop = max(int(np.searchsorted(ends, before + step, "right")), start + 1)
            yield lists[start:stop]
            start = stop

    def _kept(self, bits: Bits, queries: int) -> Iterator[_Block]:
        """All rows that a filter keeps."""
        mask = torch.from_numpy(bits).to(self._device)
        step = self._step(queries)
        for start in range(0, len(self._rows), self._picked):
            rows = self._rows[start : start + self._picked].long()
            kept = (mask[rows >> 3] >> (rows & 7)).bitwise_and_(1).nonzero()[:, 0] + start
            for places in torch.split(kept, step):
                if len(places):
                    yield _Block(places, torch.bucketize(places, self._starts[1:], right=True), None)

    def _step(self, queries: int) -> int:
        """How many rows are scored at a time."""
        row = max(queries, len(self._bytes) * self._words.shape[1]) * self._dtype.itemsize
        return max(self._block // row, 1)

    def _decoded(self, places: torch.Tensor) -> torch.Tensor:
        """What the codes at `places` stand for, [places, dimensions and what fills the last byte]."""
        words = torch.nn.functional.embedding(self._codes[places].int() + self._bytes, self._words)
        return words.flatten(1)
