"""Plots: valid SVG, in the page's colours, showing what they were given."""

import re
from xml.etree import ElementTree

import pytest

from ranker import plots

POINT = {"mean": 0.5, "low": 0.4, "high": 0.6}
CURVE = {"predicted": [0.1, 0.5, 0.9], "observed": [0.0, 0.4, 1.0]}
RARE = {"predicted": [0.001, 0.01, 0.1], "observed": [0.0, 0.02, 0.1]}
DRAWN = {
    "intervals": plots.intervals("a", {"one $x": POINT, "two": POINT}, "NDCG@10", False, "two"),
    "differences": plots.intervals("b", {"one": POINT, "two": POINT}, "difference", True),
    "bars": plots.bars("c", {"one": 0.7, "two": 0.3}, "share"),
    "reliability": plots.reliability("d", {"one": CURVE, "two": CURVE}),
    "rare": plots.reliability("e", {"one": RARE, "two": RARE}),
    "band": plots.band("f", [{"candidates": k, **POINT} for k in (10, 20)], "candidates", "found"),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_is_svg_in_the_colours_of_the_page(name: str) -> None:
    root = ElementTree.fromstring(DRAWN[name])
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(--ink)" in DRAWN[name]
    assert "var(--s0)" in DRAWN[name]
    # No colour, no font and no name of its own.
    assert set(re.findall(r"(?:fill|stroke): (#\w+)", DRAWN[name])) <= {"#000000"}
    assert set(re.findall(r"font-family: ([^;\"]*)", DRAWN[name])) == {"inherit"}
    assert "<metadata" not in DRAWN[name]
    assert "<style" not in DRAWN[name]


@pytest.mark.parametrize("name", set(DRAWN) - {"band"})
def test_names_are_written_as_text(name: str) -> None:
    words = {
        "".join(node.itertext()) for node in ElementTree.fromstring(DRAWN[name]).iter() if node.tag.endswith("text")
    }
    assert words >= ({"one $x", "two"} if name == "intervals" else {"one", "two"})


def test_only_the_marked_row_is_coloured() -> None:
    marked, plain = (plots.intervals("a", {"x": POINT, "y": POINT}, "z", False, name) for name in ("x", "neither"))
    assert marked.count("stroke: var(--s0)") > 0 == plain.count("var(--s0)")


def test_rare_positives_make_the_axes_logarithmic() -> None:
    def ticks(drawn: str) -> list[str]:
        return ["".join(n.itertext()) for n in ElementTree.fromstring(drawn).iter() if n.tag.endswith("text")]

    assert "0.2" in ticks(DRAWN["reliability"])
    assert "0.2" not in ticks(DRAWN["rare"])
    assert ticks(DRAWN["rare"]).count("0.001") == ticks(DRAWN["rare"]).count("0.01") == 2


def test_the_style_stays_in_the_plots() -> None:
    from matplotlib import rcParams

    before = dict(rcParams)
    plots.bars("c", {"one": 0.7}, "share")
    assert dict(rcParams) == before
