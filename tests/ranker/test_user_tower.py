"""The user tower's arithmetic, and the product space."""

import numpy as np
import pytest
import torch

from ranker.compiled_tower import CompiledTower
from ranker.history import CLICK, EMPTY, PURCHASE, VIEW, History
from ranker.recent import RECENT, age_buckets, recent
from ranker.space import in_space, principal_projection
from ranker.user_tower import UserTower

DAY = 86_400.0
TITLE, SPACE = 12, 8


@pytest.fixture
def tower() -> UserTower:
    """A tower away from its neutral start, so that everything in it bears on the answer."""
    torch.manual_seed(0)
    tower = UserTower(TITLE, SPACE).eval()
    torch.nn.init.normal_(tower.weigh.weight)
    return tower


@pytest.fixture
def space() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(30, SPACE)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def served(tower: UserTower, space: np.ndarray, history: History, now: float) -> np.ndarray:
    return CompiledTower.of(tower).user_vector(space, history, now)


def test_recent_keeps_the_newest_and_pads_at_the_end() -> None:
    few = recent(History((4, 7), (VIEW, PURCHASE), (0.0, 2 * DAY)), 3 * DAY)
    assert few.rows.shape == (1, RECENT)
    assert few.rows[0, :3].tolist() == [4, 7, -1]
    assert few.kinds[0, :3].tolist() == [VIEW, PURCHASE, 0]
    assert few.ages[0, :2].tolist() == age_buckets(np.array([3 * DAY, DAY])).tolist()
    many = recent(History(tuple(range(80)), (CLICK,) * 80, tuple(map(float, range(80)))), 100.0)
    assert many.rows[0].tolist() == list(range(80 - RECENT, 80))
    assert (recent(EMPTY, 0.0).rows == -1).all()


def test_age_buckets_double() -> None:
    ages = np.array([-5.0, 0.0, 899.0, 900.0, 0.9 * DAY, 1.1 * DAY, 3.1 * DAY, 7.1 * DAY, 1e6 * DAY])
    assert age_buckets(ages).tolist() == [0, 0, 0, 1, 1, 2, 3, 4, 11]


def test_user_vector_is_a_unit_vector(tower: UserTower, space: np.ndarray) -> None:
    for length in (1, 3, 80):
        history = History(tuple(i % 30 for i in range(length)), (VIEW,) * length, tuple(map(float, range(length))))
        vector = served(tower, space, history, 100.0)
        assert vector.shape == (SPACE,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_padding_does_not_matter(tower: UserTower, space: np.ndarray) -> None:
    history = History((3, 9, 4), (VIEW, CLICK, PURCHASE), (0.0, 1.0, 2.0))
    rows, ages, kinds = recent(history, 3 * DAY)
    with torch.inference_mode():
        padded = tower(*(torch.from_numpy(part) for part in (space[rows], ages, kinds, rows >= 0)))
    np.testing.assert_allclose(padded[0].numpy(), served(tower, space, history, 3 * DAY), atol=1e-5)


def test_users_of_a_batch_do_not_see_each_other(tower: UserTower, space: np.ndarray) -> None:
    histories = [History((3, 9, 4), (VIEW,) * 3, (0.0, 1.0, 2.0)), History((1,), (PURCHASE,), (2.0,))]
    parts = [recent(history, DAY) for history in histories]
    rows, ages, kinds = (np.concatenate(each) for each in zip(*parts, strict=True))
    with torch.inference_mode():
        together = tower(*(torch.from_numpy(part) for part in (space[rows], ages, kinds, rows >= 0))).numpy()
    for vector, history in zip(together, histories, strict=True):
        np.testing.assert_allclose(vector, served(tower, space, history, DAY), atol=1e-5)


def test_ages_and_kinds_bear_on_the_vector(tower: UserTower, space: np.ndarray) -> None:
    history = History((3, 9), (VIEW, VIEW), (0.0, DAY))
    plain = served(tower, space, history, DAY)
    assert not np.allclose(plain, served(tower, space, history, 300 * DAY), atol=1e-4)
    assert not np.allclose(plain, served(tower, space, history._replace(kinds=(VIEW, PURCHASE)), DAY), atol=1e-4)


def test_products_are_unit_vectors_and_a_new_one_is_its_title(tower: UserTower) -> None:
    titles = torch.randn(5, TITLE)
    with torch.inference_mode():
        fresh, known = tower.products(titles), tower.products(titles, torch.randn(5, SPACE))
    assert torch.allclose(known.norm(dim=1), torch.ones(5))
    projection = tower.project.weight.detach().numpy()
    for vector, title in zip(fresh.numpy(), titles.numpy(), strict=True):
        np.testing.assert_allclose(vector, in_space(projection, title), atol=1e-6)


def test_a_title_outside_the_space_is_no_division_by_zero() -> None:
    assert in_space(np.zeros((SPACE, TITLE), np.float32), np.ones(TITLE, np.float32)).tolist() == [0.0] * SPACE


@pytest.mark.parametrize(("rows", "space"), [(50, SPACE), (50, 20), (3, SPACE)])
def test_principal_axes(rows: int, space: int) -> None:
    """Orthonormal rows, filled up with zeros; as many axes as titles have dimensions keep every inner product."""
    vectors = np.random.default_rng(0).normal(size=(rows, TITLE)).astype(np.float32)
    projection = principal_projection(vectors, space)
    assert projection.shape == (space, TITLE)
    assert projection.dtype == np.float32
    axes = min(rows, TITLE, space)
    np.testing.assert_allclose(projection @ projection.T, np.diag([1.0] * axes + [0.0] * (space - axes)), atol=1e-5)
    if axes == min(rows, TITLE):
        np.testing.assert_allclose(
            (vectors @ projection.T) @ (vectors @ projection.T).T, vectors @ vectors.T, atol=1e-3
        )
