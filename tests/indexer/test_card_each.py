"""A mask for each query of the card's index, and queries that are a tensor; on the CPU as in test_card.py."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from card_forms import CPU, FORMS, SMALL, Make, check_found, crowded, unit

from indexer import card
from indexer.arrays import Floats, Mask
from indexer.card import BATCH, CardIndex
from indexer.card_masks import BITS, Kept, Packed
from indexer.exact import ExactIndex
from indexer.index import Neighbours


@pytest.fixture(params=FORMS)
def make(request: pytest.FixtureRequest) -> Make:
    place, dtype = request.param
    return lambda vectors, **options: CardIndex(vectors, torch.device(place), dtype, **options)


def kept_at_random(rows: int, shares: Sequence[float]) -> list[Mask]:
    random = np.random.default_rng(4)
    return [random.random(rows) < share for share in shares]


def check_each(index: CardIndex, vectors: Floats, queries: Floats, k: int, masks: Sequence[Mask | None]) -> None:
    """What each query finds is right under its own mask."""
    rows, scores = index.search_each(queries, k, masks)
    for place, mask in enumerate(masks):
        one = slice(place, place + 1)
        check_found(Neighbours(rows[one], scores[one]), vectors, queries[one], k, mask)


@pytest.mark.parametrize("rows", [1, 8, 13, 1_003])
@pytest.mark.parametrize("bits", [0, 2 * 128, BITS])
def test_each_query_has_its_own_mask(make: Make, rows: int, bits: int) -> None:
    """With `bits` for one mask at once, for two of 1,003 rows, and for all."""
    some = kept_at_random(rows, (0.5, 0.02, 0.9))
    nothing = np.zeros(rows, bool)
    masks = [some[0], None, some[1], nothing, some[0], some[2], None, some[1], ~some[0], nothing, some[2]]
    vectors = unit(rows)
    index = make(vectors, **SMALL, bits=bits)
    check_each(index, vectors, unit(len(masks), seed=1), 20, masks)
    assert (index.asked, index.given_up) == (sum(mask is None or bool(mask.any()) for mask in masks), 0)


@pytest.mark.parametrize("bits", [10 * 304 // 8, BITS])
def test_more_masks_and_queries_than_are_asked_at_once(make: Make, bits: int) -> None:
    """`bits` for 10 of the 150 masks; 300 queries are more than a batch."""
    distinct = kept_at_random(300, np.linspace(0.0, 1.0, 150).tolist())
    masks = [distinct[number] for number in np.random.default_rng(8).integers(150, size=BATCH + 44)]
    vectors = unit(300)
    check_each(make(vectors, bits=bits), vectors, unit(len(masks), seed=1), 9, masks)


def test_ties_come_by_row_under_every_mask(make: Make) -> None:
    vectors = np.repeat(unit(4), 50, axis=0)
    masks = [np.arange(200) % 2 == 0, None, np.arange(200) >= 70]
    rows, _ = make(vectors, **SMALL).search_each(vectors[[60, 60, 60]], 25, masks)
    assert rows.tolist() == [list(range(50, 100, 2)), list(range(50, 75)), list(range(70, 95))]


def test_masks_go_on_with_the_queries_that_are_widened() -> None:
    """Of five queries the three among the near ties are scanned again, each still under its own mask."""
    vectors = np.vstack([crowded(2_000, 1e-4), unit(1_000)])
    masks = kept_at_random(3_000, (0.9, 0.5, 0.7, 0.6, 0.8))
    index = CardIndex(vectors, CPU, torch.float16)
    check_each(index, vectors, vectors[[5, 2_500, 700, 2_600, 1_900]], 10, masks)
    assert index.widened >= 3
    assert index.given_up == 0


def test_what_is_given_up_is_answered_under_its_own_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "_WIDEST", 1)
    vectors = unit(500)
    masks = [*kept_at_random(500, (0.5, 0.3)), None]
    index = CardIndex(vectors, CPU, torch.float16)
    # As if rounding could change any score by anything.
    index._error = np.inf
    check_each(index, vectors, unit(6, seed=1), 10, masks * 2)
    assert index.given_up == 6


def test_a_mask_is_uploaded_once_for_all_its_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: list[tuple[int, ...]] = []
    on = Packed.on

    def watched(self: Packed, device: torch.device) -> Kept:
        uploaded.append(tuple(self.bits.shape))
        return on(self, device)

    monkeypatch.setattr(Packed, "on", watched)
    one, other = kept_at_random(1_000, (0.5, 0.5))
    index = CardIndex(unit(1_000), CPU, bits=2 * 125)
    index.search_each(unit(200, seed=1), 5, [one, other] * 100)
    # A third does not fit beside them, and queries without a mask need none.
    index.search_each(unit(6, seed=1), 5, [one, ~one, other] * 2)
    index.search_each(unit(6, seed=1), 5, [None] * 6)
    assert uploaded == [(2, 125), (2, 125), (1, 125)]


@pytest.mark.parametrize("form", [torch.float32, torch.float16])
def test_queries_may_be_a_tensor(make: Make, form: torch.dtype) -> None:
    vectors = unit(500)
    index = make(vectors, **SMALL)
    masks = [*kept_at_random(500, (0.5, 0.0, 0.2)), None]
    queries = torch.from_numpy(unit(4, seed=1)).to(index._device, form)
    host = queries.float().cpu().numpy()
    check_each(index, vectors, host, 7, masks)
    found, expected = index.search_each(queries, 7, masks), index.search_each(host, 7, masks)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_tensor_is_stood_in_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    index = CardIndex(unit(100), CPU)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(index, "_answered", full)
    masks = [*kept_at_random(100, (0.5, 0.5)), None]
    queries = unit(3, seed=1)
    found = index.search_each(torch.from_numpy(queries), 4, masks)
    for place, mask in enumerate(masks):
        expected = ExactIndex(unit(100)).search(queries[[place]], 4, mask)
        np.testing.assert_array_equal(found.rows[place], expected.rows[0])


@pytest.mark.gpu
def test_queries_that_another_stream_still_computes_are_waited_for() -> None:
    device = torch.device("cuda:0")
    index = CardIndex(unit(1_000), device)
    queries = torch.zeros((8, 24), device=device)
    with torch.cuda.stream(torch.cuda.Stream(device)):
        # The product takes much longer than it takes to begin a search.
        large = torch.ones((8_192, 8_192), device=device)
        for _ in range(20):
            large = large @ large * 0
        queries += torch.from_numpy(unit(8, seed=1)).to(device) + large[:8, :24]
        found = index.search_each(queries, 5, [None] * 8)
    np.testing.assert_array_equal(found.rows, ExactIndex(unit(1_000)).search(unit(8, seed=1), 5).rows)
