"""Peers side by side: fit each, ask each the same requests in time order, and sum up the figures."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from indexer.arrays import Doubles, Ints
from peers.context import Case, Context, Peer
from peers.figures import DEPTH, NAMES, Figures, Order, figures, intervals
from ranker.log import Request

Say = Callable[[str], None]


@runtime_checkable
class Pooled(Protocol):
    """A peer that scores a request's own rows otherwise than the catalogue."""

    def pool(self, request: Request) -> Doubles:
        """Scores of `request.rows`."""


class Answer(NamedTuple):
    """A case, its scores over the catalogue, and those of its own rows where it has some."""

    case: Case
    scores: Doubles
    pool: Doubles | None


Scored = Iterable[Answer]


def fitted_rows(peers: Iterable[Peer], context: Context, sum_up: Callable[[Scored], Any], say: Say) -> list[Any]:
    """A row for each peer: its name, its settings, seconds of the fit, milliseconds a request and its figures."""
    return [_row(peer, context, sum_up, say) for peer in peers]


def by_user(scored: Scored, order: Order) -> dict[str, Any]:
    """Figures over the catalogue, and over the products that are new to the user."""
    whole: list[Figures] = []
    new: list[Figures] = []
    for case, scores, _ in scored:
        first = _first(order, scores, case.history)
        whole.append(figures(first[:DEPTH], case.request.wanted))
        own = set(case.history.tolist())
        unknown = {row: grade for row, grade in case.request.wanted.items() if row not in own}
        new.append(figures(first[~np.isin(first, case.history)], unknown))
    return {"all": intervals(whole), "new_to_user": intervals(new)}


def by_query(scored: Scored, order: Order, positive_grade: float) -> dict[str, Any]:
    """NDCG@10 within each request's own rows, and recall@100 of the positive ones over the catalogue."""
    each = [_query_figures(answer, order, positive_grade) for answer in scored]
    return {"all": intervals(each, NAMES[1:])}


def _query_figures(answer: Answer, order: Order, positive_grade: float) -> Figures:
    request, rows = answer.case.request, answer.case.request.rows
    if rows is None or answer.pool is None:
        raise ValueError("A request by query is compared within its judged rows, and this one has none.")
    good = {row: grade for row, grade in request.wanted.items() if grade >= positive_grade}
    pool = figures(order.of(rows, answer.pool), request.wanted)
    return pool._replace(recall=figures(order.first(answer.scores), good).recall)


def _first(order: Order, scores: Doubles, history: Ints) -> Ints:
    """Enough of the order that a hundred rows are left when the history's are taken out."""
    return order.first(scores, DEPTH + len(np.unique(history)))


def _row(peer: Peer, context: Context, sum_up: Callable[[Scored], Any], say: Say) -> dict[str, Any]:
    start = time.perf_counter()
    peer.fit(context)
    fitted = time.perf_counter()
    clock = [0.0]
    figures_of = sum_up(_asked(peer, context.cases, clock))
    told = {name: getattr(peer, name) for name in ("settings", "tried") if hasattr(peer, name)}
    milliseconds = round(clock[0] / max(len(context.cases), 1) * 1e3, 3)
    row = {"name": peer.name, **told, "fit_seconds": round(fitted - start, 2), "request_ms": milliseconds, **figures_of}
    say(line(row))
    return row


def _asked(peer: Peer, cases: Sequence[Case], clock: list[float]) -> Iterator[Answer]:
    """Each case with the peer's scores; `clock` adds up the seconds spent in it."""
    for case in cases:
        start = time.perf_counter()
        scores = peer.scores(case.request, case.history)
        clock[0] += time.perf_counter() - start
        yield Answer(case, scores, _pool(peer, case.request, scores))


def _pool(peer: Peer, request: Request, scores: Doubles) -> Doubles | None:
    if request.rows is None:
        return None
    return peer.pool(request) if isinstance(peer, Pooled) else scores[request.rows]


def line(row: dict[str, Any]) -> str:
    """One line for the person who waits."""
    parts = [
        f"{part} " + "  ".join(f"{name} {each['mean']:.4f}" for name, each in row[part].items() if name != "requests")
        for part in ("all", "new_to_user")
        if part in row
    ]
    return f"{row['name']:<44} {'   '.join(parts)}"
