"""What the encoder is tuned on: gains, and nothing of what is measured later."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest

from indexer.canonical import JUDGMENTS, conform
from ranker import pools as module
from ranker.config import RankerConfig
from ranker.examples import Slice, slice_of_query
from ranker.log import Sources
from ranker.pools import Pool, make_pools

TITLES = [f"title {i}" for i in range(30)]
ROWS = {f"P{i}": i for i in range(30)}
Events = Callable[..., pl.DataFrame]


def made(events: pl.DataFrame | None, judgments: pl.DataFrame | None = None, **settings: Any) -> list[Pool]:
    half = {"time_cuts": (0.5, 0.8, 0.85, 0.9)}
    return make_pools(Sources(events, judgments), ROWS, TITLES, RankerConfig(**{**half, **settings}))[0]


def plain(pools: list[Pool]) -> list[tuple[str, dict[int, float]]]:
    return [(pool.anchor, dict(zip(pool.rows.tolist(), pool.gains.tolist(), strict=True))) for pool in pools]


def judged(*rows: tuple[str, str, float, str | None]) -> pl.DataFrame:
    return conform(pl.DataFrame(rows, list(JUDGMENTS), orient="row"), JUDGMENTS)


def event(kind: str, row: int, t: int, **others: object) -> dict[str, object]:
    return {"event_type": kind, "product_id": f"P{row}", "t": t, "user_id": "u", **others}


def query_of(share_below: float, below: bool) -> str:
    return next(
        query
        for query in (f"Query  {i}" for i in range(999))
        if (slice_of_query(query, None, share_below) is Slice.TOWER) == below
    )


def test_gains_are_the_squares_of_grades_between_the_lowest_and_the_highest_anywhere() -> None:
    one = query_of(0.5, below=True)
    rows = [(one, "P1", 2.0, None), (one, "P2", 2.5, None), (one, "P0", 1.0, None), ("ｏｔｈｅｒ", "P3", 3.0, None)]
    found = dict(plain(made(None, judged(*rows), encoder_share=0.79)))
    # Grades from 1 to 3; the anchor is the query normalised, as it is embedded.
    assert found[" ".join(one.split())] == pytest.approx({0: 0.0, 1: (1 / 2) ** 2, 2: (1.5 / 2) ** 2})
    assert found["other"] == {3: 1.0}


def test_grades_that_are_all_alike_are_all_wanted() -> None:
    one = query_of(0.5, below=True)
    assert plain(made(None, judged((one, "P1", 2.0, None), (one, "P5", 2.0, None)))) == [
        (" ".join(one.split()), {1: 1.0, 5: 1.0})
    ]


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_query_from_the_share_on_is_in_no_pool(share: float) -> None:
    queries = [f"query {i}" for i in range(400)]
    judgments = judged(
        *(
            (query, f"P{i % 30}", float(g), ("test", None, "train")[i % 3])
            for i, query in enumerate(queries)
            for g in (1, 2)
        )
    )
    pools, seen = make_pools(Sources(None, judgments), ROWS, TITLES, RankerConfig(encoder_share=share))
    anchors = {pool.anchor for pool in pools}
    expected = {query for i, query in enumerate(queries) if i % 3 and slice_of_query(query, None, share) is Slice.TOWER}
    assert anchors == expected
    assert len(anchors) == pytest.approx(400 * share * 2 / 3, rel=0.25)
    assert seen == {"queries_below": share, "events_before": 0.0}


def test_a_logged_query_with_what_it_led_to(events: Events) -> None:
    """By how often it did: P1 three times, P2 once; what was returned or disliked is not wanted."""
    log = [
        *(event("click", 1, t, query=query) for t, query in enumerate(["Red Boot", "red  boot", "red boot"])),
        event("purchase", 2, 3, query="red boot"),
        event("return", 5, 4, query="red boot"),
        event("rating", 6, 5, query="red boot", value=1.0),
        event("click", 7, 6),
        *(event("click", 9, t, query="late") for t in range(50, 80)),
    ]
    assert plain(made(events(*log), time_cuts=(0.13, 0.8, 0.85, 0.9))) == [("red boot", {1: 1.0, 2: 1 / 3})]


def test_without_a_query_each_product_with_the_users_next(events: Events) -> None:
    log = [
        *(event("view", row, t) for t, row in enumerate([3, 4, 4, 3, 5])),
        *(event("view", row, t, user_id="v") for t, row in enumerate([5, 3, 6])),
        *(event("view", row, t, user_id=None, session_id="s") for t, row in enumerate([7, 8])),
        *(event("view", 9, t) for t in range(50, 80)),
    ]
    assert sorted(plain(made(events(*log), time_cuts=(0.2, 0.8, 0.85, 0.9)))) == [
        ("title 3", {4: 1.0, 5: 1.0, 6: 1.0}),
        ("title 4", {3: 1.0}),
        ("title 5", {3: 1.0}),
    ]


def test_a_product_leads_to_so_many_at_most(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEPS_OF_PRODUCT", 2)
    log = [event("view", row, t) for t, row in enumerate([1, 2, 1, 3, 1, 2, 1, 4])]
    late = [event("view", 9, t) for t in range(50, 80)]
    found = dict(plain(made(events(*log, *late), time_cuts=(0.2, 0.8, 0.85, 0.9))))
    assert found["title 1"] == {2: 1.0, 3: 1.0}


def test_only_what_lies_before_the_first_cut_is_seen(events: Events) -> None:
    """The cut is that of the training, and it is told, so that the training can refuse an encoder that saw more."""
    log = [event("click", t % 30, t, query=f"query {t}") for t in range(100)]
    pools, seen = make_pools(Sources(events(*log), None), ROWS, TITLES, RankerConfig(time_cuts=(0.4, 0.8, 0.85, 0.9)))
    assert seen["events_before"] == pytest.approx(0.4 * 99)
    assert {pool.anchor for pool in pools} == {f"query {t}" for t in range(40)}


def test_judged_and_logged_queries_together(events: Events) -> None:
    below = query_of(0.5, below=True)
    log = events(*(event("click", t % 30, t, query=f"logged {t}") for t in range(10)))
    anchors = [pool.anchor for pool in made(log, judged((below, "P1", 1.0, None), (below, "P2", 2.0, None)))]
    assert anchors == [" ".join(below.split()), *(f"logged {t}" for t in range(5))]


@pytest.mark.parametrize("count", [7, 11, 12, 19])
def test_so_many_pools_at_most_spread_over_the_log(count: int, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 6)
    early = [event("click", t % 30, t, query=f"query {t:02d}") for t in range(count)]
    late = [event("click", 9, t, query="late") for t in range(100, 100 + count)]
    anchors = [pool.anchor for pool in made(events(*early, *late))]
    assert 3 <= len(anchors) <= 6
    assert anchors == sorted(anchors)
    assert (anchors[0], int(anchors[-1].split()[1]) > count / 2) == ("query 00", True)


def test_nothing_known_gives_no_pools(events: Events) -> None:
    assert made(None) == made(events(event("click", 1, 1)).clear()) == []
    assert np.isfinite(make_pools(Sources(None, None), ROWS, TITLES, RankerConfig())[1]["events_before"])


def test_a_judged_query_kept_from_the_encoder_does_not_come_in_through_the_log(events: Events) -> None:
    kept, told = query_of(0.5, below=False), query_of(0.5, below=True)
    log = events(
        event("click", 1, 1, query=kept.upper()), event("click", 2, 2, query=told), event("click", 3, 9, query="free")
    )
    judgments = judged((kept, "P1", 2.0, None), (told, "P2", 2.0, None))
    anchors = {pool.anchor.casefold() for pool in made(log, judgments, time_cuts=(0.9, 0.95, 0.96, 0.97))}
    assert " ".join(told.split()).casefold() in anchors
    assert " ".join(kept.split()).casefold() not in anchors
