"""Peers without a fit: chance, popularity, the customer's own habits and the titles of the last products."""

import numpy as np

from indexer.arrays import Doubles, Ints
from peers.context import Context, Log
from ranker.log import Request

DAY = 86_400.0


class Random:
    """Chance, the floor."""

    name = "random"

    def fit(self, context: Context) -> None:
        """Start the generator."""
        self._products, self._rng = context.products, np.random.default_rng(context.seed)

    def scores(self, request: Request, history: Ints) -> Doubles:
        """A random number each."""
        return self._rng.random(self._products)


class Recent:
    """How often each product was engaged with in the last `days`, kept up to date as time goes on."""

    def __init__(self, log: Log, products: int, days: float) -> None:
        self._log, self._seconds = log, days * DAY
        self._counts: Doubles = np.zeros(products)
        self._first = self._last = 0

    def at(self, time: float) -> Doubles:
        """Counts strictly before `time`, which never goes back; not to be written into."""
        part = self._log.window(time - self._seconds, time)
        np.add.at(self._counts, self._log.rows[self._last : part.stop], 1.0)
        np.subtract.at(self._counts, self._log.rows[self._first : part.start], 1.0)
        self._first, self._last = part.start, part.stop
        return self._counts


class Popularity:
    """Engagements of everybody in the last `days`."""

    def __init__(self, days: float = np.inf) -> None:
        self.name = "popularity, all time" if days == np.inf else f"popularity, {days:g} days"
        self._days = days

    def fit(self, context: Context) -> None:
        """Start counting."""
        self._recent = Recent(context.log, context.products, self._days)

    def scores(self, request: Request, history: Ints) -> Doubles:
        """The counts at the request."""
        return self._recent.at(request.time)


class OwnFrequency:
    """How often the customer took each product, ties by the popularity of the last month."""

    name = "own frequency, then popularity"

    def fit(self, context: Context) -> None:
        """Start counting."""
        self._recent = Recent(context.log, context.products, 30.0)

    def scores(self, request: Request, history: Ints) -> Doubles:
        """Own count + a little popularity."""
        own = np.bincount(history, minlength=len(self._recent.at(request.time))).astype(np.float64)
        popular = self._recent.at(request.time)
        return np.asarray(own + popular / (popular.max() + 1.0), np.float64)


class TitleMean:
    """Cosine to the mean of the last five products' title vectors."""

    name = "mean of the last 5 title vectors"

    def fit(self, context: Context) -> None:
        """Keep the vectors."""
        self._vectors = np.ascontiguousarray(context.vectors, np.float32)

    def scores(self, request: Request, history: Ints) -> Doubles:
        """The dot products; zero for a stranger."""
        if not len(history):
            return np.zeros(len(self._vectors))
        return np.asarray(self._vectors @ self._vectors[history[-5:]].mean(axis=0), np.float64)
