"""The card's index; on the CPU the same code runs, in float32 and in half precision, and marked `gpu` on a card."""

import gc
import logging
import threading
import weakref

import numpy as np
import pytest
import torch
from card_forms import CPU, FORMS, SMALL, Make, check, crowded, true_scores, unit

from indexer import card, fallbacks
from indexer.card import BATCH, CardIndex
from indexer.card_masks import packed
from indexer.exact import ExactIndex
from indexer.index import NOTHING
from indexer.masks import Masks
from indexer.owner import OneThread


@pytest.fixture(params=FORMS)
def make(request: pytest.FixtureRequest) -> Make:
    place, dtype = request.param
    return lambda vectors, **options: CardIndex(vectors, torch.device(place), dtype, **options)


@pytest.mark.parametrize("share", [None, 0.9, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_neighbours_are_the_best_over_several_blocks(make: Make, k: int, share: float | None) -> None:
    vectors, queries = unit(1_003), unit(32, seed=1)
    mask = None if share is None else np.random.default_rng(2).random(1_003) < share
    index = make(vectors, **SMALL)
    check(index, vectors, queries, k, mask)
    assert index.given_up == 0


@pytest.mark.parametrize("count", [1, 2, 3, 31, 33, 64, 65, 130, BATCH + 3])
def test_batches_of_any_size(make: Make, count: int) -> None:
    vectors = unit(300)
    check(make(vectors), vectors, unit(count, seed=1), 7)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 63, 64, 65, 128, 129])
def test_any_number_of_rows_with_k_beyond_them(make: Make, rows: int) -> None:
    vectors = unit(rows)
    for mask in (None, np.arange(rows) % 2 == 0):
        check(make(vectors, **SMALL), vectors, unit(3, seed=1), 100, mask)


def test_rows_that_a_mask_leaves_out_everywhere_but_at_the_end(make: Make) -> None:
    vectors = unit(200)
    mask = np.zeros(200, bool)
    mask[-1] = True
    mask.flags.writeable = False
    rows, _ = make(vectors, **SMALL).search(unit(2, seed=1), 3, mask)
    assert rows.tolist() == [[199, NOTHING, NOTHING]] * 2


def test_without_vectors_or_under_an_empty_mask_nothing_is_found(make: Make) -> None:
    for index, mask in ((make(unit(0)), None), (make(unit(50)), np.zeros(50, bool))):
        rows, scores = index.search(unit(2, seed=1), 4, mask)
        assert (rows == NOTHING).all()
        assert (scores == -np.inf).all()


def test_equal_vectors_come_by_row(make: Make) -> None:
    vectors = np.repeat(unit(4), 50, axis=0)
    rows, scores = make(vectors, **SMALL).search(vectors[[60]], 60)
    assert rows[0, :50].tolist() == list(range(50, 100))
    assert len(set(scores[0, :50].tolist())) == 1


@pytest.mark.parametrize("spread", [3e-2, 1e-3, 1e-4, 1e-5])
def test_near_ties_are_told_apart(make: Make, spread: float) -> None:
    """Half precision cannot tell these rows apart; what is found is still right to float32's last digits."""
    vectors = crowded(2_000, spread)
    check(make(vectors, **SMALL), vectors, np.vstack([vectors[:8], unit(4, seed=1)]), 10)


def test_the_margin_alone_does_not_suffice_for_near_ties_and_is_widened_until_it_does() -> None:
    """As if no answer were ever doubted: then rows are missed. It is the proof that makes the margin safe."""
    vectors = crowded(2_000, 1e-4)
    queries = unit(64, seed=1)
    index = CardIndex(vectors, CPU, torch.float16)
    check(index, vectors, queries, 10)
    assert index.widened > 0
    trusting = CardIndex(vectors, CPU, torch.float16)
    trusting._error, trusting._longest = -np.inf, 0.0
    found, best = trusting.search(queries, 10).scores, -np.sort(-true_scores(queries, vectors), axis=1)[:, :10]
    assert trusting.widened == 0
    assert (found[:, -1] < best[:, -1] - 1e-6).any()


def test_clear_answers_need_no_second_scan() -> None:
    index = CardIndex(unit(2_000), CPU, torch.float16)
    index.search(unit(50, seed=1), 20)
    assert (index.asked, index.widened, index.given_up) == (50, 0, 0)


def test_where_no_margin_suffices_the_exact_index_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "_WIDEST", 300)
    before = fallbacks.counted().get("search", 0)
    vectors = crowded(2_000, 1e-5)
    index = CardIndex(vectors, CPU, torch.float16)
    queries = np.vstack([vectors[:3], unit(1, seed=1)])
    check(index, vectors, queries, 10)
    assert index.given_up == 4
    # Of these, two are answered at once, and only the other one is given up.
    vectors = np.vstack([crowded(1_000, 1e-5), unit(1_000)])
    index = CardIndex(vectors, CPU, torch.float16)
    check(index, vectors, np.vstack([vectors[1_500], vectors[0], vectors[1_600]]), 10)
    assert index.given_up == 1
    assert fallbacks.counted()["search"] == before + 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_score_of_the_scan_is_off_by_more_than_the_bound(dtype: torch.dtype) -> None:
    vectors, queries = unit(500, 384), unit(20, 384, 1)
    index = CardIndex(vectors, CPU, dtype)
    asked = torch.from_numpy(queries)
    rough = torch.mm(asked.to(dtype), index._table.T)
    true = torch.from_numpy(true_scores(queries, vectors))
    for row in range(500):
        most = index._upper(asked, asked.to(dtype), rough[:, row])
        assert (true[:, row] <= most).all()
        # And the bound is of use: a few times what is met.
        assert (most - rough[:, row].float() <= 6 * torch.finfo(dtype).eps + 2e-4).all()


def test_vectors_that_half_precision_cannot_hold_are_answered_exactly() -> None:
    vectors = unit(300) * np.float32(1e3)
    queries = np.vstack([unit(1, seed=1), unit(1, seed=2) * np.float32(1e3)])
    index = CardIndex(vectors, CPU, torch.float16)
    found, expected = index.search(queries, 5), ExactIndex(vectors).search(queries, 5)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    assert index.given_up == 1


@pytest.mark.parametrize("resident", [True, False])
def test_float32_vectors_may_stay_on_the_host(make: Make, resident: bool) -> None:
    vectors = unit(500)
    vectors.flags.writeable = False
    index = make(vectors, resident=resident, **SMALL)
    check(index, vectors, unit(5, seed=1), 20)
    half = index._table.dtype == torch.float16
    padded = -(-500 // 64) * 64
    assert index.size == padded * 24 * (2 if half else 4) + (500 * 24 * 4 if half and resident else 0)


@pytest.mark.parametrize("masked", [0, 1, 2])
def test_nothing_of_a_search_is_left_on_another_device(masked: int) -> None:
    """The `meta` device computes shapes only, and refuses to mix with the CPU as a card does."""
    meta = torch.device("meta")
    index = CardIndex(unit(1_000), CPU, torch.float16, **SMALL)
    index._device, index._owner = meta, OneThread(meta)
    index._table, index._full = index._table.to(meta), index._full.to(meta)
    known = Masks([np.arange(1_000) % 2 == 0, np.arange(1_000) % 3 == 0][: masked or 1], 1_000)
    bits = packed(known, np.arange(len(known.number)), len(index._table), pinned=False)
    assert bits is not None
    kept = bits.on(meta).of(bits.which, 32) if masked else None
    for k in (5, 2_000):
        answer = index._owner.run(lambda k=k: index._best(torch.ones((32, 24), device=meta), k, k + 64, kept))
        assert [each.device for each in answer] == [meta] * 3
        assert (answer.rows.shape, answer.rows.dtype) == ((32, k), torch.int64)
        assert (answer.scores.shape, answer.scores.dtype) == ((32, k), torch.float32)
        assert (answer.proved.shape, answer.proved.dtype) == ((32,), torch.bool)


def test_the_score_matrix_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Watched(OneThread):
        def scratch(self, size: int) -> torch.Tensor:
            asked.append(size)
            return super().scratch(size)

    monkeypatch.setattr(card, "owner_of", Watched)
    index = CardIndex(unit(3_000), CPU, scores=100_000, chunk=128)
    for count in (1, 8, 60, 100):
        index.search(unit(count, seed=1), 5)
    # Float32: 3,072 padded rows, whole chunks below 100,000 bytes, one chunk at least, queries filled up to 2^n.
    assert asked == [4 * 3_072, 4 * 8 * 3_072, 4 * 64 * 384, 4 * 128 * 128]
    assert max(asked) <= 100_000


def test_through_an_owner_several_threads_get_what_one_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "owner_of", OneThread)
    vectors = unit(800)
    index, exact = CardIndex(vectors, CPU, **SMALL), ExactIndex(vectors)
    parts = [unit(7, seed=seed) for seed in range(6)]
    masks = [np.random.default_rng(seed).random(800) < 0.5 for seed in range(6)]
    found: dict[int, np.ndarray] = {}

    def ask(place: int) -> None:
        found[place] = index.search(parts[place], 9, masks[place]).rows

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for place in range(6):
        np.testing.assert_array_equal(found[place], exact.search(parts[place], 9, masks[place]).rows)


def test_a_card_without_memory_left_is_stood_in_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vectors, queries = unit(200), unit(5, seed=1)
    index = CardIndex(vectors, CPU)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(index, "_answered", full)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_array_equal(index.search(queries, 4).rows, ExactIndex(vectors).search(queries, 4).rows)
    assert [record.getMessage() for record in caplog.records] == [
        "The CPU searches in place of cpu, which has no memory left: none left"
    ]
    assert index.given_up == 15


def test_what_does_not_fit_is_refused() -> None:
    index = CardIndex(unit(20), CPU)
    with pytest.raises(ValueError, match=r"queries of shape \(2, 7\), \(2, 24\) expected"):
        index.search(unit(2, dimensions=7), 3)
    with pytest.raises(ValueError, match=r"queries of shape \(2, 24\), \(1, 24\) expected"):
        index.search_each(unit(2), 3, [None])
    with pytest.raises(ValueError, match=r"a mask has the shape \(21,\), \(20,\) expected"):
        index.search(unit(2), 3, np.ones(21, bool))


def test_any_other_failure_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    index = CardIndex(unit(20), CPU)

    def broken(*_: object) -> None:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(index, "_best", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        index.search(unit(2), 3)


def test_it_is_freed_with_its_last_reference() -> None:
    index = CardIndex(unit(200), CPU, torch.float16)
    index.search(unit(3, seed=1), 5, np.arange(200) % 2 == 0)
    tables = [weakref.ref(index._table), weakref.ref(index._full)]
    gc.disable()
    try:
        # At once, not at the next collection: the next release needs the room.
        del index
        assert [table() for table in tables] == [None, None]
    finally:
        gc.enable()


@pytest.mark.gpu
def test_a_card_gets_its_memory_back() -> None:
    device = torch.device("cuda:0")
    CardIndex(unit(1_000), device).search(unit(300, seed=1), 5)
    before = torch.cuda.memory_allocated(device)
    index = CardIndex(unit(100_000, 64), device)
    assert torch.cuda.memory_allocated(device) >= before + index.size
    del index
    assert torch.cuda.memory_allocated(device) == before


def test_the_kind_names_device_and_precision(make: Make) -> None:
    index = make(unit(3))
    assert index.kind in ("exact on cpu (float32)", "exact on cpu (float16)", "exact on cuda:0 (float16)")
    assert (len(index), index.dimensions) == (3, 24)
    assert CardIndex(unit(3), CPU).kind == "exact on cpu (float32)"
