"""What rankings show of a catalogue: how much of it, and how little known the shown products are."""

from collections.abc import Mapping, Sequence

import numpy as np

from indexer.arrays import Doubles, Ints
from ranker import features, ranked
from ranker.examples import Example


def variety(
    orders: Mapping[str, Sequence[Doubles]], examples: Sequence[Example], products: int
) -> dict[str, dict[str, float]]:
    """Coverage and novelty of each order's first 10, and of all that the lists held.

    Coverage is the share of the catalogue's `products` that at least one request was shown (Ge et al., RecSys 2010).
    Novelty is the mean self-information of what was shown, -log2 of a product's share of the popularity (Zhou et al.,
    PNAS 2010), in bits; left out where the log says nothing of popularity.
    """
    rows = np.concatenate([e.rows for e in examples])
    lengths = np.array([len(e.rows) for e in examples], np.int64)
    surprise = _self_information(examples, rows)
    shown = {name: rows[np.concatenate(ranked.top(scores, lengths))] for name, scores in orders.items()}
    return {name: _figures(each, surprise, products) for name, each in {**shown, "all candidates": rows}.items()}


def _figures(shown: Ints, surprise: Doubles, products: int) -> dict[str, float]:
    coverage = {"coverage": len(np.unique(shown)) / products}
    return coverage | ({"novelty": float(surprise[shown].mean())} if len(surprise) else {})


def _self_information(examples: Sequence[Example], rows: Ints) -> Doubles:
    """Bits by product row, from each candidate's mean popularity over the slice; one event is added to every product.

    Empty where no product is more popular than another.
    """
    column = features.NAMES.index("popularity_30d")
    logs = np.concatenate([e.features[:, column] for e in examples]).astype(np.float64)
    counts = np.expm1(np.nan_to_num(logs, nan=0.0))
    if not np.ptp(counts) > 0:
        return np.empty(0)
    seen = np.bincount(rows)
    popularity = np.where(seen > 0, np.bincount(rows, counts) / np.maximum(seen, 1) + 1.0, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log2(popularity / popularity.sum()), np.float64)
