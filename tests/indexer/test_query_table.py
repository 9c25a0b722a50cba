"""Queries without a pass of the model: what the table answers, what it leaves to the encoder, and its files."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from sums import SumEncoder

from indexer.arrays import Floats
from indexer.encoder import Encoder
from indexer.errors import SnapshotError
from indexer.query_table import LONGEST, QueryEncoder, QueryTable

# Tokens 0 to 4; token 1 has no vector.
ROWS = np.array([0, -1, 1, 2, 3])
VECTORS = np.array([[1, 0, 0], [0, 2, 0], [-1, 0, 0], [0.5, 0.5, 3]], np.float16)


@pytest.fixture
def table() -> QueryTable:
    return QueryTable(ROWS, VECTORS)


def test_a_querys_vector_is_the_direction_of_the_sum(table: QueryTable) -> None:
    made = table.embed([0, 2, 2])
    assert made is not None
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, np.array([1, 4, 0]) / np.sqrt(17), rtol=1e-6)
    np.testing.assert_allclose(cast(Floats, table.embed([4])), VECTORS[3] / np.sqrt(9.5), rtol=1e-6)


@pytest.mark.parametrize(
    "token_ids",
    [
        pytest.param([0, 1], id="a token without a vector"),
        pytest.param([0, 5], id="a token beyond the table"),
        pytest.param([0] * (LONGEST + 1), id="too long"),
        pytest.param([0, 3], id="tokens that cancel out"),
        pytest.param([], id="nothing"),
    ],
)
def test_what_it_leaves_to_the_model(table: QueryTable, token_ids: Sequence[int]) -> None:
    assert table.embed(token_ids) is None


def test_the_longest_is_answered(table: QueryTable) -> None:
    assert table.embed([0] * LONGEST) is not None


def test_what_is_saved_is_opened(table: QueryTable, tmp_path: Path) -> None:
    table.save(tmp_path)
    opened = QueryTable.load(tmp_path)
    assert len(opened) == len(table) == 4
    np.testing.assert_array_equal(cast(Floats, opened.embed([0, 4])), cast(Floats, table.embed([0, 4])))


def test_a_damaged_table_is_told(table: QueryTable, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="Build the index again"):
        QueryTable.load(tmp_path)
    QueryTable(np.array([7]), VECTORS).save(tmp_path)
    with pytest.raises(SnapshotError, match="vectors that are not there"):
        QueryTable.load(tmp_path)


def test_the_encoder_answers_what_the_table_does_not_know() -> None:
    encoder = SumEncoder(["red", "wool", "scarf", "blue"])
    known = np.full(encoder.tokeniser.greatest + 1, -1)
    # The table knows the marks, "red" and "wool", and says of them what the encoder never would.
    [first, red, wool, last] = encoder.tokeniser(["red wool"])[0]
    known[[first, red, wool, last]] = [0, 1, 2, 0]
    vectors = np.zeros((3, encoder.dimensions), np.float32)
    vectors[1, 0], vectors[2, 1] = 1, 1
    queries = QueryEncoder(cast(Encoder, encoder), QueryTable(known, vectors))
    asked = ["blue scarf", "Red  wool", "red", "red scarf"]
    made = queries.encode(asked)
    np.testing.assert_array_equal(made[[0, 3]], encoder.encode(["blue scarf", "red scarf"]))
    np.testing.assert_allclose(made[1], np.eye(encoder.dimensions)[:2].sum(0) / np.sqrt(2), rtol=1e-6)
    np.testing.assert_array_equal(made[2], np.eye(encoder.dimensions)[0])
    assert queries.by_table == 2


def test_without_a_table_the_encoder_answers_all() -> None:
    encoder = SumEncoder(["red", "wool"])
    queries = QueryEncoder(cast(Encoder, encoder), None)
    np.testing.assert_array_equal(queries.encode(["red wool", "wool"]), encoder.encode(["red wool", "wool"]))
    assert queries.by_table == 0
