"""What ratings say of the candidates, as arithmetic."""

from collections.abc import Callable
from math import log1p

import numpy as np
import polars as pl
import pytest

from ranker import rating_features
from ranker.behaviour import Behaviour
from ranker.covisited import fit_covisited
from ranker.features import Catalogue
from ranker.history import DISLIKE, EMPTY, PURCHASE, RATING, Engagement, History
from ranker.rating_features import NAMES


@pytest.fixture
def films(catalogue: Callable[..., Catalogue], engaged: Callable[..., pl.DataFrame]) -> Catalogue:
    """Four products; users who engaged with 1 went on to 3."""
    return catalogue(
        "space opera",
        "space war",
        "quiet drama",
        "war drama",
        covisited=fit_covisited(engaged(("x", 1, 1.0), ("x", 3, 2.0)), 4),
        category=["A", "A", "B", None],
        brand=["S", None, "S", "T"],
    )


@pytest.fixture
def rated() -> Behaviour:
    """u likes 0 and 2 and dislikes 1; v likes 0; w dislikes 0 and 3. Three high, three low."""
    behaviour = Behaviour(4)
    behaviour.apply_all(
        Engagement(user, row, kind, float(time))
        for time, (user, row, kind) in enumerate(
            [
                *(("u", 0, RATING), ("u", 2, RATING), ("u", 1, DISLIKE), ("v", 0, RATING)),
                *(("w", 0, DISLIKE), ("w", 3, DISLIKE), ("u", 3, PURCHASE)),
            ]
        )
    )
    return behaviour


def columns(user: str, behaviour: Behaviour, catalogue: Catalogue, *rows: int) -> dict[str, list[float]]:
    found = rating_features.columns(
        behaviour.history(user),
        behaviour.disliked(user),
        np.array(rows, np.int64),
        catalogue.table,
        catalogue.covisited,
        behaviour,
    )
    assert set(found) == set(NAMES)
    return {name: np.broadcast_to(np.asarray(values, float), len(rows)).tolist() for name, values in found.items()}


def test_shares_start_at_the_mean_of_all(films: Catalogue, rated: Behaviour) -> None:
    """Three of six ratings are high, so five more of the mean are worth 2.5."""
    found = columns("u", rated, films, 0, 1, 2, 3)
    assert found["liked_share"] == pytest.approx(
        [(2 + 2.5) / (3 + 5), 2.5 / (1 + 5), (1 + 2.5) / (1 + 5), 2.5 / (1 + 5)]
    )
    assert found["ratings"] == pytest.approx([log1p(3), log1p(1), log1p(1), log1p(1)])


def test_the_users_own_ratings(films: Catalogue, rated: Behaviour) -> None:
    """Two high of three; the purchase is no rating."""
    found = columns("u", rated, films, 0)
    assert found["user_liked_share"] == pytest.approx([(2 + 2.5) / (3 + 5)])
    assert found["user_ratings"] == pytest.approx([log1p(3)])


def test_the_users_own_ratings_by_category_and_brand(films: Catalogue, rated: Behaviour) -> None:
    """Shares start at the user's own mean: one high and one low in A, one high in B, two high of S, none of T."""
    mine = (2 + 2.5) / (3 + 5)
    found = columns("u", rated, films, 0, 1, 2, 3)
    a, b = (1 + 5 * mine) / (2 + 5), (1 + 5 * mine) / (1 + 5)
    assert found["category_liked_share"] == pytest.approx([a, a, b, np.nan], nan_ok=True)
    s = (2 + 5 * mine) / (2 + 5)
    assert found["brand_liked_share"] == pytest.approx([s, np.nan, s, mine], nan_ok=True)


def test_near_what_was_disliked(films: Catalogue, rated: Behaviour) -> None:
    found = columns("u", rated, films, 0, 3)
    assert found["disliked_cosine_mean"] == pytest.approx(
        (films.table.vectors[[0, 3]] @ films.table.vectors[1]).tolist(), abs=1e-6
    )
    assert found["disliked_covisited"] == pytest.approx([0.0, 1 / (1 + 10)])


def test_only_the_newest_dislikes_are_near(films: Catalogue, rated: Behaviour) -> None:
    rated.apply_all(Engagement("u", 2, DISLIKE, 100.0 + i) for i in range(20))
    cosine = float(films.table.vectors[0] @ films.table.vectors[2])
    assert columns("u", rated, films, 0)["disliked_cosine_mean"] == pytest.approx([cosine], abs=1e-6)


def test_who_disliked_nothing(films: Catalogue, rated: Behaviour) -> None:
    found = columns("v", rated, films, 0, 3)
    assert np.isnan(found["disliked_cosine_mean"]).all()
    assert found["disliked_covisited"] == [0.0, 0.0]
    assert found["user_liked_share"] == pytest.approx([(1 + 2.5) / (1 + 5)] * 2)


def test_a_stranger_is_as_all(films: Catalogue, rated: Behaviour) -> None:
    found = columns("nobody", rated, films, 0, 3)
    assert found["user_liked_share"] == [0.5, 0.5]
    assert found["user_ratings"] == [0.0, 0.0]
    assert found["category_liked_share"] == pytest.approx([0.5, np.nan], nan_ok=True)


def test_a_log_without_ratings_says_nothing(films: Catalogue) -> None:
    behaviour = Behaviour(4)
    behaviour.apply(Engagement("u", 1, PURCHASE, 1.0))
    assert np.isnan(list(columns("u", behaviour, films, 0, 3).values())).all()


def test_no_candidates(films: Catalogue, rated: Behaviour) -> None:
    none = np.empty(0, np.int64)
    disliked = History((1,), (DISLIKE,), (1.0,))
    found = rating_features.columns(EMPTY, disliked, none, films.table, films.covisited, rated)
    assert np.size(found["liked_share"]) == np.size(found["disliked_covisited"]) == 0
