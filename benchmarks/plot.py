"""The picture of a ramp: latency against offered rate."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from result import Point

CURVES = {"p50": "tab:green", "p95": "tab:blue", "p99": "tab:purple"}


def plot_ramp(points: Sequence[Point], bound_ms: float, path: Path, *, held: float | None, title: str) -> None:
    """Draw p50, p95 and p99 of `points` against the offered rate to a PNG, with the bound and the rate held."""
    points = sorted(points, key=lambda point: point.offered_rate or 0.0)
    rates = [point.offered_rate or 0.0 for point in points]
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
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
