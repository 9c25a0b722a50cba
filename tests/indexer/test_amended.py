"""Rows amended after an index was built: gathered and found as if it had been built with them."""

from collections.abc import Callable

import numpy as np
import pytest

from indexer.amended import Amended, AmendedIndex, AmendedRows
from indexer.arrays import Floats, Ints
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex
from indexer.exact import ExactIndex
from indexer.index import NOTHING, Neighbours, Searchable

ROWS, FURTHER = 300, 7
BEHIND = np.arange(ROWS, ROWS + FURTHER)
# Nothing replaced; some replaced and some behind; some replaced and none behind.
AMENDED = [BEHIND, np.concatenate([[0, 17, 250, 299], BEHIND]), np.array([5, 6])]


@pytest.fixture
def vectors(clustered: Callable[[int, int], Floats]) -> Floats:
    return clustered(ROWS + FURTHER, 1)


@pytest.fixture(params=AMENDED, ids=["behind", "both", "replaced"])
def rows(request: pytest.FixtureRequest) -> AmendedRows:
    return AmendedRows(request.param, ROWS)


def before(whole: Floats, rows: AmendedRows) -> Floats:
    """The vectors that an index was built with, where those of `whole` came later: what is replaced was elsewhere."""
    first = whole[: rows.built].copy()
    first[rows.rows[: rows.replaced]] = first[(rows.rows[: rows.replaced] + 100) % rows.built]
    return first


def amended(vectors: Floats, rows: AmendedRows) -> tuple[Floats, Floats, Floats]:
    """All vectors as they are now, those of before, and those of the amended rows."""
    whole = vectors[: rows.total]
    return whole, before(whole, rows), whole[rows.rows]


def test_which_rows() -> None:
    made = AmendedRows(np.array([2, 5, 6]), 5)
    assert (made.replaced, made.total, made.mask.tolist()) == (1, 7, [False, False, True, False, False, True, True])
    assert made.into(np.arange(5), np.array([20, 50, 60])).tolist() == [0, 1, 20, 3, 4, 50, 60]


@pytest.mark.parametrize(
    "wanted",
    [
        np.array([3, 299]),
        np.array([299, 0, 250, 17, 17]),
        np.array([[1, 250], [299, 2]]),
        5,
        17,
    ],
)
def test_rows_are_those_of_the_whole(vectors: Floats, rows: AmendedRows, wanted: Ints | int) -> None:
    whole, first, second = amended(vectors, rows)
    made = Amended(first, rows, second)
    assert (len(made), made.shape) == (len(whole), whole.shape)
    gathered = made[wanted]
    assert gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered, whole[wanted])


@pytest.mark.parametrize("wanted", [np.array([300, 306]), np.array([306, 0, 300, 299, 306]), 303])
def test_rows_behind_are_gathered_with_the_others(vectors: Floats, wanted: Ints | int) -> None:
    rows = AmendedRows(AMENDED[1], ROWS)
    whole, first, second = amended(vectors, rows)
    np.testing.assert_array_equal(Amended(first, rows, second)[wanted], whole[wanted])


def test_no_rows_and_all_rows(vectors: Floats, rows: AmendedRows) -> None:
    whole, first, second = amended(vectors, rows)
    made = Amended(first, rows, second)
    assert made[np.empty(0, np.int64)].shape == (0, vectors.shape[1])
    np.testing.assert_array_equal(np.asarray(made), whole)


def test_a_row_that_is_not_there_is_an_error(vectors: Floats, rows: AmendedRows) -> None:
    _, first, second = amended(vectors, rows)
    with pytest.raises(IndexError):
        Amended(first, rows, second)[np.array([rows.total])]


@pytest.mark.parametrize("kind", ["exact", "HNSW32"])
@pytest.mark.parametrize("k", [1, 10, 100, ROWS + FURTHER + 5])
def test_neighbours_are_those_of_the_whole(
    vectors: Floats, rows: AmendedRows, kind: str, k: int, clustered: Callable[[int, int], Floats]
) -> None:
    whole, first, second = amended(vectors, rows)
    base: Searchable = ExactIndex(first)
    if kind != "exact":
        config = IndexerConfig(ef_search=512)
        base = DenseIndex.build(kind, first, config).extended(first)
    # The last two are where amended rows are now, and where they were.
    queries = np.concatenate([clustered(4, 2), second[:2], first[rows.rows[: rows.replaced]]])
    index, oracle = AmendedIndex(base, rows, second), ExactIndex(whole)
    assert (len(index), index.dimensions, index.kind) == (len(whole), whole.shape[1], base.kind)
    kept = np.arange(len(whole)) % 3 == 0
    for mask in (kept, ~kept, rows.mask, ~rows.mask):
        same(index.search(queries, k, mask), oracle.search(queries, k, mask))
    found, wanted = index.search(queries, k), oracle.search(queries, k)
    if k in (1, ROWS + FURTHER + 5) or not rows.replaced:
        same(found, wanted)
    # What stood in the way may leave the last tenth of the places unfilled, and nothing else.
    for row, score, there, scored in zip(found.rows, found.scores, wanted.rows, wanted.scores, strict=True):
        filled = int(np.count_nonzero(row != NOTHING))
        assert filled >= min(0.9 * k, len(whole))
        same(Neighbours(row[:filled], score[:filled]), Neighbours(there[:filled], scored[:filled]))
        assert (row[filled:] == NOTHING).all()
        assert (score[filled:] == -np.inf).all()


def same(found: Neighbours, wanted: Neighbours) -> None:
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)


def test_what_loses_much_of_what_it_found_is_searched_again(clustered: Callable[[int, int], Floats]) -> None:
    whole = clustered(50, 3)
    query = whole[:1].copy()
    near = np.sort(ExactIndex(whole).search(query, 5).rows[0])
    rows = AmendedRows(near, 50)
    index = AmendedIndex(ExactIndex(whole), rows, -whole[near])
    moved = whole.copy()
    moved[near] = -whole[near]
    same(index.search(query, 5), ExactIndex(moved).search(query, 5))


def test_of_equals_the_first_row_is_the_better() -> None:
    unit = np.eye(4, dtype=np.float32)
    # Row 1 is amended to be what row 3 is.
    index = AmendedIndex(ExactIndex(unit), AmendedRows(np.array([1]), 4), unit[3:])
    assert index.search(unit[3:], 1).rows.tolist() == [[1]]
    assert index.search(unit[3:], 2).rows.tolist() == [[1, 3]]


def test_each_query_under_its_own_mask_which_the_index_meets_once(vectors: Floats, rows: AmendedRows) -> None:
    whole, first, second = amended(vectors, rows)
    met: list[list[int]] = []

    class Noting(ExactIndex):
        def search_each(self, queries, k, masks):  # type: ignore[no-untyped-def]
            met.append([id(mask) for mask in masks])
            return super().search_each(queries, k, masks)

    only_last = np.zeros(len(whole), bool)
    only_last[-1] = True
    none = np.zeros(len(whole), bool)
    found = AmendedIndex(Noting(first), rows, second).search_each(whole[:4], 2, [only_last, None, only_last, none])
    assert found.rows[[0, 2]].tolist() == [[len(whole) - 1, NOTHING]] * 2
    assert found.rows[1, 0] == 1
    assert found.rows[3].tolist() == [NOTHING, NOTHING]
    assert met[0][0] == met[0][2] != met[0][3]


def test_what_an_index_answers_may_be_read_only(vectors: Floats, rows: AmendedRows) -> None:
    class Sealed(ExactIndex):
        def search_each(self, queries, k, masks):  # type: ignore[no-untyped-def]
            found = super().search_each(queries, k, masks)
            for array in found:
                array.setflags(write=False)
            return found

    _, first, second = amended(vectors, rows)
    assert AmendedIndex(Sealed(first), rows, second).search(second[:1], 3).rows[0, 0] == rows.rows[0]


def test_no_query_is_answered_by_nothing(vectors: Floats) -> None:
    index = AmendedIndex(ExactIndex(vectors[:5]), AmendedRows(np.array([1, 5, 6]), 5), vectors[5:8])
    assert index.search_each(vectors[:0], 3, []).rows.shape == (0, 3)
