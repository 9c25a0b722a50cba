"""The event log as the ranker reads it: engagements to fold, and requests to learn from."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from indexer.arrays import Array, Ints
from ranker.history import ADD_TO_CART, CLICK, KINDS, PURCHASE, RATING, VIEW, Engagement

# What an engagement with a shown product is worth: the gain in NDCG is 2^grade - 1.
_GRADES = {VIEW: 1.0, CLICK: 1.0, ADD_TO_CART: 2.0, PURCHASE: 3.0, RATING: 3.0}


class Request(NamedTuple):
    """An answer somebody once got, or should have got, at `time` (Unix seconds).

    `rows` are the products shown, with `positions` from 1; where they are None nobody logged what was shown, and the
    list is drawn from recall. `wanted` maps the rows that found favour to their grades.
    """

    time: float
    user: str | None
    query: str
    rows: Ints | None
    positions: Ints | None
    wanted: Mapping[int, float]


def engagements(events: pl.DataFrame, row_of: Mapping[str, int], positive_rating: float) -> pl.DataFrame:
    """Columns user_id, row, kind, time, request_id of the engagements with known products, in time order.

    Impressions are no engagement, and neither is a rating below `positive_rating`.
    """
    rows = pl.DataFrame(
        {"product_id": list(row_of), "row": list(row_of.values())}, schema={"product_id": pl.String, "row": pl.Int64}
    )
    kinds = pl.DataFrame(
        {"event_type": list(KINDS), "kind": list(KINDS.values())}, schema={"event_type": pl.String, "kind": pl.Int64}
    )
    return (
        events.filter((pl.col("event_type") != "rating") | (pl.col("value") >= positive_rating))
        .join(kinds, on="event_type", maintain_order="left")
        .join(rows, on="product_id", maintain_order="left")
        .select(
            "user_id",
            "row",
            "kind",
            seconds(pl.col("event_time")).alias("time"),
            _request_key().alias("request_id"),
            pl.col("query").fill_null(""),
        )
        .sort("time", maintain_order=True)
    )


def seconds(time: pl.Expr) -> pl.Expr:
    """Unix seconds of a canonical event_time."""
    return time.dt.epoch("us") / 1e6


def folding(frame: pl.DataFrame) -> Iterator[Engagement]:
    """The engagements of `engagements`, one by one."""
    return (Engagement(*row) for row in frame.select("user_id", "row", "kind", "time").iter_rows())


def shown_requests(events: pl.DataFrame, found: pl.DataFrame, row_of: Mapping[str, int]) -> list[Request]:
    """Requests whose impressions were logged; `found` are the `engagements`."""
    shown = events.filter((pl.col("event_type") == "impression") & pl.col("request_id").is_not_null())
    if shown.is_empty():
        return []
    wanted = _wanted(found)
    requests = []
    grouped = shown.sort("event_time", maintain_order=True).group_by("request_id", maintain_order=True)
    for row in grouped.agg(
        seconds(pl.col("event_time").min()).alias("time"),
        pl.col("user_id", "query").first(),
        pl.col("product_id", "position"),
    ).iter_rows(named=True):
        places = {
            row_of[p]: i + 1 if at is None else max(at, 1)
            for i, (p, at) in enumerate(zip(row["product_id"], row["position"], strict=True))
            if p in row_of
        }
        good = wanted.get(row["request_id"], {})
        if not places or not good:
            continue
        # In the order of their rows, which is no order at all: a scorer with ties must not inherit the order shown.
        rows = np.array(sorted(places), np.int64)
        positions = np.array([places[int(row)] for row in rows], np.int64)
        good = {r: g for r, g in good.items() if r in places}
        requests.append(Request(row["time"], row["user_id"], row["query"] or "", rows, positions, good))
    return [request for request in requests if request.wanted]


def basket_requests(events: pl.DataFrame, found: pl.DataFrame) -> list[Request]:
    """Requests nobody logged impressions for: what a known user took together, or after a query."""
    logged = events.filter(pl.col("event_type") == "impression")["request_id"].unique().drop_nulls()
    loose = found.filter(~pl.col("request_id").is_in(logged.implode()) & pl.col("kind").is_in(list(_GRADES)))
    loose = loose.filter(pl.col("user_id").is_not_null() | (pl.col("query") != ""))
    wanted = _wanted(loose)
    grouped = loose.group_by("request_id", maintain_order=True).agg(
        pl.col("time").min(), pl.col("user_id", "query").first()
    )
    return [
        Request(row["time"], row["user_id"], row["query"], None, None, wanted[row["request_id"]])
        for row in grouped.iter_rows(named=True)
    ]


def judged_requests(
    judgments: pl.DataFrame, row_of: Mapping[str, int], time: float
) -> list[tuple[Request, str | None]]:
    """One request a judged query, all at `time`, with its `split`: one row marked test makes its query a test."""
    known = judgments.filter(pl.col("product_id").is_in(list(row_of)))
    split = pl.col("split")
    grouped = known.group_by("query", maintain_order=True).agg(
        pl.col("product_id", "grade"), pl.coalesce(split.filter(split == "test").first(), split.first())
    )
    requests: list[tuple[Request, str | None]] = []
    for row in grouped.iter_rows(named=True):
        grades = {row_of[p]: g for p, g in zip(row["product_id"], row["grade"], strict=True)}
        # Judgments often come sorted by grade: in that order, ties between scores would rank as the answers do.
        rows = np.sort(np.fromiter(grades, np.int64))
        requests.append((Request(time, None, row["query"], rows, None, grades), row["split"]))
    return requests


def graded(request: Request, rows: Array) -> tuple[Array, Array]:
    """The grades of `rows`, float64, and the grades of what was wanted but is not among them."""
    grades = np.array([request.wanted.get(int(row), 0.0) for row in rows])
    present = set(rows.tolist())
    return grades, np.array([grade for row, grade in request.wanted.items() if row not in present])


def _request_key() -> pl.Expr:
    """What joins the events of one request: its id, else the session, else the user at that moment."""
    moment = pl.concat_str(pl.col("user_id"), pl.lit("@"), pl.col("event_time").dt.epoch("us"))
    return pl.coalesce("request_id", "session_id", moment)


def _wanted(found: pl.DataFrame) -> dict[str, dict[int, float]]:
    """Request key -> row -> the best grade reached."""
    grades = found.with_columns(
        pl.col("kind")
        .replace_strict(list(_GRADES), list(_GRADES.values()), default=0.0, return_dtype=pl.Float64)
        .alias("grade")
    )
    best = (
        grades.filter(pl.col("grade") > 0).group_by("request_id", "row", maintain_order=True).agg(pl.col("grade").max())
    )
    wanted: dict[str, dict[int, float]] = {}
    for key, row, grade in best.iter_rows():
        wanted.setdefault(key, {})[row] = grade
    return wanted
