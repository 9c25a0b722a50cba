from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from mean_of_words import MeanOfWords, reference, tokeniser

pytest.importorskip("openvino", reason="the compiled encoder is part of the cpu extra")

from indexer.compiled import CompiledForward, parted
from indexer.traced import converted


@pytest.fixture(scope="module", params=[True, False], ids=["token types", "no token types"])
def compiled(request: pytest.FixtureRequest) -> CompiledForward:
    return CompiledForward(converted(MeanOfWords(), tokeniser(token_types=request.param)), threads=1)


def batch(rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(rows * 100 + width)
    mask = np.arange(width) < random.integers(1, width + 1, size=(rows, 1))
    return random.integers(50, size=(rows, width)), mask.astype(np.int64)


@pytest.mark.parametrize(
    ("rows", "width"), [(1, 1), (1, 8), (1, 9), (1, 40), (3, 5), (4, 5), (7, 3), (8, 16), (5, 17), (32, 20)]
)
def test_batches_of_any_shape_agree_with_torch(compiled: CompiledForward, rows: int, width: int) -> None:
    vectors = compiled(*batch(rows, width))
    assert (vectors.shape, vectors.dtype) == ((rows, 8), np.float32)
    assert ((vectors * reference(*batch(rows, width))).sum(1) > 0.999).all()


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ([5], [[0]]),
        ([9, 5], [[1], [0]]),
        ([9, 5, 7], [[1, 2, 0]]),
        ([9, 20, 5, 7], [[2, 3, 0], [1]]),
        ([30, 5, 20, 7], [[1], [3], [2], [0]]),
        ([9, 5, 7, 6, 16, 17], [[1, 3, 2, 0], [4], [5]]),
        ([20], [[0]]),
        ([8, 7, 6, 5, 4, 3, 2, 1], [[7, 6, 5, 4], [3, 2, 1, 0]]),
    ],
)
def test_queries_go_by_fours_of_like_lengths_and_long_ones_alone(widths: list[int], expected: list[list[int]]) -> None:
    assert [part.tolist() for part in parted(np.array(widths))] == expected


def test_a_long_query_among_others_is_what_it_is_alone(compiled: CompiledForward) -> None:
    ids, mask = batch(6, 30)
    mask[:, 10:] = 0
    mask[2] = 1
    together = compiled(ids, mask)
    assert ((together * reference(ids, mask)).sum(1) > 0.999).all()
    np.testing.assert_array_equal(together[2], compiled(ids[2:3], mask[2:3])[0])


def test_few_rows_are_each_what_they_are_alone(compiled: CompiledForward) -> None:
    ids, mask = batch(2, 6)
    together = compiled(ids, mask)
    for i in range(2):
        np.testing.assert_array_equal(
            together[i : i + 1], compiled(ids[i : i + 1, : mask[i].sum()], mask[i : i + 1, : mask[i].sum()])
        )


def test_a_result_outlives_the_next_call(compiled: CompiledForward) -> None:
    first = compiled(*batch(3, 4))
    kept = first.copy()
    compiled(*batch(3, 5))
    np.testing.assert_array_equal(first, kept)


def test_threads_do_not_disturb_each_other(compiled: CompiledForward) -> None:
    batches = [batch(rows, 6) for rows in range(1, 41)]
    alone = [compiled(*each) for each in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: compiled(*each), batches))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
