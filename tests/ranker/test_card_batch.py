"""Lists laid into one piece of memory: nothing of them is lost, and what they are filled up by names no product."""

import numpy as np
import pytest
import torch

from ranker.card_batch import Shape, batched, candidates_of
from ranker.features import Context
from ranker.history import CLICK, EMPTY, History
from ranker.recent import RECENT, recent
from ranker.scoring import Scorable

NOW = 1_000_000_000.0
FEATURES, SPACE = 3, 4


def item(rows: int, engagements: int = 0, query: bool = False) -> Scorable:
    rng = np.random.default_rng([rows, engagements, query])
    times = tuple(np.sort(NOW - 10 ** rng.uniform(1, 8, engagements)).tolist())
    history = History(tuple(rng.integers(0, 99, engagements).tolist()), (CLICK,) * engagements, times)
    vector = rng.normal(size=SPACE).astype(np.float32) if query else None
    features = rng.normal(size=(rows, FEATURES)).astype(np.float32)
    return Scorable(Context(NOW, history, query_in_space=vector), rng.integers(1, 99, rows), features)


@pytest.mark.parametrize(
    ("count", "size"),
    [(0, 32), (1, 32), (32, 32), (33, 48), (48, 48), (49, 64), (200, 256), (300, 384), (385, 512), (1_000, 1_024)],
)
def test_sizes_of_lists(count: int, size: int) -> None:
    assert candidates_of(count) == size


def test_few_sizes_for_all_lists_and_a_third_filled_up() -> None:
    counts = np.arange(1, 1_001)
    sizes = np.array([candidates_of(int(count)) for count in counts])
    assert len(set(sizes.tolist())) == 11
    assert (sizes >= counts).all()
    # From 65 to 96 and from 97 to 128, say.
    assert (sizes[64:] / counts[64:]).max() < 1.5


def test_all_of_the_lists_is_there() -> None:
    lists = [item(40, 3, True), item(0), item(7, RECENT + 20), item(33, 0, True), item(1, RECENT)]
    shape, memory = batched(lists, SPACE, 5)
    assert shape == Shape(8, 48, FEATURES, SPACE)
    assert (memory.dtype, len(memory)) == (torch.float32, shape.size)
    x = shape.parts(memory)
    for i, one in enumerate(lists):
        rows, ages, _ = recent(one.context.history, NOW)
        np.testing.assert_array_equal(x.features[i, : len(one.rows)], one.features)
        np.testing.assert_array_equal(x.rows[i, : len(one.rows)], one.rows)
        np.testing.assert_array_equal(x.history[i, :RECENT], rows[0])
        np.testing.assert_array_equal(x.ages[i, :RECENT], ages[0])
        query = one.context.query_in_space
        np.testing.assert_array_equal(x.queries[i], np.zeros(SPACE) if query is None else query)


def test_what_is_filled_up_is_a_product_that_exists_and_no_engagement() -> None:
    lists = [item(40, 3, True), item(7, 5), item(1)]
    shape, memory = batched(lists, SPACE, 5)
    x = shape.parts(memory)
    assert (x.history[:, RECENT:] == -1).all()
    assert (x.history[3] == -1).all()
    assert (x.rows[3] == 0).all()
    for i, one in enumerate(lists):
        assert (x.rows[i, len(one.rows) :] == 0).all()
        assert (x.features[i, len(one.rows) :] == 0).all()


def test_the_usual_length_is_the_least() -> None:
    assert batched([item(3)], SPACE, 200)[0].candidates == 256
    assert batched([item(3), item(300)], SPACE, 200)[0].candidates == 384


def test_parts_lie_in_the_memory_that_is_copied() -> None:
    lists = [item(40, 3, True), item(7, 5)]
    shape, memory = batched(lists, SPACE, 5)
    for part, copied in zip(shape.parts(memory), shape.parts(memory.clone()), strict=True):
        assert torch.equal(part, copied)
        assert part.untyped_storage().data_ptr() == memory.untyped_storage().data_ptr()


def test_nothing_but_empty_lists() -> None:
    shape, memory = batched([Scorable(Context(NOW, EMPTY), np.empty(0, np.int64), np.empty((0, 3), np.float32))], 4, 1)
    assert shape == Shape(1, 32, 3, SPACE)
    assert shape.parts(memory).rows.sum() == 0
