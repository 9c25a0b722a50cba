"""The regression from product to product, against least squares and against its definition."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from indexer.arrays import Doubles
from indexer.errors import SnapshotError
from ranker import ease
from ranker.ease import Ease, empty_ease, fit_ease, load_ease
from ranker.history import CLICK, DISLIKE, PURCHASE, RETURN, VIEW, History

PRODUCTS = 9
Engaged = Callable[..., pl.DataFrame]


def random_log(seed: int, engaged: Engaged) -> pl.DataFrame:
    """150 engagements of twelve users and of nobody with all products but the last; returns and dislikes among them."""
    rng = np.random.default_rng(seed)
    users, kinds = (*"abcdefghijkl", None), (VIEW, CLICK, PURCHASE, RETURN, DISLIKE)
    return engaged(
        *(
            (users[rng.integers(13)], int(rng.integers(PRODUCTS - 1)), float(rng.integers(100)), kinds[rng.integers(5)])
            for _ in range(150)
        )
    )


def seen(log: pl.DataFrame) -> Doubles:
    """1 where a user engaged with a product [users, products]."""
    users = sorted(log["user_id"].drop_nulls().unique().to_list())
    out = np.zeros((len(users), PRODUCTS))
    for user, row, kind in log.select("user_id", "row", "kind").iter_rows():
        if user is not None and kind not in (RETURN, DISLIKE):
            out[users.index(user), row] = 1.0
    return out


def dense(table: Ease) -> Doubles:
    """The weights [from, to]."""
    out = np.zeros((len(table.places),) * 2)
    rows = {place: row for row, place in enumerate(table.places.tolist()) if place >= 0}
    for place, row in rows.items():
        targets = table.targets[place].tolist()
        assert len(set(targets)) == len(targets)
        for target, weight in zip(targets, table.weights[place].tolist(), strict=True):
            if target in rows:
                out[row, rows[target]] = weight
    return out


def history(*rows: int) -> History:
    return History(rows, (VIEW,) * len(rows), tuple(map(float, range(len(rows)))))


@pytest.mark.parametrize("seed", range(4))
def test_each_product_is_regressed_on_the_others(seed: int, engaged: Engaged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Column by column: (A'A + ridge) b = A'y, where y is the product's column and A all others."""
    monkeypatch.setattr(ease, "_RIDGE", 2.0)
    log = random_log(seed, engaged)
    users, found = seen(log), dense(fit_ease(log, PRODUCTS))
    for to in range(PRODUCTS):
        others = np.delete(users, to, axis=1)
        expected = np.linalg.solve(others.T @ others + 2.0 * np.eye(PRODUCTS - 1), others.T @ users[:, to])
        assert np.delete(found[:, to], to) == pytest.approx(expected, abs=1e-5)
        assert found[to, to] == 0.0


def test_two_products_as_arithmetic(engaged: Engaged) -> None:
    """Three users took 0, two of them 1 as well: 1 is foretold by 2 / (3 + 300), 0 by 2 / (2 + 300)."""
    log = engaged(("a", 0, 1.0), ("a", 1, 2.0), ("b", 0, 3.0), ("b", 1, 4.0), ("c", 0, 5.0), ("c", 0, 6.0))
    assert dense(fit_ease(log, 2)) == pytest.approx(np.array([[0.0, 2 / 303], [2 / 302, 0.0]]), rel=1e-5)


def test_what_another_product_says_already_is_not_said_again(engaged: Engaged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever took 0 took 1, and 2 goes with 1 alone. Counts would tie 0 to 2; the regression sees through it."""
    monkeypatch.setattr(ease, "_RIDGE", 0.1)
    walks = ["01"] * 5 + ["012"] * 5 + ["12"] * 10 + ["3"] * 2
    log = engaged(*((f"u{i}", int(row), float(i)) for i, walk in enumerate(walks) for row in walk))
    weights = dense(fit_ease(log, 4))
    assert weights[1, 2] > 0.8
    assert weights[0, 2] < 0.0


@pytest.mark.parametrize("kept", [1, 3])
def test_the_largest_weights_of_either_sign_are_kept(
    kept: int, engaged: Engaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ease, "_RIDGE", 0.1)
    log = random_log(1, engaged)
    whole = dense(fit_ease(log, PRODUCTS))
    monkeypatch.setattr(ease, "_KEPT", kept)
    few = fit_ease(log, PRODUCTS)
    assert few.places.tolist() == [*range(PRODUCTS - 1), -1]
    assert few.targets.shape == few.weights.shape == (PRODUCTS - 1, kept)
    for source in range(PRODUCTS - 1):
        largest = np.sort(np.abs(whole[source]))[-kept:]
        held = dense(few)[source]
        assert np.sort(np.abs(held[held != 0])) == pytest.approx(largest)
    assert (whole < 0).any()
    assert kept == 1 or (dense(few) < 0).any()


def test_only_the_products_of_most_users_are_modelled(engaged: Engaged, monkeypatch: pytest.MonkeyPatch) -> None:
    """One user's many engagements with a product are one."""
    monkeypatch.setattr(ease, "_MODELLED", 2)
    log = engaged(*((user, row, 1.0) for row, users in ((0, "aaaaab"), (1, "abc"), (2, "abcd")) for user in users))
    assert fit_ease(log, 4).places.tolist() == [-1, 0, 1, -1]


def test_what_one_user_alone_engaged_with_says_nothing(engaged: Engaged) -> None:
    assert fit_ease(engaged(("a", 0, 1.0), ("a", 1, 2.0), ("b", 1, 3.0)), 2).places.tolist() == [-1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_sums_over_the_distinct_history(seed: int, engaged: Engaged) -> None:
    table, rng = fit_ease(random_log(seed, engaged), PRODUCTS), np.random.default_rng(seed)
    rows = rng.integers(0, PRODUCTS, 20).tolist()
    candidates = np.array([8, 3, 3, 0, 7])
    expected = dense(table)[sorted(set(rows))].sum(0)[candidates]
    assert table.scores(history(*rows), candidates) == pytest.approx(expected)


def test_scores_of_nothing(engaged: Engaged) -> None:
    """A filter may leave no candidate, a stranger has no history, and a young shop no log."""
    table = fit_ease(random_log(0, engaged), PRODUCTS)
    none = table.scores(history(0), np.empty(0, np.int64))
    assert (none.shape, none.dtype) == ((0,), np.float64)
    assert table.scores(history(), np.array([0, 1])).tolist() == [0.0, 0.0]
    for log in (engaged(), engaged((None, 1, 1.0)), engaged(("u", 1, 1.0))):
        empty = fit_ease(log, 3)
        assert empty.places.tolist() == [-1, -1, -1]
        assert empty.scores(history(1), np.array([0, 2])).tolist() == [0.0, 0.0]


def test_weights_go_by_product_wherever_the_rows_go(engaged: Engaged) -> None:
    """Rows 8 to 2 in that order, then a new one: products 0 and 1 are gone."""
    table = fit_ease(random_log(1, engaged), PRODUCTS)
    came_from = np.array([8, 7, 6, 5, 4, 3, 2, -1])
    carried = table.carried(came_from)
    before, after = dense(table), dense(carried)
    assert np.array_equal(after[:7, :7], before[np.ix_(came_from[:7], came_from[:7])])
    assert carried.places[7] == -1
    assert not after[7].any()
    candidates = np.array([0, 4, 7])
    assert (
        carried.scores(history(2, 3), candidates)[:2].tolist()
        == table.scores(history(6, 5), came_from[candidates[:2]]).tolist()
    )
    assert carried.scores(history(2, 3), candidates)[2] == 0.0


def test_an_empty_table_is_carried_too() -> None:
    carried = empty_ease(3).carried(np.array([2, -1]))
    assert carried.scores(history(0), np.array([0, 1])).tolist() == [0.0, 0.0]


def test_what_is_saved_is_what_is_loaded(engaged: Engaged, tmp_path: Path) -> None:
    table = fit_ease(random_log(0, engaged), PRODUCTS)
    table.save(tmp_path)
    for held, loaded in zip(table, load_ease(tmp_path), strict=True):
        assert isinstance(loaded.base, np.memmap)
        assert held.dtype == loaded.dtype
        np.testing.assert_array_equal(held, loaded)


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"ease_places\.npy is missing.*Train again"):
        load_ease(tmp_path)


def test_rows_that_come_later_are_not_modelled() -> None:
    weights = Ease(np.array([0, -1, 1]), np.array([[1], [0]]), np.array([[0.5], [0.25]], np.float32))
    longer = weights.with_added(2)
    history = History((0, 3), (CLICK, CLICK), (1.0, 2.0))
    assert longer.scores(history, np.array([2, 3, 4, 1])).tolist() == [0.5, 0.0, 0.0, 0.0]
