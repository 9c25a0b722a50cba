"""What the tests of the card's index share: its forms, vectors, and what is right to find."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from indexer.arrays import Doubles, Floats, Mask
from indexer.card import CardIndex
from indexer.index import NOTHING, Neighbours

CPU = torch.device("cpu")
FORMS = [
    pytest.param(("cpu", torch.float32), id="cpu-float32"),
    pytest.param(("cpu", torch.float16), id="cpu-float16"),
    pytest.param(("cuda:0", torch.float16), id="cuda-float16", marks=pytest.mark.gpu),
]
# Several blocks of several chunks, the last one not full: two chunks of 64 rows for 32 queries.
SMALL = {"scores": 2 * 64 * 32 * 2, "chunk": 64}
Make = Callable[..., CardIndex]


def unit(rows: int, dimensions: int = 24, seed: int = 0) -> Floats:
    made = np.random.default_rng(seed).normal(size=(rows, dimensions))
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def crowded(rows: int, spread: float, dimensions: int = 24) -> Floats:
    """Unit vectors that differ from one another by about `spread`."""
    made = unit(1, dimensions, 5) + spread * np.random.default_rng(6).normal(size=(rows, dimensions))
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def true_scores(queries: Floats, vectors: Floats) -> Doubles:
    return queries.astype(np.float64) @ vectors.T.astype(np.float64)


def check(index: CardIndex, vectors: Floats, queries: Floats, k: int, mask: Mask | None = None) -> None:
    """What is found is right."""
    check_found(index.search(queries, k, mask), vectors, queries, k, mask)


def check_found(found: Neighbours, vectors: Floats, queries: Floats, k: int, mask: Mask | None) -> None:
    """The k best by float64 up to ties in float32's last digits, their scores true and in order, nothing twice."""
    rows, scores = found
    assert (rows.dtype, scores.dtype, rows.shape, scores.shape) == (np.int64, np.float32, *[(len(queries), k)] * 2)
    true = true_scores(queries, vectors)
    allowed = true if mask is None else np.where(mask, true, -np.inf)
    kept = len(vectors) if mask is None else int(mask.sum())
    most = min(k, kept)
    assert (rows[:, :most] != NOTHING).all()
    assert (rows[:, most:] == NOTHING).all()
    assert (scores[:, most:] == -np.inf).all()
    rows, scores = rows[:, :most], scores[:, :most]
    assert all(len(set(each)) == most for each in rows.tolist())
    if mask is not None:
        assert mask[rows].all()
    best = -np.sort(-allowed, axis=1)[:, :most]
    np.testing.assert_allclose(scores, best, atol=5e-7)
    np.testing.assert_allclose(np.take_along_axis(true, rows, 1), scores, atol=5e-7)
    assert (np.diff(scores, axis=1) <= 0).all()
    tied = np.diff(scores, axis=1) == 0
    assert (np.diff(rows, axis=1)[tied] > 0).all()
