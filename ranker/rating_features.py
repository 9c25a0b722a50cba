"""What ratings say of the candidates, high and low: features as columns over them."""

from collections.abc import Mapping

import numpy as np

from indexer.arrays import Doubles, Ints
from ranker.behaviour import Behaviour
from ranker.covisited import Covisited
from ranker.history import RATING, History
from ranker.products import ProductTable

# Ratings that stand in for what is not known yet: shares begin at the mean of all and move with evidence.
_PRIOR = 5.0
_RECENT = 20

NAMES = (
    "liked_share",
    "ratings",
    "user_liked_share",
    "user_ratings",
    "category_liked_share",
    "brand_liked_share",
    "disliked_cosine_mean",
    "disliked_covisited",
)


def columns(
    history: History, disliked: History, rows: Ints, table: ProductTable, covisited: Covisited, behaviour: Behaviour
) -> Mapping[str, Doubles | float]:
    """A column for each of NAMES: float64 [rows], or one number for all. NaN where nobody rated anything."""
    likes, dislikes = behaviour.likes, behaviour.dislikes
    total = behaviour.total_likes + behaviour.total_dislikes
    if not total:
        return dict.fromkeys(NAMES, float("nan"))
    usual = behaviour.total_likes / total
    liked = np.array([row for row, kind in zip(history.rows, history.kinds, strict=True) if kind == RATING], np.int64)
    refused = np.array(disliked.rows, np.int64)
    mine = _share(len(liked), len(refused), usual)
    return {
        "liked_share": _share(likes[rows], dislikes[rows], usual),
        "ratings": np.log1p(likes[rows] + dislikes[rows]),
        "user_liked_share": float(mine),
        "user_ratings": float(np.log1p(len(liked) + len(refused))),
        "category_liked_share": _share_of_code(table.category, rows, liked, refused, float(mine)),
        "brand_liked_share": _share_of_code(table.brand, rows, liked, refused, float(mine)),
        **_near_disliked(disliked, rows, table, covisited),
    }


def _share(likes: Doubles | float, dislikes: Doubles | float, usual: float) -> Doubles:
    return np.asarray((likes + _PRIOR * usual) / (likes + dislikes + _PRIOR), np.float64)


def _share_of_code(codes: Ints, rows: Ints, liked: Ints, refused: Ints, usual: float) -> Doubles:
    """How much this user likes what has the candidate's code; NaN for a candidate without one."""
    size = int(codes.max(initial=-1)) + 2
    likes = np.bincount(codes[liked] + 1, minlength=size).astype(np.float64)
    dislikes = np.bincount(codes[refused] + 1, minlength=size).astype(np.float64)
    mine = codes[rows]
    return np.where(mine < 0, np.nan, _share(likes, dislikes, usual)[mine + 1])


def _near_disliked(
    disliked: History, rows: Ints, table: ProductTable, covisited: Covisited
) -> dict[str, Doubles | float]:
    if not disliked.rows:
        return {"disliked_cosine_mean": float("nan"), "disliked_covisited": 0.0}
    cosines = table.vectors[rows] @ table.vectors[np.array(disliked.rows[-_RECENT:])].T
    return {"disliked_cosine_mean": cosines.mean(1), "disliked_covisited": covisited.scores(disliked, rows)}
