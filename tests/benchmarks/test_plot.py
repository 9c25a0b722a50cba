"""Pictures of results: what is drawn is what was measured."""

from pathlib import Path
from typing import Any

import plot
import pytest
from matplotlib.image import imread

Drawn = list[Any]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The axes that were drawn on."""
    found: Drawn = []
    real = plot._paper

    def noted() -> Any:
        figure, axes = real()
        found.append(axes)
        return figure, axes

    monkeypatch.setattr(plot, "_paper", noted)
    return found


def test_rates_are_sorted_by_their_medians(tmp_path: Path, drawn: Drawn) -> None:
    rates = {"Vitrine, recall": [9.0, 10.0, 800.0], "other": [20.0, 30.0, 1.0], "Vitrine peer": [5.0]}
    plot.plot_rates(rates, tmp_path / "rates.png", callers=8, ours="Vitrine,")
    (axes,) = drawn
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Vitrine peer", "Vitrine, recall", "other"]
    assert [line.get_xdata().tolist() for line in axes.get_lines()] == [[5.0], [9.0, 10.0, 800.0], [20.0, 30.0, 1.0]]
    assert [line.get_color() for line in axes.get_lines()] == ["grey", "tab:blue", "grey"]
    assert "8 callers" in axes.get_xlabel()
    assert imread(tmp_path / "rates.png").shape == (600, 960, 4)


def test_costs_stand_beside_what_the_logarithm_allows(tmp_path: Path, drawn: Drawn) -> None:
    costs = {"recall": {100: [1.0, 2.0, 9.0], 10_000: [3.0, 5.0, 4.0]}}
    plot.plot_costs(costs, tmp_path / "costs.png")
    (axes,) = drawn
    lines = {(line.get_label(), line.get_linestyle()): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["recall", "-"] == [2.0, 4.0]
    (dotted,) = [
        list(line.get_ydata()) for line in axes.get_lines() if line.get_linestyle() == ":" and len(line.get_ydata())
    ]
    assert dotted == pytest.approx([2.0, 4.0])
    assert (tmp_path / "costs.png").stat().st_size > 1_000
