"""The plain form of a release: exact search over float32 vectors, and figures by request."""

import numpy as np
import pytest
from exactness import figures, plain_snapshot, plain_space

from indexer.exact import ExactIndex
from ranker.examples import Example
from ranker.features import Context
from ranker.history import EMPTY
from ranker.space import ProductSpace


class Snapshot:
    """Two products under an approximate index."""

    def __init__(self) -> None:
        import pyarrow as pa

        self.products = pa.table({"title": ["red mug", "blue mug"]})
        self.vectors = np.zeros((2, 2), np.float32)
        self.index = None


class Encoder:
    """Points along the first axis for red, along the second for all else."""

    def encode(self, texts: list[str]) -> np.ndarray:
        return np.array([[1, 0] if "red" in text else [0, 1] for text in texts], np.float32)


def test_the_plain_snapshot_is_a_copy_with_vectors_of_its_own() -> None:
    served = Snapshot()
    plain = plain_snapshot(served, Encoder())
    assert plain.vectors.tolist() == [[1, 0], [0, 1]]
    assert plain.index.search(plain.vectors[:1], 1).rows.tolist() == [[0]]
    assert served.index is None
    assert not served.vectors.any()


def test_a_space_without_a_tower_is_projected_anew() -> None:
    space = ProductSpace(None, np.array([[0, 1], [1, 0]], np.float32), np.zeros((2, 2), np.float32), None)
    made = plain_space(space, plain_snapshot(Snapshot(), Encoder()))
    assert made.vectors.tolist() == [[0, 1], [1, 0]]
    assert isinstance(made.index, ExactIndex)


def test_figures_are_by_request() -> None:
    nothing = np.empty(0)
    made = [
        Example(Context(0.0, EMPTY), np.arange(2), np.empty((2, 0), np.float32), np.array(grades), nothing, nothing)
        for grades in ([1.0, 0.0], [0.0, 1.0])
    ]
    found = figures(made, [np.array([2.0, 1.0])] * 2, 1.0)
    assert found["ndcg@10"].tolist() == pytest.approx([1.0, 1 / np.log2(3)])
    assert found["recall@100"].tolist() == [1.0, 1.0]
