"""What a user's history says of the candidates: features as columns over them."""

from collections.abc import Mapping

import numpy as np

from indexer.arrays import Array, Doubles, Ints
from ranker.covisited import Covisited
from ranker.ease import Ease
from ranker.history import PURCHASE, History
from ranker.products import ProductTable

_DAY = 86_400.0
# Title similarities look at this many of the newest engagements.
_RECENT = 20
# What a visit counts for each later one, in the two counts that favour recent visits (TIFU-KNN, Hu et al., SIGIR 2020).
_VISIT_DECAYS = (0.7, 0.9)

_USER = ("history_length", "days_since_last", "visits", "visit_size", "user_repeat_rate")
_PAIR = (
    "history_cosine_max",
    "history_cosine_mean",
    "history_cosine_last",
    "covisited",
    "covisited_last",
    "ease",
    "engaged_before",
    "bought_before",
    "bought_share",
    "recent_visits_70",
    "recent_visits_90",
    "days_since_product",
    "days_since_first",
    "rhythm",
    "brand_share",
    "category_share",
    "price_band_share",
    "price_against_user",
)
NAMES = (*_USER, *_PAIR)


def columns(
    now: float, history: History, rows: Ints, table: ProductTable, covisited: Covisited, ease: Ease
) -> Mapping[str, Doubles | float]:
    """A column for each of NAMES: float64 [rows], or one number for all. NaN where there is no history."""
    if not history.rows:
        return dict.fromkeys(NAMES, float("nan")) | {"history_length": 0.0}
    seen, kinds, times = (np.array(part) for part in history)
    visit = np.cumsum(np.diff(times, prepend=times[0]) > 0)
    cosines = table.vectors[rows] @ table.vectors[seen[-_RECENT:]].T
    return {
        "history_length": float(np.log1p(len(seen))),
        "days_since_last": _log_days(now - times[-1]),
        "visits": float(np.log1p(visit[-1] + 1)),
        "visit_size": float(np.log1p(len(seen) / (visit[-1] + 1))),
        "user_repeat_rate": 1.0 - len(np.unique(seen)) / len(seen),
        "history_cosine_max": cosines.max(1),
        "history_cosine_mean": cosines.mean(1),
        "history_cosine_last": cosines[:, -1],
        "covisited": covisited.scores(history, rows),
        "covisited_last": covisited.scores(history, rows, last=1),
        "ease": ease.scores(history, rows),
        **_own(now, rows, seen, kinds, times, visit[-1] - visit),
        "brand_share": _share(table.brand, rows, seen),
        "category_share": _share(table.category, rows, seen),
        "price_band_share": _share(table.price_band, rows, seen),
        "price_against_user": _price_against_user(table.log_price, rows, seen),
    }


def _own(now: float, rows: Ints, seen: Ints, kinds: Ints, times: Doubles, back: Ints) -> dict[str, Doubles]:
    """What this user did with these very products; `back` is how many visits ago each engagement was."""
    known, where = np.unique(seen, return_inverse=True)
    place = np.searchsorted(known, rows).clip(max=len(known) - 1)
    mine = known[place] == rows

    def of(values: Doubles, otherwise: float = 0.0) -> Doubles:
        return np.where(mine, values[place], otherwise)

    def summed(weights: Array) -> Doubles:
        return np.bincount(where, weights, minlength=len(known)).astype(np.float64)

    first, last = np.full(len(known), np.inf), np.full(len(known), -np.inf)
    np.minimum.at(first, where, times)
    np.maximum.at(last, where, times)
    bought = summed(kinds == PURCHASE)
    counts = np.bincount(where)
    # How late the next engagement is, measured by the mean time between those there were.
    usual = np.maximum((last - first) / np.maximum(counts - 1, 1), _DAY / 2)
    rhythm = np.where(counts > 1, np.log1p(np.maximum(now - last, 0.0) / usual), np.nan)
    return {
        "engaged_before": of(np.log1p(counts)),
        "bought_before": of(np.log1p(bought)),
        "bought_share": of(bought / max(float(bought.sum()), 1.0)),
        **{f"recent_visits_{100 * d:.0f}": of(summed(d**back) / (d ** np.unique(back)).sum()) for d in _VISIT_DECAYS},
        "days_since_product": of(_log_days(now - last), np.nan),
        "days_since_first": of(_log_days(now - first), np.nan),
        "rhythm": of(rhythm, np.nan),
    }


def _log_days(seconds: Doubles | float) -> Doubles:
    return np.log1p(np.maximum(seconds, 0.0) / _DAY)


def _share(codes: Ints, rows: Ints, seen: Ints) -> Doubles:
    """The share of the history with the candidate's own code; NaN for a candidate without one."""
    mine = codes[rows]
    counts = np.bincount(codes[seen] + 1, minlength=int(mine.max(initial=0)) + 2)
    return np.where(mine < 0, np.nan, counts[mine + 1] / len(seen))


def _price_against_user(log_price: Doubles, rows: Ints, seen: Ints) -> Doubles | float:
    known = log_price[seen]
    known = known[np.isfinite(known)]
    return log_price[rows] - known.mean() if len(known) else float("nan")
