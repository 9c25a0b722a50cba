"""The planner: from what was measured at the build, how far a search looks, and which filters are answered exactly."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

# The neighbours whose recall is the target.
NEIGHBOURS = 100
# An approximate answer must take at most this share of the exact one's time: what was measured is noisy.
_CLEARLY = 0.8
# Of an index that was not tuned (it is being built, or an earlier version built it).
_EXACT_BELOW = 0.2
_FILTERED_WIDER = 2


class Point(NamedTuple):
    """What one effort gave: the recall of the 100 nearest and the median milliseconds of a search on one thread.

    The effort is efSearch of a graph, nprobe of inverted lists, and 0 where nothing can be set.
    """

    effort: int
    recall: float
    ms: float


class Filtered(NamedTuple):
    """What was measured under a random filter that keeps `share` of the rows: the same efforts at every share."""

    share: float
    exact_ms: float
    points: Sequence[Point]


@dataclass(frozen=True)
class Tuning:
    """How an index is searched: the chosen effort, and all that was measured to choose it."""

    target: float
    effort: int
    points: Sequence[Point] = ()
    filtered: Sequence[Filtered] = ()

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Tuning":
        """What `told` made."""
        filtered = [Filtered(f["share"], f["exact_ms"], [Point(**p) for p in f["points"]]) for f in entry["filtered"]]
        return cls(entry["target"], entry["effort"], [Point(**point) for point in entry["points"]], filtered)

    def told(self) -> dict[str, Any]:
        """The manifest's entry."""
        filtered = [f._asdict() | {"points": [p._asdict() for p in f.points]} for f in self.filtered]
        return asdict(self) | {"points": [point._asdict() for point in self.points], "filtered": filtered}

    def surely_exact(self, share: float) -> bool:
        """Whether to score what a filter keeps costs no more than to look where the query's neighbours are."""
        if not self.filtered:
            return share <= _EXACT_BELOW
        return self._exact_ms(share) <= min(point.ms for point in self.points)

    def filtered_effort(self, near: float, share: float, least: int) -> int | None:
        """The effort, at least `least`, under a filter that keeps `share` of all rows; None: score what it keeps.

        `near` is what the filter keeps of the rows nearest to the query, which is what makes it hard for a graph: it
        is the share of the random filters that were measured. The effort is the cheapest that reaches the target by
        those figures, interpolated over the logarithm of the share, where it is clearly cheaper than exact search.
        """
        if not self.filtered:
            return None if near <= _EXACT_BELOW else max(self.effort, least) * _FILTERED_WIDER
        if near < self.filtered[0].share:
            return None
        expected = [self._expected(place, near) for place in range(len(self.filtered[0].points))]
        enough = [p for p in expected if p.recall >= self.target and (p.effort >= least or not p.effort)]
        enough = enough or self._beyond(expected[-1], least)
        best = min(enough, key=lambda point: point.ms, default=None)
        return best.effort if best and best.ms <= _CLEARLY * self._exact_ms(share) else None

    def _beyond(self, widest: Point, least: int) -> list[Point]:
        """Where more is asked for than was measured: the effort follows, and the time with it."""
        if widest.recall < self.target or widest.effort >= least:
            return []
        return [Point(least, widest.recall, widest.ms * least / widest.effort)]

    def _expected(self, place: int, share: float) -> Point:
        near = [(f.share, f.points[place]) for f in self.filtered]
        recall = _between([(s, p.recall) for s, p in near], share)
        ms = math.exp(_between([(s, math.log(p.ms)) for s, p in near], share))
        return Point(near[0][1].effort, recall, ms)

    def _exact_ms(self, share: float) -> float:
        """Below the least measured share it shrinks as the kept rows do."""
        ms = math.exp(_between([(f.share, math.log(f.exact_ms)) for f in self.filtered], share))
        return ms * min(share / self.filtered[0].share, 1.0)


def _between(points: Sequence[tuple[float, float]], share: float) -> float:
    """The value at `share`, on straight lines over log(share); flat beyond the ends."""
    if share <= points[0][0]:
        return points[0][1]
    for (low, before), (high, after) in pairwise(points):
        if share <= high:
            return before + (after - before) * math.log(share / low) / math.log(high / low)
    return points[-1][1]
