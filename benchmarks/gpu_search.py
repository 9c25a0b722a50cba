"""Exact search on a device beside what the device itself can do; vectors in crowds, made from a seed, of any number."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from indexer.arrays import Doubles, Floats, Mask
from indexer.card import CardIndex, scan_dtype
from indexer.index import NOTHING, Neighbours

# Rows made, or scored in float64, at a time.
_BLOCK = 131_072
# Scores nearer than this are ties: both sides sum hundreds of products, one of them in float32.
TIE = 1e-6
# Queries asked in turn, and of those the ones whose neighbours are looked up in float64.
_POOL, _CHECKED = 1_024, 8
# Most filters that differ within one call: a server's batches are not larger.
_MOST_FILTERS = 64
_MASK_SEED, _QUERY_SEED = 7, 1


@dataclass(frozen=True)
class Plan:
    """What is measured at one number of rows: every batch with every k; `kept` is a mask's share of the rows.

    `seconds` are spent on each, but at least `least` calls; `probe` are the bytes that bandwidth is measured on.
    """

    rows: int
    batches: Sequence[int]
    ks: Sequence[int]
    dimensions: int = 384
    clusters: int = 512
    spread: float = 0.7
    kept: float = 0.1
    seconds: float = 1.0
    least: int = 5
    probe: int = 2**31
    seed: int = 0


class Bound(NamedTuple):
    """The least seconds that a call can take, and what it is bound by: `bandwidth` or `matrix`."""

    name: str
    seconds: float


class Crowds:
    """Unit vectors about common centres, the first of which have most. Random directions alone are too easy.

    Two vectors of one centre have a cosine of 1 / (1 + spread^2) on average, two of different ones have about 0.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan, self._device = plan, device
        self._centres = _unit(torch.randn((plan.clusters, plan.dimensions), generator=self._random(0), device=device))

    def draw(self, rows: int, seed: int) -> Floats:
        """Float32 [rows, dimensions] on the host; the same seed gives the same."""
        made = np.empty((rows, self._plan.dimensions), np.float32)
        random = self._random(seed + 1)
        for start in range(0, rows, _BLOCK):
            count = min(_BLOCK, rows - start)
            places = torch.rand(count, generator=random, device=self._device).square() * self._plan.clusters
            noise = torch.randn((count, self._plan.dimensions), generator=random, device=self._device)
            noise *= self._plan.spread / self._plan.dimensions**0.5
            made[start : start + count] = _unit(noise.add_(self._centres[places.long()])).cpu().numpy()
        return made

    def _random(self, seed: int) -> torch.Generator:
        return torch.Generator(device=self._device).manual_seed(1_000 * self._plan.seed + seed)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(vectors, dim=1)


def call_seconds(
    work: Callable[[], object],
    seconds: float,
    least: int,
    warm: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Doubles:
    """What each call of `work` took, for `seconds` but at least `least` calls, after `warm` that do not count."""
    for _ in range(warm):
        work()
    spent: list[float] = []
    end = clock() + seconds
    while len(spent) < least or clock() < end:
        start = clock()
        work()
        spent.append(clock() - start)
    return np.array(spent)


def synchronised(work: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """`work`, which returns when the device has done it."""

    def done() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return done


def bandwidth(device: torch.device, size: int, seconds: float) -> dict[str, float]:
    """Bytes a second of the device's memory, measured on `size` bytes: copied (read and written), and only read."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    copying = call_seconds(synchronised(lambda: target.copy_(source), device), seconds, 5)
    reading = call_seconds(synchronised(source.sum, device), seconds, 5)
    moved = source.nbytes
    return {"copy": 2 * moved / float(np.median(copying)), "read": moved / float(np.median(reading))}


def matrix_rate(
    device: torch.device, dtype: torch.dtype, batch: int, rows: int, dimensions: int, seconds: float
) -> float:
    """Operations a second of the product [batch, dimensions] x [dimensions, rows], its result written in `dtype`."""
    # Of equal numbers a card makes products faster: they need less power.
    queries = torch.randn((batch, dimensions), dtype=dtype, device=device)
    table = torch.randn((rows, dimensions), dtype=dtype, device=device)
    scores = torch.empty((batch, rows), dtype=dtype, device=device)
    spent = call_seconds(synchronised(lambda: torch.mm(queries, table.T, out=scores), device), seconds, 5)
    return operations(batch, rows, dimensions) / float(np.median(spent))


def operations(batch: int, rows: int, dimensions: int) -> int:
    """Of scoring every row for every query: a product and a sum for each component."""
    return 2 * batch * rows * dimensions


def bound(table_bytes: int, bytes_a_second: float, scored: int, operations_a_second: float) -> Bound:
    """The larger of reading the table once and of the `scored` operations."""
    times = {"bandwidth": table_bytes / bytes_a_second, "matrix": scored / operations_a_second}
    return Bound(*max(times.items(), key=lambda item: item[1]))


def best_scores(
    vectors: Floats, queries: Floats, k: int, masks: Sequence[Mask | None], device: torch.device
) -> list[Doubles]:
    """The k best float64 scores of each query, in order: one [queries, k] for each mask, -inf where there are fewer.

    A mask is [rows], or [queries, rows] where each query has its own.
    """
    asked = torch.from_numpy(queries).to(device, torch.float64)
    best = [torch.full((len(queries), k), -torch.inf, dtype=torch.float64, device=device) for _ in masks]
    for start in range(0, len(vectors), _BLOCK):
        part = slice(start, start + _BLOCK)
        scores = asked @ torch.from_numpy(vectors[part]).to(device, torch.float64).T
        for i, mask in enumerate(masks):
            left = scores
            if mask is not None:
                allowed = torch.from_numpy(np.ascontiguousarray(mask[..., part])).to(device)
                left = scores.masked_fill(~allowed, -torch.inf)
            best[i] = torch.cat([best[i], left], 1).topk(k, 1).values
    return [each.cpu().numpy() for each in best]


def recall(found: Neighbours, vectors: Floats, queries: Floats, best: Doubles, mask: Mask | None) -> float:
    """The share of the k neighbours of each query that are among its best up to ties; a row counts once."""
    hits, wanted = 0, 0
    for i, query in enumerate(queries):
        rows = np.unique(found.rows[i][found.rows[i] != NOTHING])
        if mask is not None:
            rows = rows[(mask if mask.ndim == 1 else mask[i])[rows]]
        there = best[i][best[i] > -np.inf]
        scores = vectors[rows].astype(np.float64) @ query.astype(np.float64)
        hits += int((scores >= there[-1] - TIE).sum()) if len(there) else 0
        wanted += len(there)
    return hits / wanted if wanted else 1.0


class Bench:
    """One index of `plan.rows` vectors on a device, and what it is asked."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        crowds = Crowds(plan, device)
        self.vectors = crowds.draw(plan.rows, plan.seed)
        self.queries = crowds.draw(max(_POOL, *plan.batches), plan.seed + _QUERY_SEED)
        rng = np.random.default_rng([plan.seed, _MASK_SEED])
        self.mask: Mask = rng.random(plan.rows, np.float32) < plan.kept
        # Arrays of their own, as requests bring them.
        shifts = rng.integers(1, max(plan.rows, 2), size=min(max(plan.batches), _MOST_FILTERS))
        self.masks: list[Mask] = [np.roll(self.mask, int(shift)) for shift in shifts]
        self.index = self._indexed()
        self.dtype = scan_dtype(device)
        self._checked = self.queries[:_CHECKED]
        kinds: dict[str, Mask | None] = {"none": None, "one": self.mask}
        kinds["each"] = np.stack(self._masks_of(range(_CHECKED)))
        self._kinds = kinds
        best = best_scores(self.vectors, self._checked, max(plan.ks), list(kinds.values()), device)
        self._best = dict(zip(kinds, best, strict=True))

    def _indexed(self) -> CardIndex:
        return CardIndex(self.vectors, self.device)

    def points(self, bytes_a_second: float) -> Iterator[dict[str, Any]]:
        """Each batch, k and kind of mask, as soon as it is measured. `mask` is none, one, or each (they differ)."""
        plan = self.plan
        table = plan.rows * plan.dimensions * self.dtype.itemsize
        for batch in plan.batches:
            rate = matrix_rate(self.device, self.dtype, batch, plan.rows, plan.dimensions, plan.seconds / 4)
            least = bound(table, bytes_a_second, operations(batch, plan.rows, plan.dimensions), rate)
            for k in plan.ks:
                for kind in self._kinds:
                    if kind != "each" or batch <= len(self.masks):
                        yield {**self._measured(batch, k, kind, least), "matrix_flops": rate}

    def _measured(self, batch: int, k: int, kind: str, least: Bound) -> dict[str, Any]:
        before = (self.index.asked, self.index.widened, self.index.given_up)
        told = self._timed(batch, k, kind)
        asked, widened, given_up = np.subtract((self.index.asked, self.index.widened, self.index.given_up), before)
        return {
            **told,
            "asked": int(asked),
            "widened": int(widened),
            "given_up": int(given_up),
            **self._recalled(batch, k, kind),
            "bound": least.name,
            "bound_ms": 1e3 * least.seconds,
            "fraction": 1e3 * least.seconds / told["ms"],
        }

    def _timed(self, batch: int, k: int, kind: str) -> dict[str, Any]:
        turn = 0

        def call() -> Neighbours:
            nonlocal turn
            turn += 1
            return self._search((turn - 1) * batch % (len(self.queries) - batch + 1), batch, k, kind)

        spent = call_seconds(call, self.plan.seconds, self.plan.least)
        middle = float(np.median(spent))
        return {
            "rows": self.plan.rows,
            "batch": batch,
            "k": k,
            "mask": kind,
            "ms": 1e3 * middle,
            "ms_p99": 1e3 * float(np.quantile(spent, 0.99, method="inverted_cdf")),
            "calls": len(spent),
            "queries_per_second": batch / middle,
        }

    def _recalled(self, batch: int, k: int, kind: str) -> dict[str, Any]:
        return {"recall": self._recall(batch, k, kind), "recall_queries": len(self._checked)}

    def _recall(self, batch: int, k: int, kind: str) -> float:
        """Of the first queries, asked in batches of that size: which kernels a card takes depends on it."""
        found = [self._search(start, batch, k, kind) for start in range(0, len(self._checked), batch)]
        kept = (np.concatenate(part)[: len(self._checked)] for part in zip(*found, strict=True))
        best = self._best[kind][:, :k]
        return recall(Neighbours(*kept), self.vectors, self._checked, best, self._kinds[kind])

    def _search(self, start: int, batch: int, k: int, kind: str) -> Neighbours:
        queries = self.queries[start : start + batch]
        if kind == "each":
            return self.index.search_each(queries, k, self._masks_of(range(start, start + batch)))
        return self.index.search(queries, k, self.mask if kind == "one" else None)

    def _masks_of(self, queries: Sequence[int]) -> list[Mask]:
        return [self.masks[i % len(self.masks)] for i in queries]
