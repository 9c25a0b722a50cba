"""How likely a place is looked at, estimated from clicks whose law is known, and what it does to a figure."""

from collections.abc import Sequence

import numpy as np
import pytest

from ranker import ranked
from ranker.examination import ALIKE, Examination, fit_examination
from ranker.examples import Example
from ranker.features import NAMES, Context
from ranker.history import EMPTY
from ranker.log import Request

LIST = 10
SHARES = 1.0 / np.arange(1, LIST + 1)
# What the products of two queries are worth.
WORTH = {"boots": np.linspace(0.1, 0.9, LIST), "tent": np.linspace(0.6, 0.05, LIST)}


def shown(query: str, rows: np.ndarray, clicks: np.ndarray, places: np.ndarray | None) -> Example:
    context = Context(0.0, EMPTY, query, query)
    matrix = np.zeros((len(rows), len(NAMES)), np.float32)
    return Example(context, rows, matrix, clicks.astype(float), np.empty(0), np.empty(0), positions=places)


def fitted(examples: Sequence[Example]) -> Examination:
    return fit_examination(
        [
            Request(0.0, None, e.context.query, e.rows, e.positions, dict(zip(e.rows.tolist(), e.grades, strict=True)))
            for e in examples
        ]
    )


def log(count: int, *, moved: bool = True) -> list[Example]:
    """Lists of both queries, clicked by what a product is worth and how often its place is looked at.

    Worth more, a product is shown further up as a rule, as in any shop; with `moved` false, always at the same place.
    """
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        query = list(WORTH)[i % 2]
        rows = np.argsort(-WORTH[query] + (0.3 * rng.normal(size=LIST) if moved else 0.0))
        clicks = rng.random(LIST) < WORTH[query][rows] * SHARES
        made.append(shown(query, rows, clicks, np.arange(1, LIST + 1)))
    return made


def test_the_shares_that_made_the_clicks_are_found() -> None:
    examination = fitted(log(6_000))
    assert examination.shares[0] == 1.0
    np.testing.assert_allclose(examination.shares, SHARES, atol=0.05)


def test_what_never_moves_says_nothing_of_places() -> None:
    examination = fitted(log(2_000, moved=False))
    np.testing.assert_array_equal(examination.worth(np.arange(1, 30)), np.ones(29))


def test_a_few_clicks_prove_nothing() -> None:
    """Two lists, whose only click is below: a share is near 1 until there are more than the prior's clicks."""
    rows, places = np.arange(2), np.array([1, 2])
    few = [shown("q", rows, np.array([0, 1]), places), shown("q", rows[::-1], np.array([0, 0]), places)]
    examination = fitted(few)
    assert 0.7 < examination.shares[1] < 1.4


def test_without_places_there_is_nothing_to_estimate() -> None:
    assert fit_examination([]) is ALIKE
    unplaced = [shown("q", np.arange(2), np.array([0, 1]), None)]
    assert fitted(unplaced) is ALIKE
    assert ALIKE.weighed(unplaced)[0].weights is None


def test_a_place_where_nothing_moved_is_as_the_one_above() -> None:
    """Product 0 stood at the first and the third place, clicked at each, at the third as often in four times as many
    lists; product 1 always at the second."""
    one, other = np.array([1, 2]), np.array([3, 2])
    clicks = np.array([1, 1])
    many = [shown("q", np.arange(2), clicks, places) for places in (one, other) for _ in range(50)]
    many += [shown("q", np.arange(2), 0 * clicks, other)] * 150
    examination = fitted(many)
    assert examination.shares[1] == examination.shares[0] == 1.0
    assert examination.shares[2] == pytest.approx(0.25, abs=0.1)


def test_worth_is_bounded_and_deeper_places_count_as_the_last() -> None:
    examination = Examination(np.array([1.0, 0.5, 0.01]))
    assert examination.worth(np.array([2, 1, 3, 9])).tolist() == [2.0, 1.0, 20.0, 20.0]
    assert str(examination) == "1: 1.00, 2: 0.50, 3: 0.01"


def test_an_absurd_place_takes_no_memory() -> None:
    rows, clicks = np.arange(2), np.array([1, 0])
    many = [shown("q", rows, clicks, np.array(places)) for places in ((1, 2**31 - 1), (2**31 - 1, 1))]
    examination = fitted(many)
    assert len(examination.shares) == 500
    assert examination.worth(np.array([2**31 - 1])) == examination.worth(np.array([500]))


def test_only_logged_lists_are_weighed() -> None:
    examination = Examination(np.array([1.0, 0.5]))
    logged = shown("q", np.arange(2), np.array([0, 1]), np.array([2, 1]))
    recalled = shown("q", np.arange(2), np.array([0, 1]), None)
    first, second = examination.weighed([logged, recalled])
    assert first.weights is not None
    assert first.weights.tolist() == [2.0, 1.0]
    assert second is recalled


def test_weighed_figures_prefer_the_order_that_is_right() -> None:
    """By plain clicks an order that repeats the places shown looks better than the order of worth."""
    test = log(4_000)
    by_worth = [WORTH[e.context.query][e.rows] for e in test]
    as_shown = [-e.positions.astype(float) for e in test if e.positions is not None]
    examination = Examination(SHARES)

    def mean(scores: list[np.ndarray], examples: list[Example]) -> float:
        return float(np.nanmean(ranked.ndcg(scores, ranked.answers(examples, 1.0))))

    assert mean(as_shown, test) > mean(by_worth, test)
    weighed = examination.weighed(test)
    assert mean(by_worth, weighed) > mean(as_shown, weighed) + 0.02


def test_weighed_gains_are_those_of_shoppers_who_look_at_everything() -> None:
    """The DCG of an order by weighed clicks is, on average, what it is by the clicks of such shoppers."""
    test = log(20_000)
    rng = np.random.default_rng(1)
    patient = [e._replace(grades=(rng.random(LIST) < WORTH[e.context.query][e.rows]).astype(float)) for e in test]
    scores = [rng.random(LIST) for _ in test]
    found = []
    for examples in (patient, test, Examination(SHARES).weighed(test)):
        wanted = ranked.answers(examples, 1.0)
        found.append(float(np.nanmean(ranked.ndcg(scores, wanted) * wanted.ideal)))
    # Lists without a click are left out of the mean, and shoppers who look at everything leave fewer such.
    shares = [np.mean([(e.grades > 0).any() for e in examples]) for examples in (patient, test, test)]
    truth, plain, weighed = (value * share for value, share in zip(found, shares, strict=True))
    assert weighed == pytest.approx(truth, rel=0.03)
    assert plain < 0.5 * truth
