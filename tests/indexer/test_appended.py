"""Rows behind an index: gathered and found as if they were of it."""

from collections.abc import Callable

import numpy as np
import pytest

from indexer.appended import Appended, AppendedIndex
from indexer.arrays import Floats
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex
from indexer.exact import ExactIndex
from indexer.index import NOTHING, Searchable

ROWS, FURTHER = 300, 7


@pytest.fixture
def vectors(clustered: Callable[[int, int], Floats]) -> Floats:
    return clustered(ROWS + FURTHER, 1)


def parts(vectors: Floats) -> tuple[Floats, Floats]:
    return vectors[:ROWS], vectors[ROWS:]


@pytest.mark.parametrize(
    "rows",
    [
        np.array([3, 299]),
        np.array([300, 306]),
        np.array([306, 0, 300, 299, 306]),
        np.array([[1, 301], [306, 2]]),
        5,
        303,
    ],
)
def test_rows_are_those_of_the_whole(vectors: Floats, rows: np.ndarray | int) -> None:
    made = Appended(*parts(vectors))
    assert (len(made), made.shape) == (len(vectors), vectors.shape)
    gathered = made[rows]
    assert gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered, vectors[rows])


def test_no_rows_and_all_rows(vectors: Floats) -> None:
    made = Appended(*parts(vectors))
    assert made[np.empty(0, np.int64)].shape == (0, vectors.shape[1])
    np.testing.assert_array_equal(np.asarray(made), vectors)


def test_a_row_that_is_not_there_is_an_error(vectors: Floats) -> None:
    with pytest.raises(IndexError):
        Appended(*parts(vectors))[np.array([ROWS + FURTHER])]


@pytest.mark.parametrize("kind", ["exact", "HNSW32"])
@pytest.mark.parametrize("k", [1, 10, ROWS + FURTHER + 5])
def test_neighbours_are_those_of_the_whole(
    vectors: Floats, kind: str, k: int, clustered: Callable[[int, int], Floats]
) -> None:
    first, second = parts(vectors)
    base: Searchable = ExactIndex(first)
    if kind != "exact":
        config = IndexerConfig(ef_search=512)
        base = DenseIndex.build(kind, first, config).extended(first)
    queries = np.concatenate([clustered(4, 2), second[:2]])
    index, oracle = AppendedIndex(base, second), ExactIndex(vectors)
    assert (len(index), index.dimensions, index.kind) == (len(vectors), vectors.shape[1], base.kind)
    kept = np.arange(len(vectors)) % 3 == 0
    for mask in (None, kept, ~kept, np.arange(len(vectors)) >= ROWS):
        found, wanted = index.search(queries, k, mask), oracle.search(queries, k, mask)
        np.testing.assert_array_equal(found.rows, wanted.rows)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)


def test_each_query_under_its_own_mask_which_the_index_meets_once(vectors: Floats) -> None:
    first, second = parts(vectors)
    met: list[list[int]] = []

    class Noting(ExactIndex):
        def search_each(self, queries, k, masks):  # type: ignore[no-untyped-def]
            met.append([id(mask) for mask in masks])
            return super().search_each(queries, k, masks)

    only_last = np.zeros(len(vectors), bool)
    only_last[-1] = True
    none = np.zeros(len(vectors), bool)
    found = AppendedIndex(Noting(first), second).search_each(vectors[:4], 2, [only_last, None, only_last, none])
    assert found.rows[[0, 2]].tolist() == [[len(vectors) - 1, NOTHING]] * 2
    assert found.rows[1, 0] == 1
    assert found.rows[3].tolist() == [NOTHING, NOTHING]
    assert met[0][0] == met[0][2] != met[0][3]


def test_what_an_index_answers_may_be_read_only(vectors: Floats) -> None:
    class Sealed(ExactIndex):
        def search_each(self, queries, k, masks):  # type: ignore[no-untyped-def]
            found = super().search_each(queries, k, masks)
            for array in found:
                array.setflags(write=False)
            return found

    first, second = parts(vectors)
    assert AppendedIndex(Sealed(first), second).search(second[:1], 3).rows[0, 0] == ROWS


def test_no_query_is_answered_by_nothing(vectors: Floats) -> None:
    assert AppendedIndex(ExactIndex(vectors[:5]), vectors[5:9]).search_each(vectors[:0], 3, []).rows.shape == (0, 3)
