"""What was wanted of a card, the pictures, and what a result says of the machine it was measured on."""

from pathlib import Path
from typing import Any

import gpu
import plot
import pytest
import result
from gpu_goals import best_held, lines, verdicts


def measured(rows: int, batch: int, **others: Any) -> dict[str, Any]:
    return {"rows": rows, "batch": batch, "k": 100, "mask": "one", "ms": 1.0, "queries_per_second": 1e3 * batch,
            "fraction": 0.6, "bound_ms": 0.6, "recall": 1.0, **others}  # fmt: skip


SECTIONS: dict[str, Any] = {
    "search": {
        "points": [
            measured(1_200_000, 1, ms=0.9),
            measured(1_200_000, 256, queries_per_second=60_000.0),
            measured(1_200_000, 256, queries_per_second=40_000.0, fraction=0.4, mask="none"),
            measured(1_200_000, 256, queries_per_second=1.0, mask="each"),
            measured(10_000_000, 64, ms=11.0, recall=0.999),
        ]
    },
    "encode": {"stream_ratio": 0.7},
    "build": {"index": {"counts": {"products": 1_200_000}, "seconds": {"whole": 170.0}}},
    "served": {
        "variants": {
            "cuda:0, 1 worker": {"device": "cuda:0", "held_rate": 1_500.0},
            "cuda:0, 8 workers": {"device": "cuda:0", "held_rate": 2_400.0},
            "cpu, 12 workers": {"device": "cpu", "held_rate": 600.0},
            "cuda:0, 9 workers": {"device": "cuda:0", "failed": "no"},
        }
    },
}


def test_goals_are_judged_by_the_worse_of_the_masks() -> None:
    told = {what: (value, goal.reached(value)) for what, value, goal in verdicts(SECTIONS)}
    assert told == {
        "queries_per_second, 1,200,000 rows, batch 256, k 100": (40_000.0, False),
        "ms, 1,200,000 rows, batch 1, k 100": (0.9, True),
        "ms, 10,000,000 rows, batch 64, k 100": (11.0, True),
        "fraction, 1,200,000 rows, batch 256, k 100": (0.4, False),
        "recall, the least of all": (0.999, False),
        "encoding : bare forward": (0.7, True),
        "seconds of the build of 1,200,000 products": (170.0, True),
        "requests/s held on the card": (2_400.0, True),
    }
    assert best_held(SECTIONS["served"]) == {"card": 2_400.0, "cpu": 600.0}
    assert lines(SECTIONS)[-1] == "card : CPU  4.00 times the requests/s"
    assert lines({}) == []


def test_pictures_show_rates_beside_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    real = plot._paper
    monkeypatch.setattr(plot, "_paper", lambda: drawn.append(real()) or drawn[-1])
    gpu.draw(SECTIONS, tmp_path / "gpu.json")
    curves = {line.get_label(): list(line.get_ydata()) for line in drawn[0][1].get_lines()}
    assert curves["1,200,000 rows, one mask"] == [1e3, 60_000.0]
    assert curves["1,200,000 rows, the device's limit"] == pytest.approx([1e3 / 0.6, 256e3 / 0.6])
    assert "10,000,000 rows, no mask" not in curves
    assert [bar.get_width() for bar in drawn[1][1].patches] == [1_500.0, 2_400.0, 600.0]
    assert all((tmp_path / f"gpu-{name}.png").stat().st_size > 1_000 for name in ("search", "served"))
    gpu.draw({"search": {"error": "cut off"}}, tmp_path / "none.json")
    assert not list(tmp_path.glob("none*"))


def test_cards_and_a_carried_commit_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "NVIDIA H200, 580.95.05, 143771\nOther, 580.95.05, [N/A]\n"
    assert result.cards(listing) == [
        {"name": "NVIDIA H200", "driver": "580.95.05", "memory_bytes": 143_771 * 2**20},
        {"name": "Other", "driver": "580.95.05", "memory_bytes": None},
    ]
    assert result.cards("") == []
    for carried, told in (("", ("unknown", None)), ("abc1", ("abc1", False)), ("abc1-dirty", ("abc1", True))):
        monkeypatch.setenv(result.CARRIED, carried)
        assert result.commit(tmp_path) == dict(zip(("id", "dirty"), told, strict=True))
