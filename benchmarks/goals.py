"""The figures of `whole.py`: those of a round, their medians, and what was wanted of them."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Goal(NamedTuple):
    """A bound that a median should not cross."""

    at_most: bool
    bound: float

    def reached(self, value: float) -> bool:
        """Whether it holds; a figure that could not be had reaches nothing."""
        return value <= self.bound if self.at_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:g}"


GOALS = {
    "served p50 ms": Goal(True, 5.0),
    "served p99 ms": Goal(True, 10.0),
    "served p50 above the pipeline's ms": Goal(True, 1.0),
    "search held : naive": Goal(False, 8.0),
    "search held : ceiling": Goal(False, 0.75),
    "recommend held : search held": Goal(False, 1.0),
    "seconds until SERVING": Goal(True, 5.0),
    "private MB of a worker": Goal(True, 700.0),
}

# Cores that a quiet machine may have at work for others.
QUIET = 0.2


def figures_of(told: Mapping[str, Any]) -> dict[str, float]:
    """One round's figures by name. A rate is 0 where none was held; of the workers' memory the greatest counts."""
    naive, ranked, pipeline, served = told["naive"]["bare"], told["naive"]["ranked"], told["pipeline"], told["served"]
    one, many = served["one"], served["many"]
    ceiling = sum(each["requests_per_second"] for each in told["ceiling"])
    search, recommend = (served[method]["held_rate"] or 0.0 for method in ("search", "recommend"))
    memory = {key: max(each[key] for each in served["memory_mb"]) for key in ("private", "shared", "proportional")}
    return {
        "naive/s": naive["requests_per_second"],
        "naive p50 ms": naive["latency_ms"]["p50"],
        "naive p99 ms": naive["latency_ms"]["p99"],
        "naive with features and fusion/s": ranked["requests_per_second"],
        "naive with features and fusion p50 ms": ranked["latency_ms"]["p50"],
        "pipeline/s": pipeline["requests_per_second"],
        "pipeline p50 ms": pipeline["latency_ms"]["p50"],
        "pipeline p99 ms": pipeline["latency_ms"]["p99"],
        "ceiling/s": ceiling,
        "served p50 ms": one["latency_ms"]["p50"],
        "served p99 ms": one["latency_ms"]["p99"],
        "served p50 above the pipeline's ms": one["latency_ms"]["p50"] - pipeline["latency_ms"]["p50"],
        "served, many callers/s": many["achieved_rate"],
        "served, many callers p99 ms": many["latency_ms"]["p99"],
        "search held/s": search,
        "recommend held/s": recommend,
        "search held : naive": ratio(search, naive["requests_per_second"]),
        "search held : naive with features and fusion": ratio(search, ranked["requests_per_second"]),
        "search held : ceiling": ratio(search, ceiling),
        "many callers : ceiling": ratio(many["achieved_rate"], ceiling),
        "recommend held : search held": ratio(recommend, search),
        "seconds until SERVING": served["start_seconds"],
        "private MB of a worker": memory["private"],
        "shared MB of a worker": memory["shared"],
        "proportional MB of a worker": memory["proportional"],
        "queries found cached, share": ratio(served["status"]["queries_cached"], served["status"]["queries_asked"]),
        "cores busy before the round": told["busy_before"],
        "answers degraded or empty": float(sum(point["degraded"] + point["empty"] for point in _points(served))),
    }


def ratio(one: float, other: float) -> float:
    """one / other; NaN where there is nothing to compare with."""
    return one / other if other else math.nan


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each figure the median over the rounds, the least, the greatest and, where it has a goal, whether it is met.

    Ratios are taken within a round, where the machine was the same for both sides. None where a round has no figure.
    """
    each = [figures_of(told) for told in rounds]
    found: dict[str, dict[str, Any]] = {}
    for name in each[0]:
        values = [figures[name] for figures in each]
        known = not any(math.isnan(value) for value in values)
        parts = {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
        found[name] = {part: round(value, 4) if known else None for part, value in parts.items()}
        if goal := GOALS.get(name):
            found[name] |= {"goal": str(goal), "reached": known and goal.reached(parts["median"])}
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The summary as a Markdown table, with a word below it where the machine was not quiet."""
    lines = ["| figure | median | least – greatest | goal | reached |", "|---|---:|---:|---|---|"]
    for name, figure in found.items():
        median, least, greatest = (_written(figure[part]) for part in ("median", "least", "greatest"))
        reached = "" if "goal" not in figure else "yes" if figure["reached"] else "**no**"
        lines.append(f"| {name} | {median} | {least} – {greatest} | {figure.get('goal', '')} | {reached} |")
    busy = found["cores busy before the round"]["greatest"]
    if busy is not None and busy > QUIET:
        lines += ["", f"Others kept up to {busy:.1f} cores busy before a round: judge no goal by these figures."]
    return "\n".join(lines)


def _points(served: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [served["one"], served["many"], *served["search"]["points"], *served["recommend"]["points"]]


def _written(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
