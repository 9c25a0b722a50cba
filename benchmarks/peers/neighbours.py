"""Neighbourhood peers: item-kNN with recency decay, its sum with title vectors, and TIFU-KNN for next baskets."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from indexer.arrays import Doubles, Ints
from peers.context import Context, Parameters, Peer
from peers.plain import TitleMean
from ranker.log import Request


class ItemKnn:
    """Cosine between the products' users with shrinkage (Sarwar et al., WWW 2001), the 200 nearest of each.

    The score of a product is the sum over the history of decay^(steps from the newest) x similarity.
    """

    name = "item-kNN"
    neighbours, shrinkage, decay, longest = 200, 10.0, 0.8, 50

    def fit(self, context: Context) -> None:
        """Similarities of the engagements before the cut, each user and product counted once."""
        self.similarity = similarities(context.matrix(), self.neighbours, self.shrinkage)

    def scores(self, request: Request, history: Ints) -> Doubles:
        """The weighted sum; 0.8^50 is nothing, so the history is cut there."""
        recent = history[::-1][: self.longest]
        weights = sparse.csr_matrix(
            (self.decay ** np.arange(len(recent)), (np.zeros(len(recent), np.int64), recent)),
            shape=(1, self.similarity.shape[0]),
        )
        return np.asarray((weights @ self.similarity).todense(), np.float64).ravel()


class ScoreSum:
    """The sum of two peers' scores, each standardised over the catalogue."""

    def __init__(self, first: Peer, second: Peer, name: str) -> None:
        self._peers, self.name = (first, second), name

    def fit(self, context: Context) -> None:
        """Fit both."""
        for peer in self._peers:
            peer.fit(context)

    def scores(self, request: Request, history: Ints) -> Doubles:
        """z of the one + z of the other."""
        first, second = (standardised(peer.scores(request, history)) for peer in self._peers)
        return first + second


def knn_and_titles() -> ScoreSum:
    """Item-kNN and title vectors."""
    return ScoreSum(ItemKnn(), TitleMean(), "item-kNN + title vectors (z-score sum)")


def standardised(scores: Doubles) -> Doubles:
    """(score - mean) / deviation; zero where all are alike."""
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 0 else np.zeros(len(scores))


def similarities(counts: sparse.csr_matrix, neighbours: int, shrinkage: float) -> sparse.csr_matrix:
    """Shrunk cosine between the columns, the nearest of each kept: common / (sqrt(n_i n_j) + shrinkage), float32."""
    seen = counts.copy()
    seen.data[:] = 1.0
    sizes = np.asarray(seen.sum(axis=0)).ravel()
    turned = seen.T.tocsr()
    parts = []
    for start in range(0, turned.shape[0], 512):
        common = (turned[start : start + 512] @ seen).tocoo()
        kept = common.col != common.row + start
        row, col, value = common.row[kept], common.col[kept], common.data[kept]
        value = value / (np.sqrt(sizes[row + start] * sizes[col]) + shrinkage)
        order = np.lexsort((-value, row))
        row, col, value = row[order], col[order], value[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        near = rank < neighbours
        shape = (common.shape[0], common.shape[1])
        parts.append(sparse.csr_matrix((value[near].astype(np.float32), (row[near], col[near])), shape=shape))
    return sparse.vstack(parts).tocsr()


# The authors' values for Ta-Feng, Dunnhumby and Instacart.
TIFU_GRID: Sequence[Parameters] = (
    {"neighbours": 300, "within": 0.9, "across": 0.7, "mix": 0.7, "group": 7},
    {"neighbours": 900, "within": 0.9, "across": 0.6, "mix": 0.2, "group": 3},
    {"neighbours": 900, "within": 0.9, "across": 0.7, "mix": 0.9, "group": 3},
)


class TifuKnn:
    """TIFU-KNN (Hu et al., SIGIR 2020): decayed personal frequency mixed with that of the nearest users.

    Baskets fall into groups; a basket weighs `within`^(steps to the end of its group), a group
    `across`^(groups to the newest).
    """

    name = "TIFU-KNN"

    def __init__(self, settings: Parameters) -> None:
        self.settings = settings

    def fit(self, context: Context) -> None:
        """A vector for each user at the cut; the requests' own users are folded anew at each request."""
        self._log, self._products = context.log, context.products
        users, rows, times = context.log.sequences(context.cut)
        order = np.lexsort((times, users))
        users, rows, times = users[order], rows[order], times[order]
        starts = np.flatnonzero(np.diff(users, prepend=-1))
        self._place = {user: place for place, user in enumerate(users[starts].tolist())}
        vectors = [
            self.vector(part_rows, part_times)
            for part_rows, part_times in zip(np.split(rows, starts[1:]), np.split(times, starts[1:]), strict=True)
        ]
        self._users = sparse.vstack(vectors).tocsr()
        self._norms = np.asarray(self._users.multiply(self._users).sum(axis=1)).ravel()

    def vector(self, rows: Ints, times: Doubles) -> sparse.csr_matrix:
        """A user's vector [1, products]: the mean of the groups' decayed means."""
        baskets, which = np.unique(times, return_inverse=True)
        weights = basket_weights(len(baskets), *(self.settings[name] for name in ("group", "within", "across")))
        pairs = np.unique(np.column_stack([which, rows]), axis=0)
        return sparse.csr_matrix(
            (weights[pairs[:, 0]], (np.zeros(len(pairs), np.int64), pairs[:, 1])), shape=(1, self._products)
        )

    def scores(self, request: Request, history: Ints) -> Doubles:
        """mix x own + (1 - mix) x the mean of the nearest users by Euclidean distance."""
        rows, times = self._log.timed(request.user, request.time)
        if not len(rows):
            return np.zeros(self._products)
        own = self.vector(rows, times)
        dots = np.asarray((self._users @ own.T).todense()).ravel()
        distance = self._norms - 2.0 * dots
        distance[self._place.get(self._log.code(request.user), [])] = np.inf
        count = min(self.settings["neighbours"], len(distance) - 1)
        near = np.argpartition(distance, count)[:count]
        others = np.asarray(self._users[near].mean(axis=0)).ravel()
        mix: float = self.settings["mix"]
        return mix * np.asarray(own.todense()).ravel() + (1.0 - mix) * others


def basket_weights(count: int, group: int, within: float, across: float) -> Doubles:
    """The weight of each of `count` baskets, oldest first; only the oldest group may be short."""
    ages = np.arange(count)[::-1]
    groups = -(-count // group)
    sizes = np.full(groups, group)
    sizes[-1] = count - group * (groups - 1)
    number = ages // group
    return np.asarray(within ** (ages % group) * across**number / (sizes[number] * groups), np.float64)
