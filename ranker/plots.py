"""The report's plots as SVG that takes its colours from the page, so that one file suits light, dark and print."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")

# matplotlib knows no CSS: these colours stand for the page's variables and are replaced in its output.
_INK, _FAINT = "#010101", "#020202"
_SERIES = ("#030301", "#030302", "#030303", "#030304", "#030305")
_VARIABLES = {_INK: "var(--ink)", _FAINT: "var(--line)", **{c: f"var(--s{i})" for i, c in enumerate(_SERIES)}}
_MARKERS = "osD^v"
# Inches; about as wide as a phone, so that the letters stay readable there.
_WIDTH, _ROW = 4.6, 0.26
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}


def _styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draws in the report's style, whatever else this process draws."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str:
        # Not at the top: only a report needs matplotlib, and importing it takes half a second.
        from matplotlib import rc_context

        with rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


@_styled
def intervals(name: str, rows: Mapping[str, Mapping[str, float]], label: str, zero: bool, marked: str = "") -> str:
    """A dot with its interval for each row, the first on top; `zero` draws the line of no difference."""
    figure, axes = _axes(len(rows) * _ROW + 0.7)
    for place, (title, row) in enumerate(rows.items()):
        colour = _SERIES[0] if title == marked or not marked else _INK
        axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=1.5)
        axes.plot(row["mean"], place, "o", color=colour, markersize=5)
    if zero:
        axes.axvline(0.0, color=_INK, linewidth=0.8, linestyle=(0, (3, 3)))
    _named_rows(axes, list(rows))
    axes.set_xlabel(label)
    return _svg(figure, name)


@_styled
def bars(name: str, shares: Mapping[str, float], label: str) -> str:
    """A bar for each row, the first on top."""
    figure, axes = _axes(len(shares) * 0.2 + 0.7)
    axes.barh(range(len(shares)), list(shares.values()), height=0.65, color=_SERIES[0])
    _named_rows(axes, list(shares))
    axes.set_xlabel(label)
    return _svg(figure, name)


@_styled
def reliability(name: str, curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Observed share against predicted probability, with the diagonal where both agree.

    Both axes are logarithmic where positives are rare.
    """
    figure, axes = _axes(3.6)
    values = [v for c in curves.values() for part in ("predicted", "observed") for v in c[part]]
    rare = max(values) < 0.2
    least = min((v for v in values if v > 0), default=1e-4) / 2 if rare else 0.0
    end = max(values) * 1.1
    axes.plot([least, end], [least, end], color=_INK, linewidth=0.8, linestyle=(0, (3, 3)))
    for i, (title, curve) in enumerate(curves.items()):
        style = {"color": _SERIES[i % 5], "marker": _MARKERS[i % 5], "markersize": 4, "linewidth": 1.2}
        observed = [max(v, least) for v in curve["observed"]]
        axes.plot([max(v, least) for v in curve["predicted"]], observed, label=title, **style)
    if rare:
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("observed share")
    axes.legend()
    return _svg(figure, name)


@_styled
def band(name: str, points: Sequence[Mapping[str, float]], x: str, label: str) -> str:
    """A line of means over `x` with its intervals as a band."""
    figure, axes = _axes(2.8)
    places = [point[x] for point in points]
    low, high = [point["low"] for point in points], [point["high"] for point in points]
    axes.fill_between(places, low, high, color=_SERIES[0], alpha=0.25, linewidth=0)
    axes.plot(places, [point["mean"] for point in points], "o-", color=_SERIES[0], markersize=4, linewidth=1.2)
    axes.set_xlabel(x)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    return _svg(figure, name)


def _axes(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _named_rows(axes: Any, names: Sequence[str]) -> None:
    # A dollar sign would start matplotlib's mathematics.
    axes.set_yticks(range(len(names)), [name.replace("$", r"\$") for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _svg(figure: Any, name: str) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = file.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    # Several plots share the page, and so one space of ids.
    prefix = re.sub(r"\W+", "-", name)
    drawn = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", drawn)
    drawn = re.sub(r"font-family: [^;\"]*", "font-family: inherit", drawn)
    for colour, variable in _VARIABLES.items():
        drawn = drawn.replace(colour, variable)
    return drawn
