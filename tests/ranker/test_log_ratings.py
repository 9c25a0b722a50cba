"""Ratings read from the event log as explicit answers: sittings, their lists, and what nobody may know before them."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from ranker.log import Request, engagements, folding, rated_requests, shown_requests

ROWS = {"A": 0, "B": 1, "C": 2, "D": 3}
Make = Callable[..., pl.DataFrame]
MANY = {f"P{i}": i for i in range(1_000)}


def rating(product: str, t: int, value: float | None, **others: object) -> dict[str, object]:
    return {"event_type": "rating", "product_id": product, "t": t, "user_id": "u", "value": value, **others}


def lists(requests: list[Request]) -> list[list[int]]:
    return [request.rows.tolist() for request in requests if request.rows is not None]


def test_a_sitting_is_a_request_with_its_low_ratings_as_negatives(events: Make) -> None:
    log = [rating("C", 10, 5.0), rating("A", 20, 3.5), rating("D", 30, 4.0), rating("B", 40, 4.5)]
    (request,) = rated_requests(events(*log), ROWS, 4.0)
    assert (request.time, request.user, request.query, request.positions) == (10.0, "u", "", None)
    # By row, not in the order of rating.
    assert lists([request]) == [[0, 1, 2, 3]]
    assert request.wanted == {2: 1 + 5.0 - 4.0, 3: 1.0, 1: 1 + 4.5 - 4.0}


def test_the_order_of_rating_says_nothing(events: Make) -> None:
    values = [("A", 2.0), ("B", 5.0), ("C", 1.0), ("D", 4.0)]
    orders = values, sorted(values, key=lambda item: item[1]), sorted(values, key=lambda item: -item[1])
    made = [
        rated_requests(events(*(rating(p, 10 + i, v) for i, (p, v) in enumerate(order))), ROWS, 4.0) for order in orders
    ]
    assert lists(made[0]) == lists(made[1]) == lists(made[2]) == [[0, 1, 2, 3]]
    assert made[0][0].wanted == made[1][0].wanted == made[2][0].wanted == {1: 2.0, 3: 1.0}


def test_a_best_rating_is_worth_no_more_than_a_purchase(events: Make) -> None:
    (request,) = rated_requests(events(rating("A", 1, 100.0), rating("B", 2, 71.0), rating("C", 3, 69.0)), ROWS, 70.0)
    assert request.wanted == {0: 3.0, 1: 2.0}


def test_half_an_hour_without_a_rating_ends_a_sitting(events: Make) -> None:
    log = [rating("A", 0, 5.0), rating("B", 1_799, 1.0), rating("C", 3_599, 5.0), rating("D", 5_398, 1.0)]
    made = rated_requests(events(*log), ROWS, 4.0)
    assert lists(made) == [[0, 1], [2, 3]]
    assert [request.time for request in made] == [0.0, 3_599.0]


def test_sittings_are_of_one_user(events: Make) -> None:
    log = [rating(p, t, v, user_id=u) for t, (p, v, u) in enumerate([("A", 5, "x"), ("B", 5, "y"), ("C", 1, "x")])]
    made = rated_requests(events(*log, rating("D", 3, 1, user_id="y")), ROWS, 4.0)
    assert [(request.user, request.time) for request in made] == [("x", 0.0), ("y", 1.0)]
    assert lists(made) == [[0, 2], [1, 3]]


def test_rated_requests_come_in_time_order(events: Make) -> None:
    log = [rating(p, t, v, user_id=u) for u, t in [("a", 90), ("b", 10)] for p, v in [("A", 5.0), ("B", 1.0)]]
    assert [request.user for request in rated_requests(events(*log), ROWS, 4.0)] == ["b", "a"]


@pytest.mark.parametrize(("products", "lengths"), [(50, [50]), (51, [26, 25]), (101, [34, 34, 33])])
def test_a_long_sitting_is_cut_by_time(events: Make, products: int, lengths: list[int]) -> None:
    # Later ratings are of lower rows, so a cut by row would differ from one by time.
    log = [rating(f"P{500 - i}", i, float(i % 5 + 1)) for i in range(products)]
    made = rated_requests(events(*log), MANY, 4.0)
    assert [len(rows) for rows in lists(made)] == lengths
    first = np.cumsum([0, *lengths[:-1]]).tolist()
    assert [request.time for request in made] == first
    assert lists(made)[0] == list(range(500 - lengths[0] + 1, 501))


def test_short_sittings_are_not_cut_for_being_many(events: Make) -> None:
    log = [rating(f"P{100 * day + i}", 86_400 * day + i, float(i % 5 + 1)) for day in range(3) for i in range(30)]
    assert [len(rows) for rows in lists(rated_requests(events(*log), MANY, 4.0))] == [30, 30, 30]


def test_a_cut_within_one_moment_does_not_follow_the_ratings(events: Make) -> None:
    log = [rating(f"P{i}", 10, 5.0 if i % 2 else 1.0) for i in range(80)]
    best_first = sorted(log, key=lambda item: -float(str(item["value"])))
    assert lists(rated_requests(events(*best_first), MANY, 4.0)) == [list(range(40)), list(range(40, 80))]


def test_no_list_is_in_the_history_its_request_sees(events: Make) -> None:
    """The replay folds what is strictly before a request: not even the first of two ratings of one product may be."""
    rng = np.random.default_rng(0)
    log = [
        rating(f"P{rng.integers(120)}", 1_000 * int(rng.integers(4)) + int(rng.integers(30)), float(rng.integers(1, 6)))
        for _ in range(400)
    ]
    frame = events(*sorted(log, key=lambda item: int(str(item["t"]))))
    made = rated_requests(frame, MANY, 4.0)
    assert len(made) == 3
    for request, rows in zip(made, lists(made), strict=True):
        before = {e.row for e in folding(engagements(frame, MANY, 4.0)) if e.time < request.time}
        assert not before & set(rows)
    assert sorted(row for rows in lists(made) for row in rows) == sorted(
        {MANY[str(item["product_id"])] for item in log}
    )


def test_of_a_product_rated_again_the_last_rating_counts(events: Make) -> None:
    log = [rating("A", 10, 5.0), rating("B", 20, 1.0), rating("A", 30, 2.0), rating("B", 40, 4.0), rating("C", 50, 2.0)]
    (request,) = rated_requests(events(*log), ROWS, 4.0)
    assert (request.time, lists([request]), request.wanted) == (10.0, [[0, 1, 2]], {1: 1.0})


@pytest.mark.parametrize("values", [(5.0, 4.0), (1.0, 3.5), (5.0,), (1.0,)])
def test_ratings_of_one_kind_only_are_no_request(events: Make, values: tuple[float, ...]) -> None:
    frame = events(*(rating(p, 10, value) for p, value in zip("AB", values, strict=False)))
    assert rated_requests(frame, ROWS, 4.0) == []


@pytest.mark.parametrize(
    "other",
    [
        rating("B", 11, 5.0, user_id=None),
        rating("B", 11, None),
        rating("Z", 11, 5.0),
        rating("B", 11, 5.0, event_type="purchase"),
    ],
)
def test_what_else_is_logged_answers_nothing(events: Make, other: dict[str, object]) -> None:
    assert rated_requests(events(rating("A", 10, 1.0), other), ROWS, 4.0) == []
    (request,) = rated_requests(events(rating("A", 10, 1.0), other, rating("C", 12, 5.0)), ROWS, 4.0)
    assert lists([request]) == [[0, 2]]


def test_a_rating_of_a_shown_product_belongs_to_what_was_shown(events: Make) -> None:
    page = {"user_id": "u", "request_id": "r"}
    log = [
        *(rating(p, 10, None, event_type="impression", **page) for p in "AB"),
        rating("A", 20, 5.0, **page),
        rating("B", 21, 1.0, **page),
        rating("C", 22, 5.0),
        rating("D", 23, 1.0, request_id="other"),
    ]
    assert lists(rated_requests(events(*log), ROWS, 4.0)) == [[2, 3]]
    frame = events(*log)
    assert [request.wanted for request in shown_requests(frame, engagements(frame, ROWS, 4.0), ROWS)] == [{0: 3.0}]


def test_nobodys_ratings_are_of_no_sitting(events: Make) -> None:
    log = [rating("A", 10, 5.0, user_id=None, session_id="s"), rating("B", 11, 1.0, user_id=None, session_id="s")]
    assert rated_requests(events(*log), ROWS, 4.0) == []


def test_no_ratings(events: Make) -> None:
    assert rated_requests(events(rating("A", 1, 5.0), rating("B", 2, 1.0)).clear(), ROWS, 4.0) == []
