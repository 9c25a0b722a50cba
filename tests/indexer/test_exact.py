from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer import exact
from indexer.arrays import Floats
from indexer.exact import ExactIndex


def test_ties_are_answered_in_row_order() -> None:
    index = ExactIndex(np.array([[0, 1], [1, 0], [0, 1], [1, 0]], np.float32))
    rows, scores = index.search(np.array([[1, 0]], np.float32), 4)
    assert rows.tolist() == [[1, 3, 0, 2]]
    assert scores.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("block", [1, 7, 64, 1_000])
def test_blocks_change_nothing(
    block: int, clustered: Callable[[int, int], Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = clustered(300, 1), clustered(5, 2)
    mask = np.arange(300) % 3 == 0
    whole = ExactIndex(vectors).search(queries, 9), ExactIndex(vectors).search(queries, 9, mask)
    monkeypatch.setattr(exact, "_BLOCK", block)
    parts = ExactIndex(vectors).search(queries, 9), ExactIndex(vectors).search(queries, 9, mask)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)


def test_an_empty_index_answers_nothing() -> None:
    index = ExactIndex(np.empty((0, 4), np.float32))
    assert index.search(np.ones((2, 4), np.float32), 3).rows.tolist() == [[-1, -1, -1], [-1, -1, -1]]


def test_saving_writes_no_file(tmp_path: Path) -> None:
    ExactIndex(np.ones((1, 4), np.float32)).save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_kept_rows_are_scored_in_place_as_they_are_copied(
    clustered: Callable[[int, int], Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = clustered(300, 1), clustered(4, 2)[:, ::-1]
    mask = np.random.default_rng(0).random(300) < 0.4
    in_place = ExactIndex(vectors).search(queries, 9, mask)
    monkeypatch.setattr(exact, "_FEW", 0)
    copied = ExactIndex(vectors).search(queries, 9, mask)
    np.testing.assert_array_equal(in_place.rows, copied.rows)
    np.testing.assert_allclose(in_place.scores, copied.scores, atol=1e-6)


def test_the_best_of_given_candidates_are_those_of_a_search_that_keeps_them(
    clustered: Callable[[int, int], Floats],
) -> None:
    index, queries = ExactIndex(clustered(300, 1)), clustered(3, 2)
    candidates = np.stack([np.random.default_rng(i).permutation(300)[:40] for i in range(3)])
    found = index.among(queries, candidates, 9)
    for place, kept in enumerate(candidates):
        expected = index.search(queries[place, None], 9, np.isin(np.arange(300), kept))
        np.testing.assert_array_equal(found.rows[place], expected.rows[0])
        np.testing.assert_allclose(found.scores[place], expected.scores[0], atol=1e-6)


def test_candidates_that_are_none_come_last_and_what_is_missing_is_filled_up() -> None:
    index = ExactIndex(np.array([[1, 0], [0, 1], [1, 1]], np.float32))
    found = index.among(np.array([[1, 0.5]], np.float32), np.array([[-1, 1, 2, -1]]), 3)
    assert (found.rows.tolist(), found.scores.tolist()) == ([[2, 1, -1]], [[1.5, 0.5, -np.inf]])
    found = index.among(np.array([[1, 0.5]], np.float32), np.array([[1]]), 2)
    assert (found.rows.tolist(), found.scores.tolist()) == ([[1, -1]], [[0.5, -np.inf]])
    assert index.among(np.empty((0, 2), np.float32), np.empty((0, 4), np.int64), 2).rows.shape == (0, 2)
