"""The pure parts of the benchmark of whole requests, and how its sides are started. Nothing here is about speed."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import goals
import numpy as np
import pytest
import served
import side
from goals import Goal
from whole import distinct_queries


def told(naive: float = 50.0, held: float | None = 400.0, start: float = 4.0, busy: float = 0.1) -> dict[str, Any]:
    """What a round measured."""
    latency = {"p50": 4.5, "p99": 9.0}
    side = {"requests_per_second": naive, "latency_ms": {"p50": 20.0, "p99": 30.0}}
    point = {"latency_ms": latency, "achieved_rate": 500.0, "degraded": 0, "empty": 0}
    workers = [
        {"private": 300.0, "shared": 200.0, "proportional": 400.0},
        {"private": 310.0, "shared": 100.0, "proportional": 420.0},
    ]
    return {
        "busy_before": busy,
        "naive": {"bare": side, "ranked": side},
        "pipeline": {"requests_per_second": 250.0, "latency_ms": {"p50": 4.0, "p99": 6.0}},
        "ceiling": [{"requests_per_second": 240.0}, {"requests_per_second": 260.0}],
        "served": {
            "one": point,
            "many": point,
            "search": {"held_rate": held, "points": [point | {"degraded": 2}]},
            "recommend": {"held_rate": 500.0, "points": [point | {"empty": 1}]},
            "start_seconds": start,
            "memory_mb": workers,
            "status": {"queries_asked": 1000, "queries_cached": 10},
        },
    }


def test_queries_are_distinct_words_of_a_title_in_its_order() -> None:
    titles = ["red wool hat large", "Red Wool Hat", "alone", "blue shoe"]
    found = distinct_queries(titles, 1000, np.random.default_rng(0))
    allowed = [title.casefold().split() for title in titles]
    assert len({query.casefold() for query in found}) == len(found)
    for query in found:
        words = query.casefold().split()
        assert 2 <= len(words) <= 4
        assert any([word for word in title if word in words] == words for title in allowed)
    # The subsets of two, three and four of four words; those of the second title are among them; and the shoe.
    assert len(found) == (6 + 4 + 1) + 1


def test_as_many_queries_as_asked_and_the_same_for_the_same_seed() -> None:
    titles = [f"w{a} w{b} w{c}" for a in range(9) for b in range(9) for c in range(9)]
    first, again = (distinct_queries(titles, 200, np.random.default_rng(7)) for _ in range(2))
    assert first == again
    assert len(first) == 200
    assert distinct_queries(titles, 200, np.random.default_rng(8)) != first


def test_ratios_are_taken_within_a_round() -> None:
    figures = goals.figures_of(told())
    assert figures["search held : naive"] == 400.0 / 50.0
    assert figures["search held : ceiling"] == 400.0 / (240.0 + 260.0)
    assert figures["recommend held : search held"] == 500.0 / 400.0
    assert figures["served p50 above the pipeline's ms"] == 4.5 - 4.0
    assert figures["private MB of a worker"] == 310.0
    assert figures["queries found cached, share"] == 10 / 1000
    assert figures["answers degraded or empty"] == 2 + 1


def test_medians_are_over_the_rounds_and_goals_are_judged_by_them() -> None:
    found = goals.summary([told(naive=naive, start=start) for naive, start in ((50, 4.0), (40, 9.0), (100, 4.9))])
    assert found["search held : naive"] == {
        "median": 400 / 50, "least": 400 / 100, "greatest": 400 / 40, "goal": "≥ 8", "reached": True,
    }  # fmt: skip
    assert found["seconds until SERVING"]["median"] == 4.9
    assert found["seconds until SERVING"]["reached"]
    assert "goal" not in found["ceiling/s"]
    assert goals.GOALS.keys() <= found.keys()


def test_where_no_rate_was_held_no_goal_of_it_is_reached() -> None:
    found = goals.summary([told(), told(held=None)])
    assert found["search held/s"]["least"] == 0.0
    assert found["recommend held : search held"]["median"] is None
    assert not found["recommend held : search held"]["reached"]
    assert "| recommend held : search held | none | none – none | ≥ 1 | **no** |" in goals.table(found)


def test_a_bound_itself_is_reached() -> None:
    assert Goal(True, 5.0).reached(5.0)
    assert Goal(False, 0.75).reached(0.75)
    assert not Goal(True, 5.0).reached(5.01)
    assert not Goal(True, 5.0).reached(math.nan)


def test_the_table_has_a_line_a_figure() -> None:
    found = goals.summary([told()])
    lines = goals.table(found).splitlines()
    assert len(lines) == 2 + len(found)
    assert "| served p50 ms | 4.50 | 4.50 – 4.50 | ≤ 5 | yes |" in lines
    assert {line.count("|") for line in lines} == {6}
    shared = goals.table(goals.summary([told(), told(busy=1.5)]))
    assert shared.endswith("\n\nOthers kept up to 1.5 cores busy before a round: judge no goal by these figures.")


def test_memory_is_read_from_the_roll_up() -> None:
    rollup = """\
55d0c7a00000-7ffd1c1fe000 ---p 00000000 00:00 0                          [rollup]
Rss:              500000 kB
Pss:              300000 kB
Pss_Dirty:        250000 kB
Shared_Clean:     150000 kB
Shared_Dirty:      50000 kB
Private_Clean:    100000 kB
Private_Dirty:    200000 kB
"""
    found = served.memory(rollup)
    assert found.private == pytest.approx((100_000 + 200_000) * 1024 / 1e6)
    assert found.shared == pytest.approx((150_000 + 50_000) * 1024 / 1e6)
    assert found.proportional == pytest.approx(300_000 * 1024 / 1e6)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_this_process_and_its_children() -> None:
    assert served.memory(Path("/proc/self/smaps_rollup").read_text()).private > 1.0
    assert served.worker_ids(os.getpid()) == ()


def test_idle_seconds_are_those_of_all_cores() -> None:
    stat = "cpu  100 20 300 4000 500 6 7 0 0 0\ncpu0 50 10 150 2000 250 3 3 0 0 0\n"
    assert side.idle_seconds(stat) == (4000 + 500) / os.sysconf("SC_CLK_TCK")


def test_a_neutral_environment_holds_no_library_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("SHOP", "kept")
    assert {"OPENBLAS_CORETYPE", "OMP_NUM_THREADS"} <= set(side.dropped())
    assert not any(name.startswith(side.HELD_BY) for name in side.neutral())
    assert side.neutral(1) == side.neutral() | {"OMP_NUM_THREADS": "1"}
    assert side.neutral()["SHOP"] == "kept"


def test_batches_are_whole_and_every_query_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side, "WARM_UP", 0.0)
    asked: list[list[str]] = []
    found = side.timed(lambda batch: asked.append(list(batch)), ["a", "b", "c", "d", "e"], 2, 0.01)
    assert asked[:3] == [["a", "b"], ["c", "d"], ["a", "b"]]
    assert found["requests_per_second"] > 0
    assert {"p50", "p99"} <= found["latency_ms"].keys()


SCRIPT = """
import sys
sys.path.append({folder!r})
from side import report
print("a library's own notice")
report(lambda: {{"arguments": sys.argv[1:]}})
"""


def test_sides_tell_what_they_measured(tmp_path: Path) -> None:
    script = tmp_path / "side_of_a_test.py"
    script.write_text(SCRIPT.format(folder=str(Path(side.__file__).parent)), encoding="utf-8")
    told = side.measured([[str(script), "one"], [str(script), "two"]], side.neutral(), tmp_path / "log")
    assert told == [{"arguments": ["one"]}, {"arguments": ["two"]}]


def test_a_side_that_fails_says_why(tmp_path: Path) -> None:
    script = tmp_path / "side_of_a_test.py"
    script.write_text("raise SystemExit('there is no release')", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"ended with code 1:\n.*there is no release"):
        side.measured([[str(script)]], side.neutral(), tmp_path / "log")
