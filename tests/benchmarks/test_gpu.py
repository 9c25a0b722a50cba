"""The benchmark of a card, on the CPU at a tiny size: what is computed of what was measured. Nothing is about speed."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu
import gpu_encode
import gpu_search
import numpy as np
import pytest
import torch
from gpu_search import Bench, Crowds, Plan, best_scores, bound, call_seconds, operations, recall

from indexer.config import IndexerConfig
from indexer.encoder import load_encoder
from indexer.index import NOTHING, Neighbours

CPU = torch.device("cpu")
TINY = Plan(500, (1, 4), (5, 20), dimensions=16, clusters=8, seconds=0.0, least=2, probe=2**12)


class Ticking:
    """A clock that goes on by a second each time it is looked at."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_calls_are_timed_one_by_one_and_warm_up_is_not_counted() -> None:
    done: list[int] = []
    spent = call_seconds(lambda: done.append(0), 6.0, 1, warm=2, clock=Ticking())
    assert spent.tolist() == [1.0] * (len(done) - 2)
    assert len(call_seconds(lambda: None, 0.0, 5, clock=Ticking())) == 5


def test_the_bound_is_the_slower_of_reading_and_reckoning() -> None:
    table = 1_200_000 * 384 * 2
    alone = bound(table, 4e12, operations(1, 1_200_000, 384), 7e14)
    assert alone == ("bandwidth", pytest.approx(table / 4e12))
    many = bound(table, 4e12, operations(256, 1_200_000, 384), 7e14)
    assert many == ("matrix", pytest.approx(2 * 256 * 1_200_000 * 384 / 7e14))


def test_vectors_lie_in_crowds() -> None:
    crowds = Crowds(Plan(0, (), (), dimensions=256, clusters=4, spread=0.5), CPU)
    made = crowds.draw(2_000, 0)
    assert (made.dtype, made.shape) == (np.float32, (2_000, 256))
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(made, crowds.draw(2_000, 0))
    assert not np.array_equal(made, crowds.draw(2_000, 1))
    near = np.sort(made[:50] @ made.T, axis=1)[:, :-1]
    # Of the least crowd a sixteenth and more: 1 / (1 + spread^2) within one, about nothing across.
    assert np.median(near[:, -100:]) == pytest.approx(1 / (1 + 0.5**2), abs=0.1)
    assert np.median(near) < 0.3


def test_the_best_scores_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_search, "_BLOCK", 64)
    rng = np.random.default_rng(0)
    vectors, queries = (rng.normal(size=(n, 8)).astype(np.float32) for n in (200, 3))
    one, each = rng.random(200) < 0.3, rng.random((3, 200)) < 0.01
    true = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    for found, allowed in zip(
        best_scores(vectors, queries, 7, [None, one, each], CPU), (np.ones(200, bool), one, each), strict=True
    ):
        expected = -np.sort(-np.where(allowed, true, -np.inf), axis=1)[:, :7]
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_recall_counts_ties_and_nothing_that_is_masked_or_twice() -> None:
    vectors = np.array([[1, 0], [1, 0], [0.5, 0], [0, 1]], np.float32)
    query = np.array([[1, 0]], np.float32)

    def of(rows: Sequence[int], mask: Sequence[bool] | None = None) -> float:
        kept = None if mask is None else np.array(mask)
        best = best_scores(vectors, query, len(rows), [kept], CPU)[0]
        return recall(Neighbours(np.array([rows]), np.zeros((1, len(rows)), np.float32)), vectors, query, best, kept)

    assert of([1]) == of([0]) == of([0, 1]) == 1.0
    assert of([1, 1]) == of([1, 3]) == of([1, NOTHING]) == 0.5
    assert of([0, 2], [True, False, True, False]) == 1.0
    assert of([1, 2], [True, False, True, False]) == 0.5
    # A mask that keeps fewer than are asked for.
    assert of([0, NOTHING], [True, False, False, False]) == 1.0


@pytest.fixture(scope="module")
def points() -> list[dict[str, Any]]:
    return list(Bench(TINY, CPU).points(1e9))


def test_every_batch_k_and_mask_is_measured_and_exact(points: list[dict[str, Any]]) -> None:
    assert {(p["batch"], p["k"], p["mask"]) for p in points} == {
        (batch, k, mask) for batch in (1, 4) for k in (5, 20) for mask in ("none", "one", "each")
    }
    for point in points:
        assert (point["recall"], point["recall_queries"], point["widened"], point["given_up"]) == (1.0, 8, 0, 0)
        assert point["queries_per_second"] == pytest.approx(1e3 * point["batch"] / point["ms"])
        times = {
            "bandwidth": 1e3 * 500 * 16 * 4 / 1e9,
            "matrix": 1e3 * operations(point["batch"], 500, 16) / point["matrix_flops"],
        }
        assert point["bound_ms"] == pytest.approx(max(times.values()))
        assert times[point["bound"]] == max(times.values())
        assert point["fraction"] == pytest.approx(point["bound_ms"] / point["ms"])


def test_a_search_that_misses_is_seen() -> None:
    bench = Bench(TINY, CPU)
    right = bench.index.search

    def wrong(queries: Any, k: int, mask: Any = None) -> Neighbours:
        found = right(queries, k, mask)
        found.rows[:, 0] = found.rows[:, 1]
        return found

    bench.index.search = wrong  # type: ignore[method-assign]
    assert {point["recall"] for point in bench.points(1e9) if (point["k"], point["mask"]) == (5, "none")} == {0.8}


def test_rates_of_the_device_are_positive() -> None:
    assert min(gpu_search.bandwidth(CPU, 2**12, 0.0).values()) > 0
    assert gpu_search.matrix_rate(CPU, torch.float32, 2, 30, 8, 0.0) > 0


def test_the_bare_model_makes_the_encoders_vectors() -> None:
    config = IndexerConfig.model_validate({"device": "cpu", "backend": "torch", "threads": 1})
    encoder, bare = load_encoder(config), gpu_encode.Bare(config.encoder, CPU)
    titles = [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("wool hat", "boots", "a very long scarf")]
    ready = bare.ready([titles[:4], titles[4:]])
    made = np.concatenate([vectors.numpy() for vectors in bare.run(ready)])
    np.testing.assert_allclose(made, encoder.encode(titles), atol=1e-5)
    told = gpu_encode.tokens_of(ready)
    sizes = [features["attention_mask"].sum(1) for features in ready]
    assert told["tokens"] == pytest.approx(float(torch.cat(sizes).float().mean()), abs=0.01)
    assert 0 < told["padding"] < 0.5


class Listed:
    """An encoder and a bare model that take the seconds they are told to."""

    backend = "none"

    def __init__(self, clock: Ticking, costs: Mapping[str, float]) -> None:
        self._clock, self._costs = clock, costs

    def encode(self, texts: Sequence[str]) -> None:
        self._clock.now += self._costs["encode"]

    def stream(self, texts: Sequence[str]) -> Iterator[tuple[list[str], None]]:
        self._clock.now += self._costs["stream"]
        yield list(texts[:3]), None
        yield list(texts[3:]), None

    def ready(self, batches: Sequence[Sequence[str]]) -> list[dict[str, torch.Tensor]]:
        return [{"attention_mask": torch.ones(len(texts), 2)} for texts in batches]

    def run(self, batches: Sequence[Any]) -> None:
        self._clock.now += self._costs["bare"] if len(batches) == 2 else self._costs["wider"]


def test_rates_of_encoding_are_compared_within_a_round() -> None:
    clock = Ticking()
    # The clock goes on by a second beside.
    sides: Any = Listed(clock, {"encode": 1.0, "stream": 3.0, "bare": 0.0, "wider": 0.0})
    told = gpu_encode.rates(sides, sides, ["a", "b", "c", "d"], 2, (4,), clock)
    assert told["titles_per_second"] == {"encode": 2.0, "stream": 1.0, "bare": 4.0, "bare_4": 4.0}
    assert (told["encode_ratio"], told["stream_ratio"]) == (0.5, 0.25)
    assert told["batches"] == {"count": 2, "median": 2.0, "most": 3, "tokens": 2.0, "padding": 0.0}
    assert [len(each) for each in told["rounds"].values()] == [2] * 4


def read(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return told


def test_a_section_is_written_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--out", str(out)]
    tiny = [
        "--rows",
        "300,400",
        "--batches",
        "1,2",
        "--k",
        "3",
        "--dimensions",
        "8",
        "--seconds",
        "0",
        "--probe",
        "4096",
    ]
    assert gpu.main(["--only", "search", *words, *tiny]) == 0
    first = read(out)
    section = first["sections"]["search"]
    assert first["benchmark"] == "gpu"
    assert {"machine", "commit", "versions", "time", "parameters", "limits", "points"} <= section.keys()
    assert {point["rows"] for point in section["points"]} == {300, 400}
    assert section["parameters"]["out"] == "gpu.json"
    assert str(tmp_path) not in out.read_text()
    assert "recall 1.000000" in capsys.readouterr().out

    def cut_off(given: argparse.Namespace, device: torch.device, save: gpu.Save) -> None:
        save({"half": 1})
        assert read(out)["sections"]["encode"]["half"] == 1
        raise ValueError("the other half")

    monkeypatch.setitem(gpu.SECTIONS, "encode", cut_off)
    assert gpu.main(["--only", "encode", *words]) == 1
    later = read(out)["sections"]
    assert later["search"] == section
    assert (later["encode"]["half"], later["encode"]["error"]) == (1, "ValueError: the other half")


def test_a_size_that_cannot_be_had_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scarce(plan: Plan, device: torch.device) -> Any:
        if plan.rows == 300:
            raise torch.OutOfMemoryError("no room")
        return SimpleNamespace(index=SimpleNamespace(kind="none"), points=lambda _: iter(()))

    monkeypatch.setattr(gpu_search, "Bench", scarce)
    words = ["--only", "search", "--device", "cpu", "--rows", "300,400", "--seconds", "0", "--probe", "4096"]
    assert gpu.main([*words, "--out", str(tmp_path / "gpu.json")]) == 0
    section = read(tmp_path / "gpu.json")["sections"]["search"]
    assert section["failed"] == {"300": "OutOfMemoryError: no room"}
    assert section["index"] == "none"


def test_codes_are_measured_beside_their_tuning(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    words = ["--only", "codes", "--device", "cpu", "--rows", "3000", "--batches", "1,4", "--k", "5,20"]
    assert gpu.main([*words, "--dimensions", "16", "--seconds", "0", "--out", str(out)]) == 0
    section = read(out)["sections"]["codes"]
    assert section["index"] == "IVF256,PQ8x4r on cpu (float32)"
    assert section["tuning"]["3000"]["kind"] == "IVF256,PQ8x4fsr"
    effort = section["tuning"]["3000"]["tuning"]["effort"]
    [tuned] = [point for point in section["tuning"]["3000"]["tuning"]["points"] if point["effort"] == effort]
    assert {(p["batch"], p["k"], p["mask"]) for p in section["points"]} == {
        (batch, k, mask) for batch in (1, 4) for k in (5, 20) for mask in ("none", "one", "each")
    }
    for point in section["points"]:
        assert point["queries_per_second"] == pytest.approx(1e3 * point["batch"] / point["ms"])
        # Under a mask every row that it keeps is compared.
        assert point["recall"] == 1.0 if point["mask"] != "none" else point["recall"] > tuned["recall"] - 0.2


def test_sections_are_named_in_their_own_order() -> None:
    assert gpu.parsed(["--only", "served,codes,search"]).only == ["search", "codes", "served"]
    assert gpu.parsed(["--rows", "1_000,20"]).rows == [1_000, 20]
    with pytest.raises(SystemExit):
        gpu.parsed(["--only", "sarch"])
