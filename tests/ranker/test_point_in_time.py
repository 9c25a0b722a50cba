"""Nothing a row is told at a time depends on what happens later: random logs, whose future is changed."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import polars as pl
import pytest

from indexer.arrays import Floats
from indexer.canonical import EVENTS
from indexer.encoder import Encoder
from indexer.snapshot import IndexSnapshot
from ranker import features, log
from ranker.config import RankerConfig
from ranker.examples import Example, Slice, replay, slice_of_time
from ranker.exposure import NOTHING, Shown, shown_of
from ranker.history import ADD_TO_CART, CLICK, DISLIKE, PURCHASE, RATING, RETURN, VIEW
from ranker.log import Request
from ranker.space import ProductSpace
from ranker.stages import Prepared, make_stages

TITLES = tuple(f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("boot", "hat", "dress", "sock"))
KINDS = (VIEW, CLICK, ADD_TO_CART, PURCHASE, RATING, RETURN, DISLIKE)
QUERIES = ("", "red boot", "blue hat")
# The stages begin at 40, 46, 52, 58 and 64 within the members' slice, then at 70, 80 and 90.
CUTS = [40.0, 70.0, 80.0, 90.0]

Replayed = Callable[..., list[Example]]
Engaged = Callable[..., pl.DataFrame]


@pytest.fixture(scope="module")
def snapshot(titles: Callable[..., IndexSnapshot]) -> IndexSnapshot:
    count = len(TITLES)
    return titles(
        *TITLES,
        brand=["Nord", "Süd", None] * (count // 3),
        category=["Shoes", "Hats", "Dresses", "Socks"] * (count // 4),
        price=[float(i) for i in range(count)],
    )


@pytest.fixture(scope="module")
def replayed(snapshot: IndexSnapshot, encoder: Encoder, plain_space: Callable[[Floats], ProductSpace]) -> Replayed:
    space = plain_space(snapshot.vectors)

    def run(frame: pl.DataFrame, requests: Sequence[Request], shown: Shown = NOTHING) -> list[Example]:
        parts = [(request, slice_of_time(request.time, CUTS)) for request in requests]
        prepared = Prepared(parts, frame, CUTS, shown=shown)
        stages = make_stages(prepared, snapshot, space, RankerConfig(candidates=6), {})
        behaviour = prepared.behaviour(len(TITLES))
        embed = partial(_embedded, encoder)
        return [example for _, example in replay(parts, log.folding(frame), behaviour, stages, space, embed)]

    return run


def _embedded(encoder: Encoder, query: str) -> Floats:
    return encoder.encode([query])[0]


def looked_at(rng: np.random.Generator, start: float, end: float, count: int) -> Shown:
    """Impressions and clicks at whole seconds, many of them at one time."""
    seconds = np.sort(rng.integers(start, end, count))
    frame = pl.DataFrame(
        {
            "event_id": [str(i) for i in range(count)],
            "event_time": pl.Series(seconds * 1_000_000).cast(EVENTS["event_time"]),
            "event_type": rng.choice(["impression", "click"], count),
            "request_id": ["r"] * count,
            "query": rng.choice(["Red boot", "blue hat"], count),
            "position": rng.integers(1, 4, count),
            "product_id": rng.integers(0, len(TITLES), count).astype(str),
        }
    )
    return shown_of(frame, {str(row): row for row in range(len(TITLES))}, np.array([1.0, 0.5]))


def drawn(rng: np.random.Generator, engaged: Engaged, start: float, end: float, count: int) -> pl.DataFrame:
    """Engagements at whole seconds, many of them at one time."""
    return engaged(
        *(
            (
                ("a", "b", None)[rng.integers(3)],
                int(rng.integers(len(TITLES))),
                float(rng.integers(start, end)),
                KINDS[rng.integers(len(KINDS))],
                QUERIES[rng.integers(3)],
            )
            for _ in range(count)
        )
    )


def asked(rng: np.random.Generator) -> list[Request]:
    """Requests over the slices after the first: logged lists with places, judged ones, and lists to be recalled."""
    requests = []
    for time in np.sort(rng.integers(40, 100, 30)):
        rows = np.sort(rng.choice(len(TITLES), 5, replace=False))
        shown = (rows, np.arange(1, 6)) if rng.random() < 0.5 else (None, None)
        user, query = ("a", "b", "stranger")[rng.integers(3)], ("", "red boot", "Blue hat")[rng.integers(3)]
        requests.append(Request(float(time), user, query, *shown, {int(rows[0]): 1.0}))
    return requests


def joined(*frames: pl.DataFrame) -> pl.DataFrame:
    return pl.concat(frames).sort("time", maintain_order=True)


def assert_alike(one: Sequence[Example], other: Sequence[Example]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert (a.context.history, a.context.disliked) == (b.context.history, b.context.disliked)
        np.testing.assert_array_equal(a.rows, b.rows)
        np.testing.assert_array_equal(a.features, b.features)
        np.testing.assert_array_equal(a.recall_scores, b.recall_scores)


@pytest.mark.parametrize("now", [45.0, 60.0, 75.0, 90.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_row_at_a_time_does_not_know_what_comes_after(
    seed: int, now: float, replayed: Replayed, engaged: Engaged
) -> None:
    rng = np.random.default_rng(seed)
    frame, requests = drawn(rng, engaged, 0, 100, 250), asked(rng)
    before, after = frame.filter(pl.col("time") < now), frame.filter(pl.col("time") >= now)
    shown = looked_at(rng, 0, 100, 250)
    past = shown.part(0, int(np.searchsorted(shown.times, now)))
    whole = [example for example in replayed(frame, requests, shown) if example.context.now <= now]
    assert len(past.rows) < len(shown.rows)
    assert_alike(whole, [e for e in replayed(frame, requests, past) if e.context.now <= now])
    futures = {
        "removed": before,
        "added to": joined(frame, drawn(rng, engaged, int(now), 100, 80)),
        "shifted": joined(before, after.with_columns(pl.col("time") + 1_000.0)),
        "of others": joined(before, after.with_columns(user_id=pl.lit("b"), query=pl.lit("red boot"))),
        "only dislikes": joined(before, after.with_columns(kind=pl.lit(DISLIKE, pl.Int64))),
    }
    for change, changed in futures.items():
        assert not changed.equals(frame), change
        assert_alike(whole, [example for example in replayed(changed, requests, shown) if example.context.now <= now])


def test_a_row_does_know_what_came_before(replayed: Replayed, engaged: Engaged) -> None:
    """What the other test leans on: each kind of thing a row is told of the log moves when its past does."""
    changed = np.zeros(len(features.NAMES), bool)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        # Sparse, so that two users have not engaged with every product before the first request.
        frame, requests = drawn(rng, engaged, 0, 100, 120), asked(rng)
        past = joined(drawn(rng, engaged, 0, 40, 40), frame)
        shown = looked_at(rng, 0, 40, 60)
        for one, other in zip(replayed(frame, requests), replayed(past, requests, shown), strict=True):
            for row in np.intersect1d(one.rows, other.rows):
                pair = [made.features[made.rows.tolist().index(row)] for made in (one, other)]
                changed |= ~np.isclose(*pair, rtol=1e-5, atol=1e-6, equal_nan=True)
    moved = {name for name, each in zip(features.NAMES, changed, strict=True) if each}
    assert moved > {
        *("query_frequency", "query_engaged", "query_share", "popularity_3d", "popularity_120d", "repeat_rate"),
        *("history_length", "covisited", "covisited_last", "ease", "rhythm", "recent_visits_70", "liked_share"),
        *("ratings", "trend_30d", "trend_120d", "shown", "click_rate", "query_shown", "query_click_rate"),
        *("user_liked_share", "disliked_cosine_mean", "disliked_covisited", "return_rate", "category_liked_share"),
    }
    assert not moved & {"log_price", "title_cosine", "bm25", "lexical", "hour", "position", "title_tokens"}


def test_the_later_slices_hold_every_kind_of_request(replayed: Replayed, engaged: Engaged) -> None:
    rng = np.random.default_rng(0)
    made = replayed(drawn(rng, engaged, 0, 100, 250), asked(rng))
    assert {slice_of_time(example.context.now, CUTS) for example in made} == {*Slice} - {Slice.TOWER}
    assert {bool(len(e.recall_scores)) for e in made} == {bool(e.context.query) for e in made} == {True, False}
