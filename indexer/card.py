"""Exact search on a card: vectors resident in half precision, candidates scored again in float32, answers proved."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from indexer import fallbacks
from indexer.arrays import Bits, Floats, Ints, Mask
from indexer.batches import power_of_two
from indexer.card_masks import BITS, Kept, Packed, packed
from indexer.exact import ExactIndex
from indexer.index import NOTHING, Neighbours
from indexer.masks import Masks
from indexer.owner import Owner, owner_of

logger = logging.getLogger(__name__)

# Most queries scanned at once. Fewer are filled up to a power of two, so that a card meets few different shapes.
BATCH = 256
# Bytes of the score matrix: 256 queries x 131,072 rows x 2 bytes.
SCORES = 64 * 2**20
# Rows among which the first top-k is taken: one top-k over a million scores keeps few of a card's units busy.
_CHUNK = 16_384
# Rows copied to the card at a time.
_UPLOAD = 65_536
# Candidates beyond k: of 100,000 titles, of which 300 are asked for, 24 were needed to prove the worst of 300 answers.
_MARGIN = 64
# How many times as many candidates an answer takes that is not proved, and up to how many.
_WIDER, _WIDEST = 4, 16_384


class Answer(NamedTuple):
    """`rows` and `scores` [queries, k] as in `Neighbours`; `proved` [queries]: no row left out can belong to them."""

    rows: torch.Tensor
    scores: torch.Tensor
    proved: torch.Tensor


class CardIndex:
    """All of `vectors` float32 [rows, dimensions] on a device, freed with the last reference to the index.

    The scan reads `dtype`, by default float16 on a card and float32 on the CPU. Its scores are off by at most a bound
    that follows from the rounding errors of the vectors, as they were measured when they were copied. So the best k of
    the candidates, by float32, are the best k of all rows if the k-th is above the worst candidate's half-precision
    score by more than that bound. Where it is not (very many rows score nearly alike), more candidates are taken, and
    beyond `_WIDEST` the query is answered by `ExactIndex`.
    """

    def __init__(
        self,
        vectors: Floats,
        device: torch.device,
        dtype: torch.dtype | None = None,
        *,
        resident: bool = True,
        scores: int = SCORES,
        chunk: int = _CHUNK,
        bits: int = BITS,
    ) -> None:
        """`resident` keeps the float32 vectors on the device too; else candidates are gathered from `vectors`.

        `scores` bounds the bytes of the score matrix; `chunk` rows, a multiple of eight, for BATCH queries are scored
        even beyond it. `bits` bounds those of the masks, of which one fits in any case. Raises `torch.OutOfMemoryError`
        where the vectors do not fit.
        """
        self._exact = ExactIndex(vectors)
        self._device = device
        self._dtype = dtype or scan_dtype(device)
        self._most = scores
        self._most_bits = bits
        # Of few rows there is one chunk, padded to eight, by which the card's matrix units count; of none, one too.
        self._chunk = min(chunk, max(-(-len(vectors) // 8) * 8, 8))
        self._owner: Owner = owner_of(device)
        self._said = False
        # Queries asked, those of them scanned again for more candidates, and those answered by `ExactIndex`.
        self.asked, self.widened, self.given_up = 0, 0, 0
        self._owner.run(partial(self._upload, resident))

    @property
    def kind(self) -> str:
        """See `Index.kind`; for people, since what is saved is the exact index."""
        return f"exact on {placed_in(self._device, self._dtype)}"

    @property
    def dimensions(self) -> int:
        return self._exact.dimensions

    def __len__(self) -> int:
        return len(self._exact)

    @property
    def size(self) -> int:
        """The bytes it holds on the device."""
        held = {id(table): table for table in (self._table, self._full) if table is not None}
        return sum(table.nbytes for table in held.values())

    def save(self, folder: Path) -> None:
        """Nothing: vectors.npy is the index."""

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """See `Index.search`. Scores are float32, ties are broken by row."""
        return self.search_each(queries, k, [mask] * len(queries))

    def search_each(self, queries: Floats | torch.Tensor, k: int, masks: Sequence[Mask | Bits | None]) -> Neighbours:
        """As `search`, under a mask for each query, of which an array that is given several times is one.

        Queries that are a tensor on the device stay there. Raises `ValueError` where the shapes do not fit.
        """
        asked = queries if isinstance(queries, torch.Tensor) else torch.from_numpy(np.array(queries, np.float32))
        if asked.shape != (len(masks), self.dimensions):
            raise ValueError(f"queries of shape {tuple(asked.shape)}, ({len(masks)}, {self.dimensions}) expected")
        found = Neighbours(np.full((len(asked), k), NOTHING, np.int64), np.full((len(asked), k), -np.inf, np.float32))
        if not len(self) or not k:
            return found
        known, padded = Masks(masks, len(self)), len(self._table)
        for places in known.parts(BATCH, max(self._most_bits // (padded // 8), 1)):
            bits = packed(known, places, padded, self._device.type == "cuda")
            self._stand_in(asked, found, self._filled(asked, found, places, bits), known)
        return found

    def _filled(self, queries: torch.Tensor, found: Neighbours, places: Ints, packed: Packed | None) -> Ints:
        """Fill `found` at `places`; returns those of them that the card could not answer."""
        # The queries may still be computed, in another stream than the owner's.
        ready = torch.cuda.current_stream(queries.device).record_event() if queries.is_cuda else None
        try:
            return self._owner.run(partial(self._answered, queries, found, places, packed, ready))
        except torch.OutOfMemoryError as error:
            if not self._said:
                logger.warning("The CPU searches in place of %s, which has no memory left: %s", self._device, error)
            self._said = True
            self._give_up(len(places))
            return places

    def _give_up(self, queries: int) -> None:
        self.given_up += queries
        fallbacks.count("search", queries)

    def _stand_in(self, queries: torch.Tensor, found: Neighbours, places: Ints, masks: Masks) -> None:
        """Fill `found` at `places` from the exact index."""
        for number in np.unique(masks.number[places]):
            same = places[masks.number[places] == number]
            asked = queries.cpu().float().numpy()[same]
            found.rows[same], found.scores[same] = self._exact.search(
                asked, found.rows.shape[1], masks.unpacked(number)
            )

    # What follows runs in the owner's thread.

    def _upload(self, resident: bool) -> None:
        if self._device.type == "cuda":
            # Sums in half precision would be off by more than the bound says.
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        rows, dimensions = self._exact.vectors.shape
        padded = max(-(-rows // self._chunk), 1) * self._chunk
        self._table = torch.zeros((padded, dimensions), dtype=self._dtype, device=self._device)
        self._full: torch.Tensor | None = self._table if self._dtype == torch.float32 else None
        if resident and self._full is None:
            self._full = torch.empty((rows, dimensions), device=self._device)
        error, longest = 0.0, 0.0
        for start in range(0, rows, _UPLOAD):
            # A copy, since PyTorch does not take what is mapped for reading only.
            block = torch.from_numpy(np.array(self._exact.vectors[start : start + _UPLOAD])).to(self._device)
            half = self._table[start : start + len(block)].copy_(block)
            error = max(error, float((block - half.float()).norm(dim=1).max()))
            longest = max(longest, float(half.float().norm(dim=1).max()))
            if self._full is not None and self._full is not self._table:
                self._full[start : start + len(block)] = block
        self._error, self._longest = error, longest

    def _answered(
        self,
        queries: torch.Tensor,
        found: Neighbours,
        places: Ints,
        packed: Packed | None,
        ready: torch.cuda.Event | None,
    ) -> Ints:
        if ready is not None:
            ready.wait()
        masks = None if packed is None else packed.on(self._device)
        k, left = found.rows.shape[1], places
        width = k + _MARGIN
        self.asked += len(left)
        while len(left):
            asked = self._padded(queries, left)
            kept = None if masks is None or packed is None else masks.of(packed.which[left], len(asked))
            answer = self._best(asked, k, width, kept)
            proved = answer.proved[: len(left)].cpu().numpy()
            sure = left[proved]
            found.rows[sure] = answer.rows[: len(left)].cpu().numpy()[proved]
            found.scores[sure] = answer.scores[: len(left)].cpu().numpy()[proved]
            left = left[~proved]
            width *= _WIDER
            if width > _WIDEST:
                self._give_up(len(left))
                break
            self.widened += len(left)
        return left

    def _padded(self, queries: torch.Tensor, places: Ints) -> torch.Tensor:
        """The queries at `places`, float32 [power of two, dimensions] on the device; the rows after them are zero."""
        made = torch.zeros((power_of_two(len(places)), self.dimensions), device=self._device)
        made[: len(places)] = queries if len(places) == len(queries) else queries[torch.from_numpy(places)]
        return made

    def _best(self, queries: torch.Tensor, k: int, width: int, kept: Kept | None) -> Answer:
        asked = queries.to(self._dtype)
        rough, rows = self._candidates(asked, width, kept)
        exact, rows = self._rescored(queries, rough, rows)
        if exact.shape[1] < k:
            missing = (0, k - exact.shape[1])
            exact = torch.nn.functional.pad(exact, missing, value=-torch.inf)
            rows = torch.nn.functional.pad(rows, missing, value=NOTHING)
        # With fewer candidates than asked for, or one that may not be found, they are all the rows there are.
        worst = rough.amin(1)
        complete = (worst == -torch.inf) | (rough.shape[1] < width)
        proved = complete | (self._upper(queries, asked, worst) < exact[:, k - 1])
        return Answer(rows[:, :k], exact[:, :k], proved & self._in_range(queries))

    def _candidates(self, queries: torch.Tensor, width: int, kept: Kept | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The scores and rows of the `width` best by the scan, in no order; -inf where a row may not be found."""
        total, count = len(self._table), len(queries)
        size = self._dtype.itemsize
        step = max(self._most // (count * size) // self._chunk, 1) * self._chunk
        memory = self._owner.scratch(count * min(step, total) * size).view(self._dtype)
        best = torch.empty((count, 0), dtype=self._dtype, device=self._device)
        rows = torch.empty((count, 0), dtype=torch.int64, device=self._device)
        for start in range(0, total, step):
            stop = min(start + step, total)
            scores = memory[: count * (stop - start)].view(count, stop - start)
            torch.mm(queries, self._table[start:stop].T, out=scores)
            if kept is not None:
                kept.hide(scores, start)
            elif stop > len(self):
                scores[:, len(self) - start :] = -torch.inf
            near, places = scores.view(count, -1, self._chunk).topk(min(width, self._chunk), 2, sorted=False)
            places += torch.arange(start, stop, self._chunk, device=self._device)[:, None]
            best, rows = merged(torch.cat([best, near.flatten(1)], 1), torch.cat([rows, places.flatten(1)], 1), width)
        return best, rows

    def _rescored(
        self, queries: torch.Tensor, rough: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The candidates' scores in float32 and their rows, best first; equal scores by row."""
        rows = torch.where(rough == -torch.inf, NOTHING, rows).sort(1).values
        exact = torch.empty(rows.shape, device=self._device)
        step = max(self._most // (rows.shape[1] * self.dimensions * 4), 1)
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            # Not a matrix product: that may be done in TF32, which has half precision's digits.
            exact[part] = self._gathered(rows[part]).mul_(queries[part, None]).sum(2)
        exact.masked_fill_(rows == NOTHING, -torch.inf)
        exact, order = exact.sort(dim=1, descending=True, stable=True)
        return exact, rows.gather(1, order)

    def _gathered(self, rows: torch.Tensor) -> torch.Tensor:
        """The float32 vectors of `rows` [queries, candidates], any where there is NOTHING."""
        rows = rows.clamp(min=0)
        if self._full is not None:
            return self._full[rows]
        return torch.from_numpy(self._exact.vectors[rows.cpu().numpy()]).to(self._device)

    def _upper(self, queries: torch.Tensor, asked: torch.Tensor, worst: torch.Tensor) -> torch.Tensor:
        """The most that a row can score in float32 which the scan found at most `worst` [queries].

        |q.v - q'.v'| <= |q| |v - v'| + |q - q'| |v'| (Cauchy-Schwarz), where ' is rounded; a sum of d products in
        float32 is off by d roundings of |q| |v| at most (Higham, Accuracy and Stability of Numerical Algorithms, 3.1),
        of which there are two sums, and the scan's is rounded to `dtype` at the end.
        """
        length = queries.norm(dim=1)
        rounding = torch.finfo(self._dtype)
        sums = 2 * self.dimensions * torch.finfo(torch.float32).eps * length * (self._longest + self._error)
        moved = length * self._error + (queries - asked.float()).norm(dim=1) * self._longest
        stored = (worst.float().abs() * (1 + rounding.eps) + rounding.smallest_normal) * rounding.eps / 2
        most: torch.Tensor = worst.float() + moved + sums + stored
        return most

    def _in_range(self, queries: torch.Tensor) -> torch.Tensor:
        """Where neither a query nor a score can be more than `dtype` holds."""
        fits: torch.Tensor = queries.norm(dim=1) * max(self._longest, 1.0) < torch.finfo(self._dtype).max
        return fits


def scan_dtype(device: torch.device) -> torch.dtype:
    """What scores are computed in, unless it is said: a card has units for half precision."""
    return torch.float32 if device.type == "cpu" else torch.float16


def placed_in(device: torch.device, dtype: torch.dtype) -> str:
    """Where an index is and in which precision it is scanned, for people: `cuda:0 (float16)`."""
    return f"{device} ({str(dtype).removeprefix('torch.')})"


def merged(scores: torch.Tensor, rows: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `width` best columns of each query, or all where there are not so many."""
    if scores.shape[1] <= width:
        return scores, rows
    scores, places = scores.topk(width, 1, sorted=False)
    return scores, rows.gather(1, places)
