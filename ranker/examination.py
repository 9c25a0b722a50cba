"""How likely a place of a list is looked at, so that a click far down counts for those that nobody could give."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from indexer.arrays import Doubles, Ints
from indexer.text import query_key
from ranker.examples import Example
from ranker.log import Request, graded

# As if so many clicks more had been seen at each place, and expected: a few clicks prove nothing about a place.
_PRIOR = 5.0
# What a click counts at most: the rarer a place is looked at, the more its few clicks say by chance.
_MOST = 20.0
_ROUNDS = 200
# Places that are told apart; nobody learns much of deeper ones.
_DEEPEST = 500
# Places that people are told of.
_SHOWN = (1, 2, 3, 5, 10, 20)


class Examination(NamedTuple):
    """How often the places 1, 2, ... are looked at, as shares of the first [places]; deeper ones as the last."""

    shares: Doubles

    def worth(self, positions: Ints) -> Doubles:
        """What a click at each of `positions` (1 is the first) counts: the inverse of its share, 20 at most."""
        return np.asarray(np.minimum(1.0 / self.shares[np.minimum(positions, len(self.shares)) - 1], _MOST))

    def __str__(self) -> str:
        """The shares of a few places, for people."""
        places = [place for place in _SHOWN if place <= len(self.shares)]
        return ", ".join(f"{place}: {self.shares[place - 1]:.2f}" for place in places)

    def weighed(self, examples: Sequence[Example]) -> list[Example]:
        """The examples with what their rows count where it was logged at which place they were shown; else as is."""
        return [e if e.positions is None else e._replace(weights=self.worth(e.positions)) for e in examples]


# All places alike: what nothing says otherwise of.
ALIKE = Examination(np.ones(1))


def stored_examination(manifest: Mapping[str, Any]) -> Examination:
    """What a model was trained with, by its manifest; `ALIKE` of an earlier program's."""
    return Examination(np.array(manifest.get("examination", ALIKE.shares)))


def fit_examination(requests: Sequence[Request]) -> Examination:
    """Estimated from products that were shown for the same query at several places; `ALIKE` where no place was logged.

    Clicks on product d for query q at place k are Poisson with mean n r(q, d) s(k), after the examination hypothesis
    (Richardson et al., WWW 2007); that one product stood at several places tells s from r (Agarwal et al., WSDM 2019).
    Maximum likelihood in turn for r and s, s(1) = 1. Where products keep their places every share stays 1: what is
    clicked less further down may as well be worse. Two faults are not corrected: that a user was shown further up what
    suits him, and that clicks above keep him from looking on.
    """
    shown = [(r, r.rows, r.positions) for r in requests if r.rows is not None and r.positions is not None]
    if not shown:
        return ALIKE
    table = pl.DataFrame(
        {
            "query": np.repeat(
                [query_key(request.query) for request, *_ in shown], [len(rows) for _, rows, _ in shown]
            ),
            "row": np.concatenate([rows for _, rows, _ in shown]),
            "place": np.concatenate([positions for *_, positions in shown]).clip(max=_DEEPEST),
            "clicks": np.concatenate([graded(request, rows)[0] for request, rows, _ in shown]) > 0,
        }
    )
    table = table.group_by("query", "row", "place", maintain_order=True).agg(pl.len(), pl.col("clicks").sum())
    pair = pl.struct("query", "row")
    moved = table.filter(pl.len().over("query", "row") > 1).with_columns(pair.rank("dense").alias("pair") - 1)
    return Examination(
        _shares(*(moved[name].to_numpy().astype(np.int64) for name in ("pair", "place", "len", "clicks")))
    )


def _shares(pair: Ints, place: Ints, times: Ints, clicks: Ints) -> Doubles:
    """The share of each place, given how often a pair of query and product stood at a place and was clicked there."""
    if not len(place):
        return np.ones(1)
    at = place - 1
    of_pair, of_place = np.bincount(pair, clicks), np.bincount(at, clicks) + _PRIOR
    shares = np.ones(len(of_place))
    for _ in range(_ROUNDS):
        rate = of_pair / np.bincount(pair, times * shares[at])
        shares = of_place / (np.bincount(at, times * rate[pair]) + _PRIOR)
        shares /= shares[0]
    # A place at which nothing was seen that stood elsewhere too is looked at as often as the one above.
    seen = np.bincount(at) > 0
    return np.asarray(shares[np.maximum.accumulate(np.where(seen, np.arange(len(seen)), 0))], np.float64)
