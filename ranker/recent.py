"""The newest engagements of a history as arrays, which the user tower and the DNN attend over."""

from typing import NamedTuple

import numpy as np

from ranker.history import History

# Engagements the tower and the DNN attend over.
RECENT = 50
# Buckets of ages.
AGES = 12
_DAY = 86_400.0


class Recent(NamedTuple):
    """The newest engagements of some users, padded at the end: int64 [users, RECENT], row -1 where there is none."""

    rows: np.ndarray
    ages: np.ndarray
    kinds: np.ndarray


def recent(history: History, now: float) -> Recent:
    """The newest RECENT engagements of one history as of `now`, as arrays of one user."""
    rows, ages, kinds = (np.full((1, RECENT), fill, np.int64) for fill in (-1, 0, 0))
    taken = min(len(history.rows), RECENT)
    if taken:
        rows[0, :taken] = history.rows[-taken:]
        kinds[0, :taken] = history.kinds[-taken:]
        ages[0, :taken] = age_buckets(now - np.array(history.times[-taken:]))
    return Recent(rows, ages, kinds)


def age_buckets(seconds: np.ndarray) -> np.ndarray:
    """Ages by doubling days: 0 below 15 minutes, then 1 up to a day, 2 up to three days, 3 up to seven ..."""
    days = np.maximum(seconds, 0.0) / _DAY
    buckets = 1 + np.floor(np.log2(days + 1.0)).astype(np.int64)
    return np.where(seconds < 900, 0, buckets).clip(0, AGES - 1)
