"""One suite over every implementation of `Index`."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.arrays import Doubles, Floats, Mask
from indexer.card import CardIndex
from indexer.card_lists import CardLists
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex, open_index
from indexer.exact import ExactIndex
from indexer.index import NOTHING, Index

ROWS = 4_000
CARDS = {
    "exact on cpu (float32)": ("cpu", torch.float32),
    "exact on cpu (float16)": ("cpu", torch.float16),
    "exact on cuda:0 (float16)": ("cuda:0", torch.float16),
}
# Codes on a card, of an index that has them.
CODED = "IVF16,PQ8x4fsr"
CARD_LISTS = {
    "IVF16,PQ8x4r on cpu (float32)": ("cpu", torch.float32),
    "IVF16,PQ8x4r on cpu (float16)": ("cpu", torch.float16),
    "IVF16,PQ8x4r on cuda:0 (float16)": ("cuda:0", torch.float16),
}
EVERY_KEY = ("exact", "Flat", "HNSW32", "IVF16,Flat", "IVF16,PQ8x4fs", CODED, "SQ8", *CARDS, *CARD_LISTS)
EXACT = ("exact", "Flat", *CARDS)
PARAMETERS = [pytest.param(key, marks=[pytest.mark.gpu] if "cuda" in key else []) for key in EVERY_KEY]
CONFIG = IndexerConfig(nprobe=8)
SHARES = (0.001, 0.01, 0.1, 0.19, 0.25, 0.5, 0.9)


@pytest.fixture(scope="module")
def vectors(clustered: Callable[[int, int], Floats]) -> Floats:
    return clustered(ROWS, 1)


@pytest.fixture(scope="module")
def queries(clustered: Callable[[int, int], Floats]) -> Floats:
    return clustered(25, 2)


@pytest.fixture(scope="module", params=PARAMETERS)
def index(request: pytest.FixtureRequest, vectors: Floats) -> Index:
    return made(request.param, vectors)


def made(kind: str, vectors: Floats, trained: Floats | None = None, config: IndexerConfig = CONFIG) -> Index:
    """An index of `vectors`, trained on others if they are given."""
    if kind in CARDS:
        device, dtype = CARDS[kind]
        return CardIndex(vectors, torch.device(device), dtype, chunk=512)
    if kind in CARD_LISTS:
        device, dtype = CARD_LISTS[kind]
        own = dense(CODED, vectors, trained, config)
        return CardLists(own, vectors, torch.device(device), dtype, block=2**16, picked=1_000)
    return ExactIndex(vectors) if kind == "exact" else dense(kind, vectors, trained, config)


def dense(kind: str, vectors: Floats, trained: Floats | None, config: IndexerConfig) -> DenseIndex:
    return DenseIndex.build(kind, vectors if trained is None else trained, config).extended(vectors)


def opened(kind: str, folder: Path) -> Index:
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    if kind in CARDS:
        return made(kind, vectors)
    if kind in CARD_LISTS:
        device, dtype = CARD_LISTS[kind]
        return CardLists(DenseIndex.load(CODED, folder, vectors, CONFIG), vectors, torch.device(device), dtype)
    return open_index(kind, folder, vectors, CONFIG)


def oracle(vectors: Floats, queries: Floats, k: int, mask: Mask | None = None) -> tuple[Doubles, Doubles]:
    """Every score in float64, and the k-th best of each query."""
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    allowed = scores if mask is None else np.where(mask, scores, -np.inf)
    return scores, np.sort(allowed, axis=1)[:, -k]


def keeping(share: float) -> Mask:
    """A mask that keeps `share` of the rows."""
    mask = np.zeros(ROWS, bool)
    mask[np.random.default_rng(3).permutation(ROWS)[: round(share * ROWS)]] = True
    return mask


def recall(index: Index, vectors: Floats, queries: Floats, k: int, mask: Mask | None = None) -> float:
    """The share of the returned rows that are among the k best up to ties."""
    scores, least = oracle(vectors, queries, k, mask)
    rows = index.search(queries, k, mask).rows
    found = np.take_along_axis(scores, rows, axis=1) >= least[:, None] - 1e-5
    return float((found & (rows != NOTHING)).mean())


@pytest.mark.parametrize("k", [1, 10, 100])
def test_neighbours_are_those_of_the_oracle(index: Index, vectors: Floats, queries: Floats, k: int) -> None:
    assert recall(index, vectors, queries, k) >= (1.0 if index.kind in EXACT else 0.95)


def test_rows_are_distinct_best_first_and_their_scores_true(index: Index, vectors: Floats, queries: Floats) -> None:
    rows, scores = index.search(queries, 50)
    assert (rows.shape, rows.dtype) == ((len(queries), 50), np.int64)
    assert (scores.shape, scores.dtype) == ((len(queries), 50), np.float32)
    assert all(len(set(found)) == 50 for found in rows.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()
    true = np.take_along_axis(oracle(vectors, queries, 1)[0], rows, axis=1)
    # Eight bits a component are about two digits.
    np.testing.assert_allclose(scores, true, atol=0.02 if index.kind == "SQ8" else 1e-5)


def test_length_dimensions_and_kind(index: Index) -> None:
    assert (len(index), index.dimensions) == (ROWS, 32)
    assert index.kind in EVERY_KEY


@pytest.mark.parametrize("share", SHARES)
def test_a_filter_is_kept_and_keeps_recall(index: Index, vectors: Floats, queries: Floats, share: float) -> None:
    mask = keeping(share)
    k = min(20, int(mask.sum()))
    rows = index.search(queries, 20, mask).rows
    assert mask[rows[rows != NOTHING]].all()
    assert (rows[:, :k] != NOTHING).all()
    assert recall(index, vectors, queries, k, mask) >= (1.0 if index.kind in EXACT else 0.95)


@pytest.mark.parametrize("share", [s for s in SHARES if s <= 0.2])
def test_a_selective_filter_is_answered_exactly(index: Index, vectors: Floats, queries: Floats, share: float) -> None:
    found = index.search(queries, 20, keeping(share))
    exact = ExactIndex(vectors).search(queries, 20, keeping(share))
    np.testing.assert_array_equal(found.rows, exact.rows)
    # Another sum of the same products, where a card makes it.
    np.testing.assert_allclose(
        found.scores, exact.scores, atol=1e-6 if index.kind in (*CARDS, *CARD_LISTS) else 0, rtol=0
    )


def test_an_empty_mask_finds_nothing(index: Index, queries: Floats) -> None:
    rows, scores = index.search(queries, 5, np.zeros(ROWS, bool))
    assert rows.shape == scores.shape == (len(queries), 5)
    assert (rows == NOTHING).all()
    assert (scores == -np.inf).all()


@pytest.mark.parametrize("kind", PARAMETERS)
def test_k_beyond_the_rows_is_filled_up(kind: str, vectors: Floats, queries: Floats) -> None:
    index = made(kind, vectors[:20], vectors, IndexerConfig(nprobe=16))
    rows, scores = index.search(queries, 30)
    assert rows.shape == scores.shape == (len(queries), 30)
    assert [sorted(found) for found in rows[:, :20].tolist()] == [list(range(20))] * len(queries)
    assert (rows[:, 20:] == NOTHING).all()
    assert (scores[:, 20:] == -np.inf).all()


def test_k_beyond_what_a_filter_keeps_is_filled_up(index: Index, queries: Floats) -> None:
    mask = keeping(0.001)
    rows, scores = index.search(queries, 10, mask)
    assert (rows[:, 4:] == NOTHING).all()
    assert (scores[:, 4:] == -np.inf).all()
    assert [sorted(found) for found in rows[:, :4].tolist()] == [np.flatnonzero(mask).tolist()] * len(queries)


@pytest.mark.parametrize("share", [None, 0.1, 0.5])
def test_a_batch_is_its_single_queries(index: Index, queries: Floats, share: float | None) -> None:
    mask = None if share is None else keeping(share)
    rows, scores = index.search(queries, 10, mask)
    for i in range(len(queries)):
        one = index.search(queries[i : i + 1], 10, mask)
        np.testing.assert_allclose(one.scores[0], scores[i], atol=1e-6)
        same = one.rows[0] == rows[i]
        # Only neighbours that tie may change places.
        assert np.isclose(scores[i][~same], one.scores[0][~same], atol=1e-6).all()
        assert same.mean() >= 0.8


def test_each_query_of_a_batch_has_its_own_mask(index: Index, queries: Floats) -> None:
    masks = [None, keeping(0.1), keeping(0.5), np.zeros(ROWS, bool), None, keeping(0.001)]
    rows, scores = index.search_each(queries[:6], 10, masks)
    assert (rows.shape, rows.dtype, scores.dtype) == ((6, 10), np.int64, np.float32)
    for place, mask in enumerate(masks):
        alone = index.search(queries[place : place + 1], 10, mask)
        np.testing.assert_allclose(scores[place], alone.scores[0], atol=1e-6)
        if not isinstance(index, CardIndex):
            # One after the other, to the last bit.
            np.testing.assert_array_equal(scores[place], alone.scores[0])
            np.testing.assert_array_equal(rows[place], alone.rows[0])


def test_no_query_no_answer(index: Index, vectors: Floats) -> None:
    assert index.search_each(vectors[:0], 7, []).rows.shape == (0, 7)
    assert index.search(vectors[:0], 7).rows.shape == (0, 7)
    assert index.search(vectors[:0], 7, keeping(0.5)).rows.shape == (0, 7)


def test_saved_and_opened_it_answers_the_same(index: Index, vectors: Floats, queries: Floats, tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", vectors)
    index.save(tmp_path)
    again = opened(index.kind, tmp_path)
    assert (again.kind, len(again), again.dimensions) == (index.kind, len(index), index.dimensions)
    for mask in (None, keeping(0.1), keeping(0.5)):
        before, after = index.search(queries, 10, mask), again.search(queries, 10, mask)
        np.testing.assert_array_equal(before.rows, after.rows)
        np.testing.assert_array_equal(before.scores, after.scores)
