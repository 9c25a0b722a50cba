import numpy as np
import pytest
import torch

from indexer.arrays import Mask
from indexer.card_masks import packed
from indexer.masks import Masks

CPU = torch.device("cpu")


def drawn(count: int, rows: int) -> list[Mask]:
    return list(np.random.default_rng(0).random((count, rows)) < 0.5)


def test_an_array_given_several_times_is_one_mask() -> None:
    one, other = drawn(2, 10)
    known = Masks([one, None, other, one, None, one.copy()], 10)
    assert len(known.distinct) == 4
    assert known.number.tolist() == [0, 1, 2, 0, 1, 3]


def test_parts_hold_every_query_once_within_both_bounds() -> None:
    distinct: list[Mask | None] = [*drawn(9, 10), None]
    masks = [distinct[number] for number in np.random.default_rng(1).integers(10, size=200)]
    known = Masks(masks, 10)
    for queries, most in ((1, 1), (7, 3), (50, 2), (200, 10), (500, 4)):
        parts = list(known.parts(queries, most))
        assert sorted(np.concatenate(parts).tolist()) == list(range(200))
        for part in parts:
            assert 0 < len(part) <= queries
            assert len(np.unique(known.number[part])) <= most
            assert (np.diff(part) > 0).all()
    # As few as there can be: with room for all of them, one.
    assert len(list(known.parts(200, 10))) == 1


def test_queries_whose_mask_keeps_nothing_are_not_asked() -> None:
    [some], nothing = drawn(1, 10), np.zeros(10, bool)
    known = Masks([nothing, some, None, nothing], 10)
    assert [part.tolist() for part in known.parts(8, 8)] == [[1, 2]]
    assert list(Masks([nothing, nothing], 10).parts(8, 8)) == []
    assert list(Masks([], 10).parts(8, 8)) == []


@pytest.mark.parametrize("given", [False, True])
def test_a_mask_may_come_packed(given: bool) -> None:
    [mask] = drawn(1, 13)
    known = Masks([np.packbits(mask, bitorder="little") if given else mask, None], 13)
    bits = packed(known, np.array([0]), 16, pinned=False)
    assert bits is not None
    assert bits.bits.numpy()[0].tolist() == np.packbits(mask, bitorder="little").tolist()
    unpacked = known.unpacked(0)
    assert unpacked is not None
    assert (unpacked.dtype, unpacked.tolist(), known.unpacked(1)) == (np.bool_, mask.tolist(), None)


@pytest.mark.parametrize("mask", [np.ones(12, bool), np.ones(3, np.uint8), np.ones((2, 13), bool)])
def test_a_mask_of_another_shape_is_refused(mask: Mask) -> None:
    with pytest.raises(ValueError, match="a mask has the shape"):
        Masks([None, mask], 13)


@pytest.mark.parametrize("rows", [1, 7, 8, 100, 128])
@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4], [1, 3], [2], [0]])
def test_what_is_packed_hides_what_the_masks_leave_out(rows: int, places: list[int]) -> None:
    one, other = drawn(2, rows)
    masks = [one, other, None, other, None]
    known, padded = Masks(masks, rows), 128
    bits = packed(known, np.array(places), padded, pinned=False)
    if places == [2]:
        assert bits is None
        return
    assert bits is not None
    assert bits.bits.shape == (len({id(masks[place]) for place in places}), padded // 8)
    count = 8
    kept = bits.on(CPU).of(bits.which[places], count)
    scores = torch.zeros((count, padded))
    # In two blocks, as a scan has them.
    for start, stop in ((0, 48), (48, padded)):
        kept.hide(scores[:, start:stop], start)
    for row, place in enumerate(places):
        mask = masks[place]
        expected = np.zeros(padded, bool)
        expected[:rows] = True if mask is None else mask
        np.testing.assert_array_equal(scores[row].numpy() == 0, expected)
