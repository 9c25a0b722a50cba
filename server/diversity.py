"""Diversity: an order in which no value of a column crowds out the others."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.arrays import Ints


class Diversity(NamedTuple):
    """At most `most` products of one value of `column` before others get their turn."""

    column: str
    most: int


def spread(wanted: Diversity, products: pa.Table, rows: Ints) -> Ints:
    """The order of `rows`, best first, as places in them: the best `most` of every value, then the next `most` of each.

    Within such a round the order stays. A row without a value is in the first round: it is like no other.
    """
    values = products.column(wanted.column).take(pa.array(rows)).combine_chunks()
    codes = pc.fill_null(values.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
    seen: dict[int, int] = {}
    rounds = np.zeros(len(rows), np.int64)
    for place, code in enumerate(codes.tolist()):
        if code >= 0:
            rounds[place] = seen.get(code, 0) // wanted.most
            seen[code] = seen.get(code, 0) + 1
    return np.argsort(rounds, kind="stable")
