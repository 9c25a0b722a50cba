"""Scale: growth on cases to reckon by hand, and what of a shop is built again."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import typer
from scale import Shop, build_growth, grown_of, growth, line_of, paired_ratio, query_table, row_name, sizes_of
from vector_peers.built import Clock, peak_bytes
from vector_peers.process import Round

BUILT: dict[str, Any] = {
    "seconds": {"build": 20.0, "embed": 10.0, "index": 5.0, "train": 0.0},
    "counts": {"embedded": 9_000},
    "index": {"kind": "HNSW32", "recall_at_100": 0.99},
    "peak_bytes": 2_000_000_000,
    "reused": False,
    "bytes": {"vectors.npy": 1_000_000, "dense.faiss": 500_000},
    "commit": {"id": "0123456789", "dirty": False},
}


def test_growth_is_an_exponent_beside_that_of_the_logarithm() -> None:
    # log(100,000) / log(10,000) = 5 / 4.
    grown = growth(1.25, 10_000, 100_000)
    assert grown.exponent == pytest.approx(math.log10(1.25))
    assert grown.most == pytest.approx(math.log10(5 / 4))
    assert growth(1.2, 10_000, 100_000).held
    assert not growth(1.3, 10_000, 100_000).held
    assert growth(10.0, 10_000, 100_000).exponent == pytest.approx(1.0)
    assert growth(1.0, 100, 1_000).exponent == 0.0


def test_the_ratio_is_of_rounds_that_were_neighbours() -> None:
    small = [Round(400, 0, 0), Round(200, 0, 0), Round(100, 0, 0)]
    large = [Round(200, 0, 0), Round(100, 0, 0), Round(100, 0, 0)]
    assert paired_ratio(small, large) == 2.0


def test_sizes_are_distinct_and_rise() -> None:
    assert sizes_of("100000,10_000,10000") == [10_000, 100_000]
    with pytest.raises(typer.BadParameter, match="whole numbers"):
        sizes_of("many")
    with pytest.raises(typer.BadParameter, match="begin at 100"):
        sizes_of("99,1000")


def test_a_stage_is_compared_with_the_size_before_that_was_measured() -> None:
    rounds = {row_name("recall", 100): [Round(1_000, 1.0, 2.0)], row_name("recall", 10_000): [Round(500, 2.0, 3.0)]}
    told = {name: {"recall": 0.985, "search": {"ef_search": 128}} for name in rounds}
    found = grown_of([100, 1_000, 10_000], rounds)
    assert [(each["from"], each["to"], each["ratio"], each["held"]) for each in found] == [(100, 10_000, 2.0, True)]
    lines = query_table([100, 1_000, 10_000], rounds, told)[2:]
    assert lines[0] == "| recall, 100 | 1.000 / 2.000 | 1000 | 0.9850 {'ef_search': 128} |  |  |"
    assert lines[1].endswith("| x 2.00 | 0.151, 0.151: held |")


def test_parts_of_a_build_that_took_no_time_have_no_growth() -> None:
    large = BUILT | {"seconds": {"build": 200.0, "embed": 100.0, "index": 100.0, "train": 1.0}}
    found = build_growth([100, 1_000], {100: BUILT, 1_000: large})
    assert {each["part"]: each["exponent"] for each in found} == {
        "build": 1.0,
        "embed": 1.0,
        "index": pytest.approx(math.log10(20), abs=1e-3),
    }


def test_embedding_that_was_spared_has_no_growth() -> None:
    assert [each["part"] for each in build_growth([100, 1_000], {100: BUILT, 1_000: BUILT | {"reused": True}})] == [
        "index"
    ]


def test_a_builds_row() -> None:
    assert line_of(10_000, BUILT) == "| 10,000 | 20.0 | 10.0 | 9,000 | 5.0 | HNSW32, 0.990 | 2,000 | 1.5 |"
    assert "| 10.0 (vectors reused) |" in line_of(10_000, BUILT | {"reused": True})


class Quick(Shop):
    """Runs nothing, and says what it would have run."""

    def _run(self, *words: object) -> None:
        self.ran = [*getattr(self, "ran", []), words[1]]
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        if "built" in str(words[1]):
            (self.folder / "took.json").write_text(json.dumps(BUILT))


def test_a_build_is_taken_again_where_it_was_asked_the_same_way(tmp_path: Path) -> None:
    first = Quick(tmp_path, 100, 500, "HNSW32", ranked=False)
    assert first.make(print, again=False)["seconds"] == BUILT["seconds"]
    assert first.ran == ["server", "vector_peers.built"]
    assert "[ranker]" not in first.config.read_text()
    same = Quick(tmp_path, 100, 500, "HNSW32", ranked=False)
    same.make(print, again=False)
    assert not hasattr(same, "ran")
    same.make(print, again=True)
    assert same.ran == ["vector_peers.built"]
    other = Quick(tmp_path, 100, 500, "exact", ranked=True)
    other.make(print, again=False)
    assert other.ran == ["vector_peers.built"]
    assert 'index = "exact"' in other.config.read_text()
    assert "[ranker]" in other.config.read_text()


def test_a_clock_splits_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 4.0, 6.0, 7.0, 10.0, 12.0])
    monkeypatch.setattr("vector_peers.built.time.perf_counter", lambda: next(times))
    clock = Clock()
    for stage, done in (("embed", 50), ("embed", 50), ("index", 0), ("index", 100)):
        clock(stage, done, 100)
    assert clock.seconds() == {"embed": 6.0, "index": 3.0, "build": 12.0}


def test_the_peak_of_memory_is_this_processs() -> None:
    peak = peak_bytes()
    assert peak is None or 10_000_000 < peak < 1_000_000_000_000
