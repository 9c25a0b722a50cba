"""A frame of engagements folded in at once is the same, to the last bit and in the same order, as one by one."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest

from ranker import behaviour as behaviour_module
from ranker import bulk, history
from ranker.behaviour import Behaviour
from ranker.history import CLICK, DISLIKE, EMPTY, PURCHASE, RETURN, VIEW, Engagement, History, fold, fold_all
from ranker.log import folding

PRODUCTS = 12
# The seed of a log with more queries than are remembered.
MANY_QUERIES = 9
SCHEMA = {"user_id": pl.String, "row": pl.Int64, "kind": pl.Int64, "time": pl.Float64, "query": pl.String}


@pytest.fixture
def few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories of five engagements, and a hundred queries."""
    for module in (history, bulk):
        monkeypatch.setattr(module, "LONGEST", 5)
    monkeypatch.setattr(behaviour_module, "_MOST_QUERIES", 100)


def frame(*events: Engagement) -> pl.DataFrame:
    columns = zip(*events, strict=True) if events else [()] * len(SCHEMA)
    return pl.DataFrame(dict(zip(SCHEMA, columns, strict=True)), SCHEMA)


def random_log(seed: int, count: int = 600, begin: float = 0.0) -> pl.DataFrame:
    """Events of all kinds: more or fewer users, queries and moments than there are events of each."""
    rng = np.random.default_rng(seed)
    # Some users do much, and others never return anything.
    users = [None, *(f"user {i}" for i in range(rng.integers(2, 40)))]
    queries = ["", *(f"query {i}" for i in range(rng.choice([2, 20, 300])))]
    user = np.minimum(rng.geometric(2 / len(users), count), len(users)) - 1
    kinds = rng.choice(np.arange(VIEW, DISLIKE + 1), count)
    kinds[(kinds == RETURN) & (user % 2 == 0)] = PURCHASE
    return frame(
        *(
            Engagement(users[u], int(row), int(kind), float(time), queries[q])
            for u, row, kind, time, q in zip(
                user,
                rng.integers(PRODUCTS, size=count),
                kinds,
                begin + np.sort(rng.integers(count // 2, size=count)) * 977.7,
                rng.integers(len(queries), size=count),
                strict=True,
            )
        )
    )


def one_by_one(*frames: pl.DataFrame) -> Behaviour:
    behaviour = Behaviour(PRODUCTS)
    for found in frames:
        for event in folding(found):
            behaviour.apply(event)
    return behaviour


def at_once(*frames: pl.DataFrame) -> Behaviour:
    behaviour = Behaviour(PRODUCTS)
    for found in frames:
        behaviour.apply_frame(found)
    return behaviour


def in_turn(value: Any) -> Any:
    """The same with mappings as lists, for the order of their keys to count."""
    return [(key, in_turn(each)) for key, each in value.items()] if isinstance(value, dict) else value


def assert_same(one: Behaviour, other: Behaviour) -> None:
    for name, value in vars(one).items():
        # How often it was told something, not what; and what was shown is told apart.
        if name in ("_folded", "exposure"):
            continue
        found = getattr(other, name)
        assert type(found) is type(value), name
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(found, value, err_msg=name, strict=True)
        else:
            assert in_turn(found) == in_turn(value), name


def plain(value: Any) -> Iterator[type]:
    """The types of everything in a value."""
    yield type(value)
    if isinstance(value, dict | set | tuple):
        for each in value.items() if isinstance(value, dict) else value:
            yield from plain(each)


@pytest.mark.usefixtures("few_are_kept")
@pytest.mark.parametrize("seed", range(30))
def test_a_frame_is_its_events_one_by_one(seed: int) -> None:
    found = random_log(seed)
    assert_same(one_by_one(found), at_once(found))


@pytest.mark.parametrize("seed", range(5))
def test_a_frame_is_its_events_one_by_one_where_all_is_kept(seed: int) -> None:
    found = random_log(seed, 3_000)
    assert_same(one_by_one(found), at_once(found))


@pytest.mark.usefixtures("few_are_kept")
@pytest.mark.parametrize("seed", range(20))
def test_frames_in_turn_are_their_events_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = random_log(seed)
    cuts = [0, *np.sort(rng.integers(len(found), size=3)).tolist(), len(found)]
    parts = [found.slice(start, end - start) for start, end in pairwise(cuts)]
    assert_same(one_by_one(found), at_once(*parts))


@pytest.mark.usefixtures("few_are_kept")
@pytest.mark.parametrize("seed", range(10))
def test_a_frame_that_comes_late_is_its_events_one_by_one(seed: int) -> None:
    frames = random_log(seed), random_log(seed + 100, begin=-60_000.0), random_log(seed + 200, 50, 100_000.0)
    assert_same(one_by_one(*frames), at_once(*frames))


@pytest.mark.usefixtures("few_are_kept")
@pytest.mark.parametrize("seed", range(5))
def test_single_events_go_on_from_a_frame(seed: int) -> None:
    first, then, last = random_log(seed, 200), random_log(seed + 100, 50), random_log(seed + 200, 200)
    made = at_once(first)
    made.apply_all(folding(then))
    made.apply_frame(last)
    assert_same(one_by_one(first, then, last), made)


@pytest.mark.usefixtures("few_are_kept")
def test_what_has_further_rows_and_forgot_users_goes_on_alike() -> None:
    first, then = random_log(1, 200), random_log(MANY_QUERIES, 400).with_columns(pl.col("row") + PRODUCTS // 2)
    expected, made = (each(first).grown(2 * PRODUCTS) for each in (one_by_one, at_once))
    for each in (expected, made):
        each.forget(lambda user: user in ("user 0", "user 1"))
    for event in folding(then):
        expected.apply(event)
    made.apply_frame(then)
    assert_same(expected, made)


@pytest.mark.usefixtures("few_are_kept")
def test_the_logs_hold_what_can_differ() -> None:
    found = random_log(MANY_QUERIES)
    behaviour = at_once(found)
    returning = set(found.filter(pl.col("kind") == RETURN)["user_id"])
    assert found["user_id"].null_count() > 0
    assert found["time"].n_unique() < len(found)
    assert returning & behaviour.users.keys()
    assert behaviour.users.keys() - returning
    assert max(len(found.filter(pl.col("user_id") == user)) for user in behaviour.users.keys() - returning) > 50
    assert behaviour.repeats.sum() > 0
    assert len(behaviour.queries) == 100 < found["query"].n_unique() - 1
    for named in (behaviour.shared, behaviour.askers):
        assert named
        # Not in the order in which their queries came.
        assert list(named) != [query for query in behaviour.queries if query in named]


def test_histories_are_of_plain_numbers() -> None:
    behaviour = at_once(random_log(0))
    types = {kind for each in (behaviour.users, behaviour.queries, behaviour.shared) for kind in plain(each)}
    assert types == {dict, tuple, History, str, int, float}


def test_a_product_counts_as_new_once_it_fell_out_of_the_history(few_are_kept: None) -> None:
    others = [Engagement("u", row, VIEW, float(row)) for row in range(1, 6)]
    for between, repeats in ((others[:4], 1), (others, 0)):
        behaviour = at_once(frame(Engagement("u", 0, VIEW, 0.0), *between, Engagement("u", 0, VIEW, 9.0)))
        assert (behaviour.repeats[0], behaviour.users_of[0]) == (repeats, 2 - repeats)


def test_what_is_read_while_a_frame_is_folded_in_does_not_change() -> None:
    behaviour = at_once(frame(Engagement("u", 1, CLICK, 0.0, "boot")))
    read = behaviour.history("u"), behaviour.after_query("boot")
    behaviour.apply_frame(frame(Engagement("u", 3, PURCHASE, 1.0, "boot"), Engagement("u", 1, VIEW, 2.0, "boot")))
    assert read == (History((1,), (CLICK,), (0.0,)), {1: 1.0})
    assert behaviour.after_query("boot") == {1: 1.2, 3: 4.0}


def test_an_order_made_before_a_frame_is_made_again() -> None:
    behaviour = at_once(frame(Engagement("u", 1, CLICK, 0.0)))
    assert behaviour.most_popular(5).tolist() == [1]
    behaviour.apply_frame(frame(Engagement("u", 3, PURCHASE, 1.0)))
    assert behaviour.most_popular(5).tolist() == [3, 1]


def test_a_frame_of_nothing_changes_nothing() -> None:
    assert_same(Behaviour(PRODUCTS), at_once(frame()))


@pytest.mark.parametrize("kind", [RETURN, DISLIKE])
def test_a_frame_of_nothing_that_counts(kind: int) -> None:
    found = frame(Engagement("u", 1, kind, 1.0, "boot"), Engagement(None, 2, kind, 2.0))
    assert_same(one_by_one(found), at_once(found))


@pytest.mark.parametrize("longest", [1, 4, 1_000])
@pytest.mark.parametrize("seed", range(10))
def test_several_events_make_the_history_that_each_makes(
    monkeypatch: pytest.MonkeyPatch, seed: int, longest: int
) -> None:
    monkeypatch.setattr(history, "LONGEST", longest)
    rng = np.random.default_rng(seed)
    before, met = EMPTY, []
    for count in rng.integers(60, size=3):
        events = [
            Engagement("u", int(rng.integers(5)), int(rng.integers(VIEW, DISLIKE)), float(rng.integers(40)))
            for _ in range(count)
        ]
        after = before
        for event in events:
            met.append(event.row in after.rows)
            after = fold(after, event)
        rows, kinds, times = ([event[place] for event in events] for place in (1, 2, 3))
        made, found = fold_all(before, rows, kinds, times)
        assert made == after
        assert found == met[len(met) - count :]
        before = after
