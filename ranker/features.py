"""The one function that makes the feature matrix. Training and serving call it, and nothing else makes features."""

import hashlib
from typing import NamedTuple

import numpy as np

from indexer.arrays import Doubles, Floats, Ints
from indexer.text import token_hashes
from ranker.behaviour import LIFETIMES, Behaviour
from ranker.history import PURCHASE, History
from ranker.products import ProductTable

_DAY = 86_400.0
# Title similarities look at this many of the newest engagements.
_RECENT = 20
# BM25's usual constants (Robertson and Zaragoza 2009).
_K1, _B = 1.2, 0.75

NAMES = (
    # query and product
    "query_tokens",
    "title_cosine",
    "space_cosine",
    "bm25",
    "query_coverage",
    "query_coverage_idf",
    "number_coverage",
    "title_coverage",
    # product
    "log_price",
    "in_stock",
    "title_tokens",
    *(f"popularity_{lifetime:.0f}d" for lifetime in LIFETIMES),
    # user
    "history_length",
    "days_since_last",
    # user and product
    "user_dot",
    "history_cosine_max",
    "history_cosine_mean",
    "history_cosine_last",
    "engaged_before",
    "bought_before",
    "bought_share",
    "days_since_product",
    "brand_share",
    "category_share",
    "price_against_user",
    # context
    "position",
)

# Licensed difference between training and serving, the only one: a logged row knows the place it was shown at, a
# candidate has none yet and is treated as if shown first.
FIRST_PLACE = 1


class Context(NamedTuple):
    """One request as ranking sees it; `now` in Unix seconds. Vectors are None where there is no query or no history."""

    now: float
    history: History
    query: str = ""
    query_vector: Floats | None = None
    query_in_space: Floats | None = None
    user_vector: Floats | None = None


class Catalogue(NamedTuple):
    """What a release knows of its products: the table, and their vectors in the product space [products, space]."""

    table: ProductTable
    space: Floats


def fingerprint() -> str:
    """Names the schema: the columns and their order; 16 hex digits. Compared when a model is loaded."""
    return hashlib.sha256("\n".join(NAMES).encode()).hexdigest()[:16]


def matrix(
    context: Context, rows: Ints, catalogue: Catalogue, behaviour: Behaviour, positions: Ints | None = None
) -> Floats:
    """Features float32 [rows, NAMES] of the candidate `rows`; NaN where a feature does not apply.

    `positions` (1 is the first place) is given for logged impressions only. A feature never sees what `behaviour` and
    `context.history` do not hold, so it is as of their time.
    """
    places = np.full(len(rows), FIRST_PLACE) if positions is None else positions
    columns = {
        **_query_features(context, rows, catalogue),
        **_product_features(context, rows, catalogue.table, behaviour),
        **_user_features(context, rows, catalogue),
        "position": np.log(places),
    }
    out = np.empty((len(rows), len(NAMES)), np.float32)
    for i, name in enumerate(NAMES):
        out[:, i] = columns[name]
    return out


def unplaced(matrix: Floats) -> Floats:
    """A feature matrix as serving sees it: every row at the first place."""
    shown = matrix.copy()
    shown[:, NAMES.index("position")] = np.log(FIRST_PLACE)
    return shown


def _query_features(context: Context, rows: Ints, catalogue: Catalogue) -> dict[str, Doubles | float]:
    table = catalogue.table
    hashes = np.unique(token_hashes(context.query)) if context.query else np.empty(0, np.int64)
    features: dict[str, Doubles | float] = {
        "query_tokens": float(len(hashes)),
        "title_cosine": _dot(table.vectors, rows, context.query_vector),
        "space_cosine": _dot(catalogue.space, rows, context.query_in_space),
    }
    if not len(hashes):
        names = ("bm25", "query_coverage", "query_coverage_idf", "number_coverage", "title_coverage")
        return features | dict.fromkeys(names, float("nan"))
    return features | _match_features(hashes, _numeric(context.query), rows, table)


def _numeric(query: str) -> Ints:
    """Hashes of the query's words that hold a digit: sizes, model codes."""
    return np.unique(token_hashes(" ".join(word for word in query.split() if any(c.isdigit() for c in word))))


def _match_features(hashes: Ints, numeric: Ints, rows: Ints, table: ProductTable) -> dict[str, Doubles | float]:
    counts, lengths = _token_counts(hashes, rows, table)
    idf = table.inverse_document_frequency(hashes)
    found = counts > 0
    norm = _K1 * (1 - _B + _B * lengths / table.mean_tokens)
    weights = counts * (_K1 + 1) / (counts + norm[:, None])
    is_number = np.isin(hashes, numeric)
    return {
        "bm25": weights @ idf,
        "query_coverage": found.mean(1),
        "query_coverage_idf": found @ idf / idf.sum(),
        "number_coverage": found[:, is_number].mean(1) if is_number.any() else float("nan"),
        "title_coverage": counts.sum(1) / np.maximum(lengths, 1),
    }


def _token_counts(hashes: Ints, rows: Ints, table: ProductTable) -> tuple[Doubles, Doubles]:
    """How often each query token stands in each title [rows, hashes], and the titles' lengths [rows]."""
    starts = table.tokens.offsets[rows]
    lengths = table.tokens.offsets[rows + 1] - starts
    owners = np.repeat(np.arange(len(rows)), lengths)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    entries = table.tokens.hashes[starts[owners] + within]
    which = np.searchsorted(hashes, entries).clip(max=len(hashes) - 1)
    same = hashes[which] == entries
    cells = owners[same] * len(hashes) + which[same]
    counts = np.bincount(cells, minlength=len(rows) * len(hashes)).reshape(len(rows), len(hashes))
    return counts.astype(np.float64), lengths.astype(np.float64)


def _product_features(
    context: Context, rows: Ints, table: ProductTable, behaviour: Behaviour
) -> dict[str, Doubles | float]:
    popularity = behaviour.popularity(rows, context.now)
    return {
        "log_price": table.log_price[rows],
        "in_stock": table.in_stock[rows],
        "title_tokens": (table.tokens.offsets[rows + 1] - table.tokens.offsets[rows]).astype(np.float64),
        **{f"popularity_{lifetime:.0f}d": popularity[i] for i, lifetime in enumerate(LIFETIMES)},
    }


def _user_features(context: Context, rows: Ints, catalogue: Catalogue) -> dict[str, Doubles | float]:
    history, table = context.history, catalogue.table
    if not history.rows:
        empty = dict.fromkeys(NAMES[NAMES.index("days_since_last") : NAMES.index("position")], float("nan"))
        return {**empty, "history_length": 0.0, "user_dot": _dot(catalogue.space, rows, context.user_vector)}
    seen, kinds, times = (np.array(part) for part in history)
    cosines = table.vectors[rows] @ table.vectors[seen[-_RECENT:]].T
    return {
        "history_length": float(np.log1p(len(seen))),
        "days_since_last": _log_days(context.now - times[-1]),
        "user_dot": _dot(catalogue.space, rows, context.user_vector),
        "history_cosine_max": cosines.max(1),
        "history_cosine_mean": cosines.mean(1),
        "history_cosine_last": cosines[:, -1],
        **_repeat_features(context.now, rows, seen, kinds, times),
        "brand_share": _share(table.brand, rows, seen),
        "category_share": _share(table.category, rows, seen),
        "price_against_user": _price_against_user(table.log_price, rows, seen),
    }


def _dot(vectors: Floats, rows: Ints, vector: Floats | None) -> Doubles | float:
    """Inner products of the candidates' vectors with `vector`; NaN where there is none."""
    return float("nan") if vector is None else np.asarray(vectors[rows] @ vector, np.float64)


def _repeat_features(now: float, rows: Ints, seen: Ints, kinds: Ints, times: Doubles) -> dict[str, Doubles | float]:
    """What this user did with these very products."""
    same = seen[None, :] == rows[:, None]
    bought = kinds == PURCHASE
    purchases = (same & bought).sum(1)
    last = np.where(same, times[None, :], -np.inf).max(1)
    return {
        "engaged_before": np.log1p(same.sum(1)),
        "bought_before": np.log1p(purchases),
        "bought_share": purchases / max(int(bought.sum()), 1),
        "days_since_product": np.where(np.isfinite(last), _log_days(now - last), np.nan),
    }


def _log_days(seconds: Doubles | float) -> Doubles:
    return np.log1p(np.maximum(seconds, 0.0) / _DAY)


def _share(codes: Ints, rows: Ints, seen: Ints) -> Doubles:
    """The share of the history with the candidate's own code; NaN for a candidate without one."""
    mine = codes[rows]
    shares = (codes[seen][None, :] == mine[:, None]).mean(1)
    return np.where(mine < 0, np.nan, shares)


def _price_against_user(log_price: Doubles, rows: Ints, seen: Ints) -> Doubles | float:
    known = log_price[seen]
    known = known[np.isfinite(known)]
    return log_price[rows] - known.mean() if len(known) else float("nan")
