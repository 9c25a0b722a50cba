"""What a peer may see: the engagements up to a moment, the catalogue, and the requests it will be asked."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
from scipy import sparse

from indexer.arrays import Doubles, Floats, Ints, Mask
from ranker.history import ADD_TO_CART, CLICK, PURCHASE, RATING, RETURN, VIEW
from ranker.log import Request

Parameters = Mapping[str, Any]

# What a peer takes for a yes; a low rating is none.
_ENGAGED = (VIEW, CLICK, ADD_TO_CART, PURCHASE, RATING)
NO_HISTORY: Ints = np.empty(0, np.int64)


class Case(NamedTuple):
    """A test request and the rows its user had engaged with strictly before it, oldest first."""

    request: Request
    history: Ints


class Peer(Protocol):
    """A ranker of the whole catalogue."""

    name: str

    def fit(self, context: "Context") -> None:
        """Learn from the engagements before `context.cut`."""

    def scores(self, request: Request, history: Ints) -> Doubles:
        """A score for every product, float64 [products]. Requests come in time order."""


class Log:
    """Engagements in time order: `users` (codes, -1 without a user), `rows`, `times` (Unix seconds), returns taken out.

    A return cancels its user's latest purchase of the product, from the moment of the return on.
    """

    def __init__(self, engagements: pl.DataFrame) -> None:
        counted = engagements.filter(pl.col("kind").is_in([*_ENGAGED, RETURN]))
        frame = counted.sort("time", maintain_order=True)
        codes, names = _codes(frame["user_id"])
        kinds = frame["kind"].to_numpy()
        self._code_of: Mapping[str, int] = {name: code for code, name in enumerate(names)}
        self._returning = set(codes[kinds == RETURN].tolist())
        rows, times = frame["row"].to_numpy(), frame["time"].to_numpy()
        self._of_user = _by_user(codes, codes >= 0)
        self._rows, self._times, self._kinds = rows, times, kinds
        good = kinds != RETURN
        self.users, self.rows, self.times = codes[good], rows[good], times[good]
        self.user_count = len(names)

    def code(self, user: str | None) -> int:
        """The code of a user, -1 for none or an unknown one."""
        return -1 if user is None else self._code_of.get(user, -1)

    def history(self, user: str | None, time: float) -> Ints:
        """The rows `user` engaged with strictly before `time`, oldest first, int64."""
        return self.timed(user, time)[0]

    def timed(self, user: str | None, time: float) -> tuple[Ints, Doubles]:
        """The history and the time of each of its engagements."""
        mine = self._of_user.get(self.code(user), NO_HISTORY)
        seen = mine[: np.searchsorted(self._times[mine], time, side="left")]
        if self.code(user) in self._returning:
            seen = seen[_standing(self._rows[seen], self._kinds[seen])]
        return self._rows[seen], self._times[seen]

    def window(self, since: float, until: float) -> slice:
        """The engagements at times in [since, until)."""
        first, last = np.searchsorted(self.times, [since, until], side="left")
        return slice(int(first), int(last))

    def matrix(self, until: float, products: int) -> sparse.csr_matrix:
        """How often each user engaged with each product strictly before `until`: float32 [users, products]."""
        part = self.window(-np.inf, until)
        users, rows = self.users[part], self.rows[part]
        known = users >= 0
        ones = np.ones(int(known.sum()), np.float32)
        return sparse.csr_matrix((ones, (users[known], rows[known])), shape=(self.user_count, products))

    def sequences(self, until: float) -> tuple[Ints, Ints, Doubles]:
        """Users, rows and times of the engagements with a user strictly before `until`, in time order."""
        part = self.window(-np.inf, until)
        known = self.users[part] >= 0
        return self.users[part][known], self.rows[part][known], self.times[part][known]


@dataclass(frozen=True)
class Context:
    """What a peer is fitted in. `cut` is the time of the first request of `cases`: fitted peers learn from before it.

    `vectors` are the titles' vectors, float32 [products, dimensions], of length one.
    """

    log: Log
    cut: float
    vectors: Floats
    titles: Sequence[str]
    cases: Sequence[Case]
    seed: int = 0

    @property
    def products(self) -> int:
        """How many products the catalogue has."""
        return len(self.vectors)

    def matrix(self) -> sparse.csr_matrix:
        """Engagements before the cut, float32 [users, products]."""
        return self.log.matrix(self.cut, self.products)


def cases_of(requests: Iterable[Request], log: Log) -> list[Case]:
    """The requests with their users' histories, in the order given."""
    return [Case(request, log.history(request.user, request.time)) for request in requests]


def _codes(users: pl.Series) -> tuple[Ints, list[str]]:
    names = users.drop_nulls().unique(maintain_order=True)
    codes = users.replace_strict(names, pl.int_range(len(names), eager=True), default=-1, return_dtype=pl.Int64)
    return codes.fill_null(-1).to_numpy(), names.to_list()


def _by_user(codes: Ints, kept: Mask) -> dict[int, Ints]:
    places = np.flatnonzero(kept)
    order = places[np.argsort(codes[places], kind="stable")]
    users, starts = np.unique(codes[order], return_index=True)
    return dict(zip(users.tolist(), np.split(order, starts[1:]), strict=False)) if len(users) else {}


def _standing(rows: Ints, kinds: Ints) -> list[int]:
    """The places of what was not returned."""
    kept: list[int] = []
    for place, (row, kind) in enumerate(zip(rows.tolist(), kinds.tolist(), strict=True)):
        if kind != RETURN:
            kept.append(place)
            continue
        taken = [i for i in kept if rows[i] == row and kinds[i] == PURCHASE]
        if taken:
            kept.remove(taken[-1])
    return kept
