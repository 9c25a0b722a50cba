"""The event log as the ranker reads it: engagements to fold, and requests to learn from."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import polars as pl

from indexer.arrays import Array, Ints
from indexer.text import query_key
from ranker.config import RankerConfig
from ranker.history import ADD_TO_CART, CLICK, DISLIKE, KINDS, PURCHASE, RATING, VIEW, Engagement

# What an engagement with a shown product is worth: the gain in NDCG is 2^grade - 1.
_GRADES = {VIEW: 1.0, CLICK: 1.0, ADD_TO_CART: 2.0, PURCHASE: 3.0, RATING: 3.0}
# A rating given as an explicit answer is worth 1, more for each star above the threshold, and at most this.
_BEST_RATING = 3.0

# Seconds without a rating after which a user's next one begins a new sitting.
_SITTING = 1_800.0
# Products in one list of ratings: a first visit of hundreds would weigh as much as one of ten, at ten times the rows.
_LONGEST_SITTING = 50


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


class Sources(NamedTuple):
    """What is learnt from: canonical events (with the journal's) and judgments, either of which may be None."""

    events: pl.DataFrame | None
    judgments: pl.DataFrame | None


def requests(
    events: pl.DataFrame, found: pl.DataFrame, row_of: Mapping[str, int], config: RankerConfig
) -> list[Request]:
    """All requests of the log, in time order; `found` are its `engagements`."""
    explicit = config.ratings == "explicit"
    rated = rated_requests(events, row_of, config.positive_rating) if explicit else []
    loose = basket_requests(events, found, ratings=not explicit)
    return sorted([*shown_requests(events, found, row_of), *loose, *rated], key=lambda request: request.time)


def engagements(events: pl.DataFrame, row_of: Mapping[str, int], positive_rating: float) -> pl.DataFrame:
    """Columns user_id, row, kind, time, request_id, query of the engagements with known products, in time order.

    Impressions are no engagement. A rating below `positive_rating` is a dislike, one without a value is nothing.
    `query` is the key of the query (`indexer.text.query_key`), empty where there is none.
    """
    kinds = pl.DataFrame(
        {"event_type": list(KINDS), "kind": list(KINDS.values())}, schema={"event_type": pl.String, "kind": pl.Int64}
    )
    rating = pl.col("event_type") == "rating"
    low = rating & (pl.col("value") < positive_rating)
    keys = {query: query_key(query) for query in events["query"].unique().drop_nulls().to_list()}
    return (
        with_rows(
            events.filter(~rating | pl.col("value").is_not_nan()).join(kinds, on="event_type", maintain_order="left"),
            row_of,
        )
        .select(
            "user_id",
            "row",
            pl.when(low).then(DISLIKE).otherwise("kind").alias("kind").cast(pl.Int64),
            seconds(pl.col("event_time")).alias("time"),
            _request_key().alias("request_id"),
            pl.col("query").fill_null("").replace_strict(keys, default="", return_dtype=pl.String),
        )
        .sort("time", maintain_order=True)
    )


def seconds(time: pl.Expr) -> pl.Expr:
    """Unix seconds of a canonical event_time."""
    return time.dt.epoch("us") / 1e6


def folding(frame: pl.DataFrame) -> Iterator[Engagement]:
    """The engagements of `engagements`, one by one."""
    return (Engagement(*row) for row in frame.select("user_id", "row", "kind", "time", "query").iter_rows())


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


def basket_requests(events: pl.DataFrame, found: pl.DataFrame, *, ratings: bool = True) -> list[Request]:
    """Requests nobody logged impressions for: what a known user took together, or after a query.

    Without `ratings`, nothing that was only rated is in them: for use beside `rated_requests`.
    """
    kinds = [kind for kind in _GRADES if ratings or kind != RATING]
    loose = found.filter(~pl.col("request_id").is_in(_logged(events).implode()) & pl.col("kind").is_in(kinds))
    loose = loose.filter(pl.col("user_id").is_not_null() | (pl.col("query") != ""))
    wanted = _wanted(loose)
    grouped = loose.group_by("request_id", maintain_order=True).agg(
        pl.col("time").min(), pl.col("user_id", "query").first()
    )
    return [
        Request(row["time"], row["user_id"], row["query"], None, None, wanted[row["request_id"]])
        for row in grouped.iter_rows(named=True)
    ]


def rated_requests(events: pl.DataFrame, row_of: Mapping[str, int], positive_rating: float) -> list[Request]:
    """Requests with explicit answers: what a known user rated in one sitting, in time order.

    A sitting is a user's ratings with less than 30 minutes from each to the next; one of more than 50 products is cut
    into parts of about one length. `time` is the first rating's, so the history strictly before it holds none of the
    list. Wanted is what was rated `positive_rating` or better, the rest is refused; a list needs both. Of a product
    rated again in the sitting the last rating counts. Ratings that answer logged impressions are `shown_requests`.
    """
    lists = _sittings(_ratings(events, row_of)).group_by("user_id", "sitting", "part", maintain_order=True)
    requests = []
    # In the order of their rows: the order of rating may follow the page somebody once saw, or the stars given.
    for row in lists.agg(pl.col("time").min(), pl.col("row", "value").sort_by("row")).iter_rows(named=True):
        rated = zip(row["row"], row["value"], strict=True)
        wanted = {r: min(1.0 + value - positive_rating, _BEST_RATING) for r, value in rated if value >= positive_rating}
        if 0 < len(wanted) < len(row["row"]):
            requests.append(Request(row["time"], row["user_id"], "", np.array(row["row"], np.int64), None, wanted))
    return sorted(requests, key=lambda request: request.time)


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


def with_rows(events: pl.DataFrame, row_of: Mapping[str, int]) -> pl.DataFrame:
    """The events of known products, with their `row`."""
    if len(events) < len(row_of):
        # Looked up one by one: a table of 100,000 products, to be joined, takes milliseconds to make.
        rows = pl.Series("row", [row_of.get(product) for product in events["product_id"].to_list()], pl.Int64)
        return events.with_columns(rows).filter(rows.is_not_null())
    table = pl.DataFrame(
        {"product_id": list(row_of), "row": list(row_of.values())}, schema={"product_id": pl.String, "row": pl.Int64}
    )
    return events.join(table, on="product_id", maintain_order="left")


def _logged(events: pl.DataFrame) -> pl.Series:
    """The ids of requests whose impressions are in the log."""
    return events.filter(pl.col("event_type") == "impression")["request_id"].unique().drop_nulls()


def _ratings(events: pl.DataFrame, row_of: Mapping[str, int]) -> pl.DataFrame:
    """Columns user_id, row, value, time of the ratings by known users outside logged requests, in each user's order."""
    shown = pl.col("request_id").is_in(_logged(events).implode()).fill_null(False)
    known = pl.all_horizontal(pl.col("user_id", "value").is_not_null())
    return (
        with_rows(events.filter((pl.col("event_type") == "rating") & known & ~shown), row_of)
        .select("user_id", "row", "value", seconds(pl.col("event_time")).alias("time"))
        .sort("user_id", "time", maintain_order=True)
    )


def _sittings(rated: pl.DataFrame) -> pl.DataFrame:
    """One line for each product of a sitting, at its first rating and with its last, and the `part` it falls in."""
    # From one user to the next the number may stay: a sitting is named by both.
    begins = (pl.col("time").diff() >= _SITTING).fill_null(True)
    products = (
        rated.with_columns(begins.cum_sum().alias("sitting"))
        .group_by("user_id", "sitting", "row", maintain_order=True)
        .agg(pl.col("time").first(), pl.col("value").last())
        .sort("user_id", "time", "row")
    )
    place, length = pl.int_range(pl.len()), pl.len()
    parts = (length + _LONGEST_SITTING - 1) // _LONGEST_SITTING
    return products.with_columns((place * parts // length).over("user_id", "sitting").alias("part"))


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
