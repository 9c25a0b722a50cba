"""A customer's own order: the best by score, put in order by a column of numbers."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from indexer.arrays import Ints
from server.filters import values_of


class Ordering(NamedTuple):
    """The best `among` by `column`, from the least or, `descending`, from the greatest."""

    column: str
    descending: bool
    among: int


def ordered(wanted: Ordering, products: pa.Table, rows: Ints) -> Ints:
    """The order of the first `among` of `rows`, best first, as places in them.

    Equal values stay in order; rows without a value come last.
    """
    best = rows[: wanted.among]
    values = values_of(products.select([wanted.column]).take(pa.array(best)), wanted.column).to_numpy()
    # NaN is what NumPy sorts last, whichever way the others go.
    return np.argsort(-values if wanted.descending else values, kind="stable")
