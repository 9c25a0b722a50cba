"""The one function that makes the feature matrix. Training and serving call it, and nothing else makes features."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from indexer.amended import Vectors
from indexer.arrays import Doubles, Floats, Ints
from indexer.lexical import LexicalIndex
from ranker import exposure, match_features, rating_features, user_features
from ranker.behaviour import LIFETIMES, Behaviour
from ranker.covisited import Covisited
from ranker.ease import Ease
from ranker.history import EMPTY, History
from ranker.products import ProductTable

_HOUR, _DAY = 3_600.0, 86_400.0
# What a product needs of purchases before its share of returns is believed (additive smoothing).
_PURCHASES = 5.0

Column = Doubles | float

# Lifetimes set against each other, a short one and a long one: what rises sells more of late than before. Trees split
# on one column at a time, so the difference is a column of its own.
_TRENDS = ((0, 2), (1, 3))
QUERY = (*match_features.NAMES, "title_cosine", "space_cosine", "query_frequency", "query_engaged", "query_share")
PRODUCT = (
    *("log_price", "in_stock", "title_tokens"),
    *(f"popularity_{lifetime:.0f}d" for lifetime in LIFETIMES),
    *(f"trend_{LIFETIMES[longer]:.0f}d" for _, longer in _TRENDS),
    *("product_age", "product_users", "repeat_rate", "return_rate"),
)
# Licensed difference between training and serving, the only one: a logged row knows the place it was shown at, a
# candidate has none yet and is treated as if shown first.
FIRST_PLACE = 1
CONTEXT = ("hour", "weekday", "position")
NAMES = (*QUERY, *PRODUCT, *user_features.NAMES, *rating_features.NAMES, *exposure.NAMES, "user_dot", *CONTEXT)
# The column of the place a row was shown at.
PLACE = NAMES.index("position")


class Context(NamedTuple):
    """One request as ranking sees it; `now` in Unix seconds. Vectors are None where there is no query or no history.

    `query_key` names the query among those of the log (`indexer.text.query_key`).
    """

    now: float
    history: History
    query: str = ""
    query_key: str = ""
    query_vector: Floats | None = None
    query_in_space: Floats | None = None
    user_vector: Floats | None = None
    disliked: History = EMPTY


class Catalogue(NamedTuple):
    """What a release knows of its products: the table, their words, their vectors in the product space, neighbours."""

    table: ProductTable
    lexical: LexicalIndex
    space: Vectors
    covisited: Covisited
    ease: Ease


def fingerprint() -> str:
    """Names the schema: the columns and their order; 16 hex digits. Compared when a model is loaded."""
    return hashlib.sha256("\n".join(NAMES).encode()).hexdigest()[:16]


def matrix(context: Context, rows: Ints, catalogue: Catalogue, behaviour: Behaviour) -> Floats:
    """Features float32 [rows, NAMES] of the candidate `rows`, all at the first place; NaN where one does not apply.

    A feature never sees what `behaviour` and `context.history` do not hold, so it is as of their time.
    """
    columns: dict[str, Column] = {
        **_query_features(context, rows, catalogue, behaviour),
        **_product_features(context, rows, catalogue.table, behaviour),
        **user_features.columns(
            context.now, context.history, rows, catalogue.table, catalogue.covisited, catalogue.ease
        ),
        **rating_features.columns(
            context.history, context.disliked, rows, catalogue.table, catalogue.covisited, behaviour
        ),
        **behaviour.exposure.columns(context.query_key if context.query else "", rows),
        "user_dot": _dot(catalogue.space, rows, context.user_vector),
        "hour": context.now % _DAY // _HOUR,
        # Day 0 of the epoch was a Thursday.
        "weekday": (context.now // _DAY + 3) % 7,
        "position": float(np.log(FIRST_PLACE)),
    }
    # Column by column where they lie side by side, then turned: in half the time.
    turned = np.empty((len(NAMES), len(rows)), np.float32)
    for i, name in enumerate(NAMES):
        turned[i] = columns[name]
    return np.ascontiguousarray(turned.T)


def placed(matrix: Floats, positions: Ints | int) -> Floats:
    """A feature matrix with its rows at the places they were shown at (1 is the first); training alone sees such."""
    shown = matrix.copy()
    shown[:, PLACE] = np.log(positions)
    return shown


def _query_features(context: Context, rows: Ints, catalogue: Catalogue, behaviour: Behaviour) -> Mapping[str, Column]:
    cosines = {
        "title_cosine": _dot(catalogue.table.vectors, rows, context.query_vector),
        "space_cosine": _dot(catalogue.space, rows, context.query_in_space),
    }
    if not context.query:
        return dict.fromkeys(QUERY, float("nan")) | cosines
    after = behaviour.after_query(context.query_key)
    total = sum(after.values())
    engaged = _looked_up(after, rows)
    return {
        **match_features.columns(context.query, rows, catalogue.table, catalogue.lexical),
        **cosines,
        "query_frequency": float(np.log1p(total)),
        "query_engaged": np.log1p(engaged),
        "query_share": engaged / total if total else float("nan"),
    }


def _looked_up(values: Mapping[int, float], rows: Ints) -> Doubles:
    """The value of each row, 0 where it has none."""
    known = np.fromiter(values, np.int64, len(values))
    if not len(known):
        return np.zeros(len(rows))
    order = np.argsort(known)
    known, held = known[order], np.fromiter(values.values(), np.float64, len(values))[order]
    places = np.searchsorted(known, rows).clip(max=len(known) - 1)
    return np.where(known[places] == rows, held[places], 0.0)


def _product_features(context: Context, rows: Ints, table: ProductTable, behaviour: Behaviour) -> Mapping[str, Column]:
    popularity = behaviour.popularity(rows, context.now)
    users, repeats = behaviour.users_of[rows], behaviour.repeats[rows]
    age = (context.now - behaviour.first_time[rows]) / _DAY
    return {
        "log_price": table.log_price[rows],
        "in_stock": table.in_stock[rows],
        "title_tokens": (table.tokens.offsets[rows + 1] - table.tokens.offsets[rows]).astype(np.float64),
        **{f"popularity_{lifetime:.0f}d": popularity[i] for i, lifetime in enumerate(LIFETIMES)},
        **{f"trend_{LIFETIMES[longer]:.0f}d": popularity[recent] - popularity[longer] for recent, longer in _TRENDS},
        # Days since anybody first engaged with it: unknown for a product nobody has.
        "product_age": np.where(np.isfinite(age), np.log1p(np.maximum(age, 0.0)), np.nan),
        "product_users": np.log1p(users),
        "repeat_rate": repeats / (users + repeats + 1.0),
        "return_rate": behaviour.returns[rows] / (behaviour.purchases[rows] + _PURCHASES),
    }


def _dot(vectors: Vectors, rows: Ints, vector: Floats | None) -> Column:
    """Inner products of the candidates' vectors with `vector`; NaN where there is none."""
    return float("nan") if vector is None else np.asarray(vectors[rows] @ vector, np.float64)
