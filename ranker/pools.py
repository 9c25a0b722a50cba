"""What the encoder is tuned on: an anchor text, and the titles it led to."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from indexer.arrays import Doubles, Ints
from indexer.canonical import EVENTS
from indexer.text import normalise, query_key
from ranker import log
from ranker.config import RankerConfig
from ranker.examples import Slice, slice_of_query, time_cuts
from ranker.history import DISLIKE, RETURN

# Pools drawn from the log at most, spread evenly over it.
_MOST = 20_000
# Where nothing but steps from product to product is known, so many are drawn for each product at most.
_STEPS_OF_PRODUCT = 20


class Pool(NamedTuple):
    """An anchor text and title rows with gains from 0 (not wanted) to 1 (most wanted)."""

    anchor: str
    rows: Ints
    gains: Doubles


def make_pools(
    sources: log.Sources, row_of: Mapping[str, int], titles: Sequence[str], config: RankerConfig
) -> tuple[list[Pool], dict[str, Any]]:
    """Pools of the first slice, and what of the log they have seen: `queries_below`, a share, `events_before`, a time.

    Judged queries and logged queries with what they led to; where a log holds no query, each product with the next
    one of the same user.
    """
    pools: list[Pool] = []
    kept_from_it: set[str] = set()
    if sources.judgments is not None:
        judged = log.judged_requests(sources.judgments, row_of, 0.0)
        chosen = [r for r, split in judged if slice_of_query(r.query, split, config.encoder_share) is Slice.TOWER]
        pools += _graded([(r.query, r.rows, r.wanted) for r in chosen if r.rows is not None])
        kept_from_it = {query_key(r.query) for r, _ in judged} - {query_key(r.query) for r in chosen}
    events = sources.events if sources.events is not None else pl.DataFrame(schema=EVENTS)
    found = log.engagements(events, row_of, config.positive_rating)
    times = np.array([request.time for request in log.requests(events, found, row_of, config)])
    before = time_cuts(times, config.time_cuts)[0] if len(times) else 0.0
    found = found.filter((pl.col("time") < before) & ~pl.col("kind").is_in([RETURN, DISLIKE]))
    # A judged query that others are fitted or measured on must not come in through the log.
    asked = found.filter((pl.col("query") != "") & ~pl.col("query").is_in(list(kept_from_it)))
    pools += _after_queries(asked)
    if not pools:
        pools = _steps(found, titles)
    return pools, {"queries_below": config.encoder_share, "events_before": before}


def _graded(lists: Sequence[tuple[str, Ints, Mapping[int, float]]]) -> list[Pool]:
    """Gains between the lowest grade anywhere and the highest, squared: a middling title is little wanted."""
    grades = [grade for _, _, wanted in lists for grade in wanted.values()]
    low, high = (min(grades), max(grades)) if grades else (0.0, 0.0)
    spread = (high - low) or 1.0
    low = low if high > low else low - 1.0
    return [
        Pool(normalise(query), rows, ((np.array([wanted.get(int(r), low) for r in rows]) - low) / spread) ** 2)
        for query, rows, wanted in lists
    ]


def _after_queries(asked: pl.DataFrame) -> list[Pool]:
    """What each logged query led to, weighed by how often it did."""
    counts = asked.group_by("query", "row", maintain_order=True).len()
    pools = counts.group_by("query", maintain_order=True).agg("row", pl.col("len") / pl.col("len").max())
    pools = pools.gather_every(max(-(-len(pools) // _MOST), 1))
    return [Pool(query, np.array(rows), np.array(shares)) for query, rows, shares in pools.iter_rows()]


def _steps(found: pl.DataFrame, titles: Sequence[str]) -> list[Pool]:
    """Each product with the products that users went to next."""
    known = found.filter(pl.col("user_id").is_not_null()).sort("user_id", "time", maintain_order=True)
    steps = known.select("row", pl.col("row").shift(-1).over("user_id").alias("next")).drop_nulls()
    steps = steps.filter(pl.col("row") != pl.col("next"))
    pools = steps.group_by("row", maintain_order=True).agg(
        pl.col("next").unique(maintain_order=True).head(_STEPS_OF_PRODUCT)
    )
    pools = pools.gather_every(max(-(-len(pools) // _MOST), 1))
    return [Pool(titles[row], np.array(to), np.ones(len(to))) for row, to in pools.iter_rows()]
