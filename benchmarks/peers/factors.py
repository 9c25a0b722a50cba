"""Matrix factorisation with the package `implicit`: ALS with fold-in, BPR; settings chosen on earlier requests."""

from collections.abc import Sequence

import numpy as np
from implicit.als import AlternatingLeastSquares  # type: ignore[import-untyped]
from implicit.bpr import BayesianPersonalizedRanking  # type: ignore[import-untyped]
from scipy import sparse
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from indexer.arrays import Doubles, Ints
from peers.context import Context, Parameters
from ranker.log import Request

ALS_GRID: Sequence[Parameters] = (
    {"factors": 64, "regularization": 0.05, "alpha": 2.0, "iterations": 15},
    {"factors": 128, "regularization": 0.05, "alpha": 2.0, "iterations": 15},
    {"factors": 64, "regularization": 5.0, "alpha": 10.0, "iterations": 15},
)
BPR_GRID: Sequence[Parameters] = (
    {"factors": 64, "learning_rate": 0.05, "regularization": 0.01, "iterations": 100},
    {"factors": 64, "learning_rate": 0.1, "regularization": 0.002, "iterations": 200},
    {"factors": 128, "learning_rate": 0.05, "regularization": 0.03, "iterations": 200},
)


class Als:
    """Alternating least squares on implicit feedback (Hu, Koren and Volinsky, ICDM 2008).

    At a request the user's factors are solved again from the whole history up to it.
    """

    name = "implicit ALS"

    def __init__(self, settings: Parameters) -> None:
        self.settings = settings

    def fit(self, context: Context) -> None:
        """Factorise how often each user took each product before the cut."""
        with threadpool_limits(1, "blas"):
            self._model = AlternatingLeastSquares(**self.settings, random_state=context.seed, num_threads=1)
            self._model.fit(context.matrix(), show_progress=False)
        self._products = context.products

    def scores(self, request: Request, history: Ints) -> Doubles:
        """The folded-in user's dot products; zero for a stranger."""
        if not len(history):
            return np.zeros(self._products)
        rows, counts = np.unique(history, return_counts=True)
        seen = sparse.csr_matrix(
            (counts.astype(np.float32), (np.zeros(len(rows), np.int64), rows)), shape=(1, self._products)
        )
        user = self._model.recalculate_user(0, seen)
        return np.asarray(self._model.item_factors @ user, np.float64)


class Bpr:
    """Bayesian personalised ranking (Rendle et al., UAI 2009); users that came after the fit have no factors."""

    name = "implicit BPR"

    def __init__(self, settings: Parameters) -> None:
        self.settings = settings

    def fit(self, context: Context) -> None:
        """Fit on which user took which product before the cut."""
        self._model = BayesianPersonalizedRanking(**self.settings, random_state=context.seed, num_threads=1)
        self._model.fit(context.matrix(), show_progress=False)
        self._code = context.log.code
        self._known = np.diff(context.matrix().indptr) > 0

    def scores(self, request: Request, history: Ints) -> Doubles:
        """The user's dot products; for an unknown one the products' biases alone."""
        code = self._code(request.user)
        known = code >= 0 and bool(self._known[code])
        items = self._model.item_factors
        # The last column is the bias: 1 in the user's factors, the product's bias in its own.
        return np.asarray(items @ self._model.user_factors[code] if known else items[:, -1], np.float64)
