"""The item-to-item table, against dictionaries and loops."""

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ranker import covisited
from ranker.covisited import Covisited, fit_covisited, load_covisited
from ranker.history import CLICK, DISLIKE, PURCHASE, RETURN, VIEW, History

PRODUCTS = 12
Engaged = Callable[..., pl.DataFrame]


def random_log(seed: int, engaged: Engaged) -> pl.DataFrame:
    """60 engagements of three users and of nobody, some of one time; returns and dislikes among them."""
    rng = np.random.default_rng(seed)
    users, kinds = ("a", "b", "c", None), (VIEW, CLICK, PURCHASE, RETURN, DISLIKE)
    return engaged(
        *(
            (users[rng.integers(4)], int(rng.integers(PRODUCTS)), float(rng.integers(100)), kinds[rng.integers(5)])
            for _ in range(60)
        )
    )


def obvious(log: pl.DataFrame, kept: int) -> dict[int, list[tuple[int, float]]]:
    """The neighbours of each product, heaviest first: every pair of every user by itself."""
    walks: dict[str, list[int]] = defaultdict(list)
    counts: Counter[int] = Counter()
    for user, row, kind in log.select("user_id", "row", "kind").iter_rows():
        if user is not None and kind not in (RETURN, DISLIKE):
            walks[user].append(row)
            counts[row] += 1
    together: dict[tuple[int, int], float] = defaultdict(float)
    for walk in walks.values():
        for i in range(len(walk)):
            for j in range(i + 1, min(i + 20, len(walk) - 1) + 1):
                together[walk[i], walk[j]] += 0.95 ** (j - i - 1)
                together[walk[j], walk[i]] += 0.7 * 0.95 ** (j - i - 1)
    table: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for (of, to), n in together.items():
        if of != to:
            table[of].append((to, n / (counts[of] ** 0.6 * counts[to] ** 0.4 + 10)))
    return {of: sorted(pairs, key=lambda pair: (-round(pair[1], 12), pair[0]))[:kept] for of, pairs in table.items()}


def neighbours(table: Covisited, product: int) -> dict[int, float]:
    span = slice(int(table.offsets[product]), int(table.offsets[product + 1]))
    return dict(zip(table.rows[span].tolist(), table.weights[span].tolist(), strict=True))


@pytest.mark.parametrize("kept", [3, 100])
@pytest.mark.parametrize("seed", range(6))
def test_neighbours_are_those_of_loops(seed: int, kept: int, engaged: Engaged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covisited, "_KEPT", kept)
    log = random_log(seed, engaged)
    table, expected = fit_covisited(log, PRODUCTS), obvious(log, kept)
    assert table.offsets[0] == 0
    assert table.offsets[-1] == len(table.rows) == len(table.weights) > 0
    for product in range(PRODUCTS):
        found = neighbours(table, product)
        assert product not in found
        assert list(found.values()) == sorted(found.values(), reverse=True)
        weights = dict(expected.get(product, []))
        assert sorted(found.values()) == pytest.approx(sorted(weights.values()))
        # Where two neighbours tie at the last place, either may be kept.
        last = min(weights.values(), default=0.0)
        assert {p for p, w in found.items() if w > last + 1e-9} == {p for p, w in weights.items() if w > last + 1e-9}


def test_a_pair_weighs_by_its_distance_and_its_order(engaged: Engaged) -> None:
    table = fit_covisited(engaged(("u", 0, 1.0), ("u", 1, 2.0), ("u", 2, 3.0)), 4)
    assert neighbours(table, 0) == pytest.approx({1: 1 / (1 + 10), 2: 0.95 / (1 + 10)})
    assert neighbours(table, 2) == pytest.approx({1: 0.7 / (1 + 10), 0: 0.7 * 0.95 / (1 + 10)})
    assert neighbours(table, 3) == {}


def test_what_lies_far_apart_is_not_together(engaged: Engaged) -> None:
    walk = [("u", row, float(row)) for row in range(22)]
    found = neighbours(fit_covisited(engaged(*walk), 22), 0)
    assert set(found) == set(range(1, 21))


def test_users_are_kept_apart(engaged: Engaged) -> None:
    table = fit_covisited(engaged(("u", 0, 1.0), ("v", 1, 2.0), (None, 2, 2.5), (None, 3, 2.6), ("u", 4, 3.0)), 5)
    assert [sorted(neighbours(table, product)) for product in range(5)] == [[4], [], [], [], [0]]


def test_an_empty_log_has_no_neighbours(engaged: Engaged) -> None:
    for log in (engaged(), engaged((None, 1, 1.0)), engaged(("u", 1, 1.0)), engaged(("u", 1, 1.0), ("u", 1, 2.0))):
        table = fit_covisited(log, 3)
        assert table.offsets.tolist() == [0, 0, 0, 0]
        assert len(table.rows) == len(table.weights) == 0
        assert table.scores(History((1,), (VIEW,), (1.0,)), np.array([0, 2])).tolist() == [0.0, 0.0]


def history(*rows: int) -> History:
    return History(rows, (VIEW,) * len(rows), tuple(map(float, range(len(rows)))))


def test_spread_starts_at_the_newest(engaged: Engaged) -> None:
    table = fit_covisited(engaged(("u", 0, 1.0), ("u", 1, 2.0), ("u", 2, 3.0)), 4)
    rows, weights = table.spread(history(2, 3, 0, 2), last=3, decay=0.5)
    # Newest first and each product once: 2, then 0 one step back, then 3, which has no neighbours.
    assert rows.tolist() == [1, 0, 1, 2]
    assert weights == pytest.approx([0.7 / 11, 0.7 * 0.95 / 11, 0.5 / 11, 0.5 * 0.95 / 11])
    assert table.spread(history(2, 3, 0, 2), last=1)[0].tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("last", [1, 4, 20])
def test_scores_are_the_sums_of_the_spread(seed: int, last: int, engaged: Engaged) -> None:
    rng = np.random.default_rng(seed)
    table = fit_covisited(random_log(seed, engaged), PRODUCTS)
    seen = history(*rng.integers(0, PRODUCTS, int(rng.integers(1, 30))).tolist())
    sums: dict[int, float] = defaultdict(float)
    for row, weight in zip(*table.spread(seen, last), strict=True):
        sums[int(row)] += float(weight)
    for candidates in (rng.permutation(PRODUCTS), rng.integers(0, PRODUCTS, 5), np.array([7, 7, 2])):
        assert table.scores(seen, candidates, last) == pytest.approx([sums[int(row)] for row in candidates])


def test_scores_of_nothing(engaged: Engaged) -> None:
    """A filter may leave no candidate, and a stranger has no history."""
    table = fit_covisited(engaged(("u", 0, 1.0), ("u", 1, 2.0)), 2)
    none = table.scores(history(0), np.empty(0, np.int64))
    assert (none.shape, none.dtype) == ((0,), np.float64)
    assert table.scores(history(), np.array([0, 1])).tolist() == [0.0, 0.0]


def test_what_is_saved_is_what_is_loaded(engaged: Engaged, tmp_path: Path) -> None:
    table = fit_covisited(random_log(0, engaged), PRODUCTS)
    table.save(tmp_path)
    for held, loaded in zip(table, load_covisited(tmp_path), strict=True):
        assert isinstance(loaded.base, np.memmap)
        assert held.dtype == loaded.dtype
        np.testing.assert_array_equal(held, loaded)


def test_rows_that_come_later_have_no_neighbours_and_are_nobodys() -> None:
    table = Covisited(np.array([0, 2, 2, 3]), np.array([1, 2, 0]), np.array([0.5, 0.25, 1.0]))
    longer = table.with_added(2)
    assert longer.offsets.tolist() == [0, 2, 2, 3, 3, 3]
    history = History((4, 0), (CLICK, CLICK), (1.0, 2.0))
    assert longer.scores(history, np.array([1, 2, 3, 4])).tolist() == [0.5, 0.25, 0.0, 0.0]
    assert longer.spread(History((3,), (CLICK,), (1.0,)))[0].tolist() == []
