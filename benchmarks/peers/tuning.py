"""Parameters of a peer, chosen by NDCG@10 on earlier requests."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from indexer.arrays import Doubles, Ints
from peers.context import Case, Context, Parameters, Peer
from peers.figures import Order, figures
from ranker.log import Request


class Tuned:
    """The best of a few settings by NDCG@10 on earlier requests, fitted again on everything before the cut."""

    def __init__(self, make: Callable[[Parameters], Peer], grid: Sequence[Parameters], earlier: Context) -> None:
        self.name, self._make, self._grid, self._earlier = make(grid[0]).name, make, grid, earlier
        self.tried: list[dict[str, Any]] = []

    def fit(self, context: Context) -> None:
        """Try each setting, then fit the best."""
        order = Order(context.products)
        self.tried = []
        for settings in self._grid:
            peer = self._make(settings)
            peer.fit(self._earlier)
            ndcg = mean_ndcg(peer, self._earlier.cases, order)
            self.tried.append({**settings, "validation_ndcg@10": round(ndcg, 5)})
        best = int(np.argmax([each["validation_ndcg@10"] for each in self.tried]))
        self._best = self._make(self._grid[best])
        self._best.fit(context)
        self.settings = self._grid[best]

    def scores(self, request: Request, history: Ints) -> Doubles:
        """The best one's."""
        return self._best.scores(request, history)


def mean_ndcg(peer: Peer, cases: Sequence[Case], order: Order) -> float:
    """Mean NDCG@10 over the whole catalogue."""
    each = [figures(order.first(peer.scores(case.request, case.history)), case.request.wanted).ndcg for case in cases]
    return float(np.nanmean(each))


def earlier_context(context: Context, cases: Sequence[Case], most: int = 2_000) -> Context:
    """The context as it was at the first of `cases`, with at most `most` of them, spread evenly."""
    kept = np.linspace(0, len(cases) - 1, min(most, len(cases))).astype(int)
    return replace(context, cut=cases[0].request.time, cases=[cases[i] for i in kept])
