"""What was wanted of a card, and what was measured of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from goals import Goal

SMALL, LARGE = 1_200_000, 10_000_000
_RATE, _ALONE, _LARGE_MS = Goal(False, 50_000.0), Goal(True, 1.0), Goal(True, 12.0)
_RECALL, _FRACTION = Goal(False, 1.0), Goal(False, 0.5)
_ENCODING, _BUILD = Goal(False, 0.6), Goal(True, 180.0)
_HELD = Goal(False, 2_000.0)
Sections = Mapping[str, Mapping[str, Any]]
Verdict = tuple[str, float, Goal]


def verdicts(sections: Sections) -> list[Verdict]:
    """Each goal that something was measured for: what, the measured value, and the goal."""
    return [
        *_search(sections.get("search", {}).get("points", [])),
        *_encode(sections.get("encode", {})),
        *_build(sections.get("build", {})),
        *_served(sections.get("served", {})),
    ]


def lines(sections: Sections) -> list[str]:
    """A line a goal, and the ratio of the card to the CPU."""
    told = [
        f"{'reached' if goal.reached(value) else 'NOT REACHED':<12} {what}: {value:,.4g} (goal {goal})"
        for what, value, goal in verdicts(sections)
    ]
    by_place = best_held(sections.get("served", {}))
    if by_place.get("card") and by_place.get("cpu"):
        told.append(f"card : CPU  {by_place['card'] / by_place['cpu']:.2f} times the requests/s")
    return told


def best_held(served: Mapping[str, Any]) -> dict[str, float]:
    """The highest rate held on the card and on the CPU, of those that were measured; 0 where none was held."""
    held: dict[str, float] = {}
    for variant in served.get("variants", {}).values():
        if "held_rate" in variant:
            place = "cpu" if variant["device"] == "cpu" else "card"
            held[place] = max(held.get(place, 0.0), variant["held_rate"] or 0.0)
    return held


def _search(points: Sequence[Mapping[str, Any]]) -> Iterator[Verdict]:
    """The worse of no mask and one mask; each k by itself."""
    for k in sorted({point["k"] for point in points}):
        mine = [point for point in points if point["k"] == k and point["mask"] in ("none", "one")]
        for rows, batch, name, goal in (
            (SMALL, 256, "queries_per_second", _RATE),
            (SMALL, 1, "ms", _ALONE),
            (LARGE, 64, "ms", _LARGE_MS),
            (SMALL, 256, "fraction", _FRACTION),
            (LARGE, 256, "fraction", _FRACTION),
        ):
            values = [point[name] for point in mine if (point["rows"], point["batch"]) == (rows, batch)]
            if values:
                worst = max(values) if goal.at_most else min(values)
                yield f"{name}, {rows:,} rows, batch {batch}, k {k}", worst, goal
    if points:
        yield "recall, the least of all", min(point["recall"] for point in points), _RECALL


def _encode(section: Mapping[str, Any]) -> Iterator[Verdict]:
    if "stream_ratio" in section:
        yield "encoding : bare forward", section["stream_ratio"], _ENCODING


def _build(section: Mapping[str, Any]) -> Iterator[Verdict]:
    built = section.get("index")
    if built and built["counts"]["products"] >= SMALL:
        yield f"seconds of the build of {built['counts']['products']:,} products", built["seconds"]["whole"], _BUILD


def _served(section: Mapping[str, Any]) -> Iterator[Verdict]:
    if "card" in (held := best_held(section)):
        yield "requests/s held on the card", held["card"], _HELD
