"""The product space: contexts, and what is saved is what is loaded."""

from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.config import IndexerConfig
from indexer.dense import DenseIndex
from ranker.compiled_tower import CompiledTower
from ranker.history import CLICK, EMPTY, VIEW, History
from ranker.space import ProductSpace, in_space, load_space, make_space
from ranker.user_tower import UserTower

TITLE, SPACE = 12, 8
HISTORY = History((3, 9), (VIEW, CLICK), (0.0, 50.0))


@pytest.fixture
def vectors() -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(40, SPACE)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture
def tower() -> UserTower:
    torch.manual_seed(0)
    return UserTower(TITLE, SPACE).eval()


def made(tower: UserTower | None, vectors: np.ndarray, kind: str = "auto") -> ProductSpace:
    projection = np.random.default_rng(1).normal(size=(SPACE, TITLE)).astype(np.float32)
    held = projection if tower is None else tower.project.weight.detach().numpy().copy()
    return make_space(tower and CompiledTower.of(tower), held, vectors, IndexerConfig(index=kind))


def test_context_of_a_query(tower: UserTower, vectors: np.ndarray) -> None:
    space, query = made(tower, vectors), np.ones(TITLE, np.float32)
    context = space.context(99.0, EMPTY, "boot", query)
    assert (context.now, context.history, context.query, context.user_vector) == (99.0, EMPTY, "boot", None)
    assert context.query_in_space is not None
    np.testing.assert_array_equal(context.query_in_space, in_space(space.projection, query))


def test_context_of_a_user(tower: UserTower, vectors: np.ndarray) -> None:
    context = made(tower, vectors).context(99.0, HISTORY)
    assert context.query_vector is context.query_in_space is None
    assert context.user_vector is not None
    np.testing.assert_array_equal(context.user_vector, CompiledTower.of(tower).user_vector(vectors, HISTORY, 99.0))


def test_without_a_tower_there_is_no_user_vector(vectors: np.ndarray) -> None:
    assert made(None, vectors).context(99.0, HISTORY).user_vector is None


@pytest.mark.parametrize("kind", ["exact", "HNSW32"])
@pytest.mark.parametrize("fitted", [True, False])
def test_what_is_saved_is_what_is_loaded(
    kind: str, fitted: bool, tower: UserTower, vectors: np.ndarray, tmp_path: Path
) -> None:
    space = made(tower if fitted else None, vectors, kind)
    entry = space.save(tmp_path)
    tuning = {"tuning": space.index.tuning.told()} if isinstance(space.index, DenseIndex) else {}
    assert entry == {"index": kind, "space": SPACE, "tower": fitted, **tuning}
    loaded = load_space(tmp_path, entry, IndexerConfig())
    assert loaded.index.kind == kind
    np.testing.assert_array_equal(loaded.vectors, vectors)
    np.testing.assert_array_equal(loaded.projection, space.projection)
    np.testing.assert_array_equal(loaded.index.search(vectors[:3], 5).rows, space.index.search(vectors[:3], 5).rows)
    query = np.ones(TITLE, np.float32)
    for one, other in zip(
        loaded.context(99.0, HISTORY, "a", query), space.context(99.0, HISTORY, "a", query), strict=True
    ):
        np.testing.assert_array_equal(one, other)
