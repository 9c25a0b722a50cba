"""Pictures of results: latency against rate, rates side by side, costs against the size of the catalogue, a card."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from result import Point

CURVES = {"p50": "tab:green", "p95": "tab:blue", "p99": "tab:purple"}


def plot_ramp(points: Sequence[Point], bound_ms: float, path: Path, *, held: float | None, title: str) -> None:
    """Draw p50, p95 and p99 of `points` against the offered rate to a PNG, with the bound and the rate held."""
    points = sorted(points, key=lambda point: point.offered_rate or 0.0)
    rates = [point.offered_rate or 0.0 for point in points]
    figure, axes = _paper()
    for name, colour in CURVES.items():
        axes.plot(rates, [point.latency_ms[name] for point in points], color=colour, label=name, zorder=2)
    for point, rate in zip(points, rates, strict=True):
        face = "white" if point.not_held else None
        for name, colour in CURVES.items():
            axes.plot(rate, point.latency_ms[name], "o", color=colour, markerfacecolor=face or colour, zorder=3)
    axes.plot([], [], "o", color="grey", markerfacecolor="white", label="not held")
    axes.axhline(bound_ms, color="tab:red", linestyle="--", label=f"p99 bound, {bound_ms:g} ms")
    if held:
        axes.axvline(held, color="grey", linestyle=":", label=f"highest rate held, {held:g}/s")
    # From a few milliseconds to the timeout: on a linear axis everything below the knee is one flat line.
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(left=0)
    axes.set_xlabel("Offered rate, requests a second")
    axes.set_ylabel("Latency from the scheduled time, ms (log scale)")
    axes.set_title(title)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path)


def plot_rates(rates: Mapping[str, Sequence[float]], path: Path, *, callers: int, ours: str) -> None:
    """Draw the answers a second of each engine to a PNG, a dot for each round; names that hold `ours` stand out."""
    figure, axes = _paper()
    names = sorted(rates, key=lambda name: sorted(rates[name])[len(rates[name]) // 2])
    for place, name in enumerate(names):
        colour = "tab:blue" if ours in name else "grey"
        axes.plot(rates[name], [place] * len(rates[name]), "o", color=colour, alpha=0.6)
    axes.set_yticks(range(len(names)), names)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel(f"Answers a second (log scale), {callers} caller{'s' * (callers > 1)}; a dot for each round")
    axes.grid(alpha=0.3, which="both")
    figure.savefig(path)


def plot_costs(costs: Mapping[str, Mapping[int, Sequence[float]]], path: Path) -> None:
    """Draw milliseconds of an answer by stage and size of the catalogue to a PNG: the median, and each round as a dot.

    Dotted: what each stage would cost if it grew with the logarithm of the catalogue from its smallest size on.
    """
    figure, axes = _paper()
    for (stage, by_size), colour in zip(costs.items(), CURVES.values(), strict=False):
        sizes = sorted(by_size)
        middle = [sorted(by_size[size])[len(by_size[size]) // 2] for size in sizes]
        axes.plot(sizes, middle, color=colour, label=stage)
        for size in sizes:
            axes.plot([size] * len(by_size[size]), by_size[size], "o", color=colour, alpha=0.5)
        grown = [middle[0] * math.log(size) / math.log(sizes[0]) for size in sizes]
        axes.plot(sizes, grown, color=colour, linestyle=":")
    axes.plot([], [], color="grey", linestyle=":", label="as the logarithm")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("Products (log scale)")
    axes.set_ylabel("Milliseconds an answer (log scale)")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path)


def plot_searched(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw queries a second against the batch to a PNG, at the least k, by number of rows and kind of mask.

    Dotted: what the device itself allows, by its bandwidth or its matrix rate.
    """
    figure, axes = _paper()
    least = min(point["k"] for point in points)
    mine = sorted((point for point in points if point["k"] == least), key=lambda point: int(point["batch"]))
    marks = {"none": "o-", "one": "s--", "each": "^-."}
    for rows, colour in zip(sorted({point["rows"] for point in mine}), CURVES.values(), strict=False):
        for kind, style in marks.items():
            curve = [point for point in mine if (point["rows"], point["mask"]) == (rows, kind)]
            if curve:
                label = f"{rows:,} rows, " + {"none": "no mask", "one": "one mask", "each": "a mask a query"}[kind]
                rates = [point["queries_per_second"] for point in curve]
                axes.plot([point["batch"] for point in curve], rates, style, color=colour, label=label)
        bounds = {point["batch"]: 1e3 * point["batch"] / point["bound_ms"] for point in mine if point["rows"] == rows}
        axes.plot(list(bounds), list(bounds.values()), ":", color=colour, label=f"{rows:,} rows, the device's limit")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.set_xlabel("Queries in a call (log scale)")
    axes.set_ylabel("Queries a second (log scale)")
    axes.set_title(f"Exact search for {least}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path)


def plot_held(held: Mapping[str, float], path: Path) -> None:
    """Draw the rate that each way of serving holds to a PNG, as bars."""
    figure, axes = _paper()
    colours = ["grey" if name.startswith("cpu") else "tab:blue" for name in held]
    bars = axes.barh(list(held), list(held.values()), color=colours)
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in held.values()], padding=3)
    axes.set_xlabel("Requests a second held")
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path)


def _paper() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
