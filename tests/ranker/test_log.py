"""The event log read: what is an engagement, what is a request, and what its answers are worth."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from indexer.canonical import JUDGMENTS, conform
from ranker.history import CLICK, DISLIKE, PURCHASE, RATING, RETURN, VIEW, Engagement
from ranker.log import (
    Request,
    basket_requests,
    engagements,
    folding,
    graded,
    judged_requests,
    shown_requests,
)

ROWS = {"A": 0, "B": 1, "C": 2, "D": 3}
Make = Callable[..., pl.DataFrame]


def event(kind: str, product: str, t: int, **others: object) -> dict[str, object]:
    return {"event_type": kind, "product_id": product, "t": t, **others}


def shown(*events: dict[str, object], make: Make) -> list[Request]:
    frame = make(*events)
    return shown_requests(frame, engagements(frame, ROWS, 4.0), ROWS)


def baskets(*events: dict[str, object], make: Make) -> list[Request]:
    frame = make(*events)
    return basket_requests(frame, engagements(frame, ROWS, 4.0))


def test_engagements_in_time_order(events: Make) -> None:
    frame = events(
        event("purchase", "B", 30, user_id="u"),
        event("view", "A", 10, user_id="u"),
        event("return", "B", 40, user_id="u"),
        event("click", "A", 20),
    )
    assert list(folding(engagements(frame, ROWS, 4.0))) == [
        Engagement("u", 0, VIEW, 10.0),
        Engagement(None, 0, CLICK, 20.0),
        Engagement("u", 1, PURCHASE, 30.0),
        Engagement("u", 1, RETURN, 40.0),
    ]


def test_equal_times_stay_in_the_logs_order(events: Make) -> None:
    frame = events(*(event("click", product, 10, user_id="u") for product in "DBAC"))
    assert engagements(frame, ROWS, 4.0)["row"].to_list() == [3, 1, 0, 2]


def test_times_keep_their_microseconds(events: Make) -> None:
    frame = events(event("click", "A", 1)).with_columns(pl.col("event_time") + pl.duration(microseconds=250_000))
    assert engagements(frame, ROWS, 4.0)["time"].to_list() == [1.25]


def test_impressions_and_unknown_products_are_no_engagement(events: Make) -> None:
    frame = events(event("impression", "A", 1), event("click", "Z", 2), event("click", "C", 3))
    assert engagements(frame, ROWS, 4.0)["row"].to_list() == [2]


def test_ratings_below_the_threshold_are_dislikes(events: Make) -> None:
    values = {"A": 3.5, "B": 4.0, "C": 5.0, "D": None}
    frame = events(*(event("rating", product, 10, value=value) for product, value in values.items()))
    found = engagements(frame, ROWS, 4.0)
    # A rating without a value is nothing.
    assert found["row"].to_list() == [0, 1, 2]
    assert found["kind"].to_list() == [DISLIKE, RATING, RATING]


def test_engagements_bear_the_key_of_their_query(events: Make) -> None:
    frame = events(
        event("click", "A", 1, query="Red  Boot"), event("click", "B", 2, query="ｒｅｄ boot"), event("click", "C", 3)
    )
    assert [each.query for each in folding(engagements(frame, ROWS, 4.0))] == ["red boot", "red boot", ""]


def test_no_events(events: Make) -> None:
    frame = events(event("click", "A", 1)).clear()
    found = engagements(frame, ROWS, 4.0)
    assert found.is_empty()
    assert list(folding(found)) == shown_requests(frame, found, ROWS) == basket_requests(frame, found) == []


def test_shown_request(events: Make) -> None:
    page = {"user_id": "u", "request_id": "r", "query": "boot"}
    (request,) = shown(
        *(event("impression", p, 100, position=at, **page) for at, p in enumerate("CAB", 1)),
        event("click", "A", 110, **page),
        make=events,
    )
    assert (request.time, request.user, request.query) == (100.0, "u", "boot")
    assert request.rows is not None
    assert request.positions is not None
    # By row, whatever the places: ties between scores must not inherit the order shown.
    assert request.rows.tolist() == [0, 1, 2]
    assert request.positions.tolist() == [2, 3, 1]
    assert request.wanted == {0: 1.0}


def test_grades_are_the_best_reached(events: Make) -> None:
    followed = [
        ("click", "A"),
        ("add_to_cart", "B"),
        ("click", "B"),
        ("purchase", "C"),
        ("add_to_cart", "C"),
        ("view", "D"),
    ]
    (request,) = shown(
        *(event("impression", p, 100, request_id="r") for p in "ABCD"),
        *(event(kind, p, 110 + i, request_id="r") for i, (kind, p) in enumerate(followed)),
        make=events,
    )
    assert request.wanted == {0: 1.0, 1: 2.0, 2: 3.0, 3: 1.0}


def test_impressions_without_engagement_are_no_request(events: Make) -> None:
    assert shown(*(event("impression", p, 100, request_id="r") for p in "AB"), make=events) == []


def test_engagement_with_what_was_not_shown_is_not_wanted(events: Make) -> None:
    impressions = [event("impression", p, 100, request_id="r") for p in "AB"]
    assert shown(*impressions, event("click", "C", 110, request_id="r"), make=events) == []
    (request,) = shown(
        *impressions, event("click", "C", 110, request_id="r"), event("click", "B", 111, request_id="r"), make=events
    )
    assert request.wanted == {1: 1.0}


def test_unknown_products_leave_a_gap_in_the_positions(events: Make) -> None:
    (request,) = shown(
        *(event("impression", p, 100, request_id="r") for p in "ZAB"),
        event("click", "A", 110, request_id="r"),
        make=events,
    )
    assert request.rows is not None
    assert request.positions is not None
    assert request.rows.tolist() == [0, 1]
    assert request.positions.tolist() == [2, 3]


def test_a_page_of_unknown_products_is_no_request(events: Make) -> None:
    page = [event("impression", "Z", 100, request_id="r"), event("click", "Z", 101, request_id="r")]
    assert shown(*page, make=events) == []


def test_impressions_without_a_request_id_are_no_request(events: Make) -> None:
    assert (
        shown(event("impression", "A", 100, session_id="s"), event("click", "A", 101, session_id="s"), make=events)
        == []
    )


def test_a_shown_request_may_be_anonymous(events: Make) -> None:
    (request,) = shown(event("impression", "A", 1, request_id="r"), event("click", "A", 2, request_id="r"), make=events)
    assert request.user is None
    assert request.query == ""


def test_basket_is_what_a_user_took_at_one_time(events: Make) -> None:
    first, second = baskets(
        event("purchase", "A", 10, user_id="u"),
        event("purchase", "B", 10, user_id="u"),
        event("purchase", "C", 20, user_id="u"),
        make=events,
    )
    assert (first.time, first.user, first.rows, first.positions) == (10.0, "u", None, None)
    assert first.wanted == {0: 3.0, 1: 3.0}
    assert second.wanted == {2: 3.0}


def test_baskets_are_of_one_session_where_it_is_logged(events: Make) -> None:
    (request,) = baskets(
        event("click", "A", 10, user_id="u", session_id="s", query="boot"),
        event("purchase", "B", 25, user_id="u", session_id="s", query="boot"),
        make=events,
    )
    assert (request.time, request.query, request.wanted) == (10.0, "boot", {0: 1.0, 1: 3.0})


def test_an_anonymous_basket_needs_a_query(events: Make) -> None:
    assert baskets(event("click", "A", 10, session_id="s"), make=events) == []
    (request,) = baskets(event("click", "A", 10, session_id="s", query="boot"), make=events)
    assert (request.user, request.query) == (None, "boot")
    # Nothing joins the events of nobody: no request.
    assert baskets(event("click", "A", 10, query="boot"), make=events) == []


def test_logged_requests_are_no_baskets(events: Make) -> None:
    page = {"user_id": "u", "request_id": "r"}
    log = [event("impression", "A", 1, **page), event("click", "A", 2, **page), event("purchase", "B", 3, user_id="u")]
    assert [request.wanted for request in baskets(*log, make=events)] == [{1: 3.0}]
    assert [request.wanted for request in shown(*log, make=events)] == [{0: 1.0}]


@pytest.mark.parametrize(("kind", "value"), [("return", None), ("rating", 1.0), ("impression", None)])
def test_what_is_not_wanted_makes_no_basket(events: Make, kind: str, value: float | None) -> None:
    assert baskets(event(kind, "A", 10, user_id="u", value=value), make=events) == []


def test_baskets_beside_rated_requests_hold_no_ratings(events: Make) -> None:
    frame = events(
        event("rating", "A", 10, user_id="u", value=5.0, session_id="s"),
        event("purchase", "B", 20, user_id="u", session_id="s"),
        event("rating", "C", 90, user_id="u", value=5.0),
    )
    found = engagements(frame, ROWS, 4.0)
    assert [request.wanted for request in basket_requests(frame, found)] == [{0: 3.0, 1: 3.0}, {2: 3.0}]
    assert [request.wanted for request in basket_requests(frame, found, ratings=False)] == [{1: 3.0}]


def judged(*rows: tuple[str, str, float, str | None]) -> list[tuple[Request, str | None]]:
    return judged_requests(conform(pl.DataFrame(rows, list(JUDGMENTS), orient="row"), JUDGMENTS), ROWS, 99.0)


def test_judged_requests() -> None:
    (boot, train), (hat, test) = judged(
        ("boot", "B", 3.0, "train"), ("boot", "A", 0.0, "train"), ("hat", "C", 1.5, "test"), ("hat", "Z", 3.0, "test")
    )
    assert (boot.time, boot.user, boot.query, boot.positions) == (99.0, None, "boot", None)
    assert boot.rows is not None
    assert boot.rows.tolist() == [0, 1]
    assert boot.wanted == {1: 3.0, 0: 0.0}
    assert hat.wanted == {2: 1.5}
    assert (train, test) == ("train", "test")


def test_the_order_of_judgments_says_nothing() -> None:
    """Sorted by grade, as many sets are, a list in their order would turn every tie into a perfect ranking."""
    best_first = [
        ("boot", "D", 3.0, None),
        ("boot", "B", 2.0, None),
        ("boot", "C", 1.0, None),
        ("boot", "A", 0.0, None),
    ]
    ((one, _),), ((other, _),) = judged(*best_first), judged(*best_first[::-1])
    assert one.rows is not None
    assert other.rows is not None
    assert one.rows.tolist() == other.rows.tolist() == [0, 1, 2, 3]
    assert one.wanted == other.wanted


@pytest.mark.parametrize("splits", [("train", "test"), ("test", "train"), (None, "test")])
def test_a_query_with_a_test_row_is_a_test(splits: tuple[str | None, str]) -> None:
    ((_, split),) = judged(("boot", "A", 1.0, splits[0]), ("boot", "B", 2.0, splits[1]))
    assert split == "test"


def test_graded() -> None:
    request = Request(1.0, None, "boot", None, None, {0: 2.0, 3: 1.0, 1: 3.0})
    grades, missed = graded(request, np.array([2, 0, 3]))
    assert grades.tolist() == [0.0, 2.0, 1.0]
    assert missed.tolist() == [3.0]
    grades, missed = graded(request, np.empty(0, np.int64))
    assert (len(grades), missed.tolist()) == (0, [2.0, 1.0, 3.0])
