"""The user tower in NumPy against the module that was trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ranker.compiled_tower import CompiledTower
from ranker.history import History
from ranker.recent import RECENT, recent
from ranker.user_tower import UserTower

TITLE, SPACE, PRODUCTS, NOW = 12, 16, 30, 1_700_000_000.0


@pytest.fixture
def tower() -> UserTower:
    """Every parameter drawn, so that none can be forgotten unnoticed."""
    torch.manual_seed(0)
    tower = UserTower(TITLE, SPACE).eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.normal_(std=0.5)
    return tower


@pytest.fixture
def space() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(PRODUCTS, SPACE)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def history(length: int) -> History:
    rng = np.random.default_rng(length)
    rows, kinds = rng.integers(0, PRODUCTS, length).tolist(), rng.integers(0, 8, length).tolist()
    return History(tuple(rows), tuple(kinds), tuple(np.sort(NOW - 10 ** rng.uniform(1, 8, length)).tolist()))


def exact(tower: UserTower, space: np.ndarray, known: History) -> np.ndarray:
    rows, ages, kinds = recent(known, NOW)
    parts = (space.astype(np.float64)[rows], ages, kinds, rows >= 0)
    with torch.inference_mode():
        return tower.double()(*map(torch.from_numpy, parts))[0].numpy()


@pytest.mark.parametrize("length", [1, 2, 7, RECENT - 1, RECENT, RECENT + 30])
def test_it_is_the_modules_forward(length: int, tower: UserTower, space: np.ndarray) -> None:
    compiled, known = CompiledTower.of(tower), history(length)
    vector = compiled.user_vector(space, known, NOW)
    assert (vector.shape, vector.dtype) == ((SPACE,), np.float32)
    np.testing.assert_allclose(vector, exact(tower, space, known), atol=2e-6)


def test_every_parameter_bears_on_the_vector(tower: UserTower, space: np.ndarray) -> None:
    known = history(RECENT)
    before = CompiledTower.of(tower).user_vector(space, known, NOW)
    for name, array in CompiledTower.of(tower).weights.items():
        # The one is for products, and a shift of all logits changes no softmax.
        if name in ("project.weight", "weigh.bias"):
            continue
        moved = CompiledTower(CompiledTower.of(tower).weights | {name: array * 1.5})
        assert not np.allclose(before, moved.user_vector(space, known, NOW), atol=1e-5), name


def test_vectors_may_be_mapped(tower: UserTower, space: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "space.npy", space)
    mapped = np.load(tmp_path / "space.npy", mmap_mode="r")
    compiled = CompiledTower.of(tower)
    np.testing.assert_array_equal(
        compiled.user_vector(mapped, history(9), NOW), compiled.user_vector(space, history(9), NOW)
    )
