"""What is seen of a build from outside, on processes and clocks that do as they are told."""

import importlib.util
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timed_build
from encoding_rate import rates, summary
from timed_build import WATCHED, Stages, counting

_PATH = Path(timed_build.__file__).with_name("build.py")
# By its path: a package of that name may be installed.
_SPEC = importlib.util.spec_from_file_location("benchmarks_build", _PATH)
assert _SPEC
assert _SPEC.loader
build: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(build)

STATUS = "Name:\tpython\nVmHWM:\t  300 kB\nRssAnon:\t  200 kB\nRssFile:\t  100 kB\nThreads:\t3\n"


def test_memory_is_read_from_the_systems_words() -> None:
    assert build.memory_of(STATUS) == {"peak": 307_200, "anonymous": 204_800, "mapped": 102_400}
    assert build.memory_of("Name:\tpython\n") == {}


def test_the_most_memory_is_kept_and_that_of_each_stage() -> None:
    seen = build.Watched()
    for stage, held in (("read", 5), ("embed", 3), ("embed", 4), ("read", 1)):
        seen.hear({"stage": stage})
        seen.look({"anonymous": held, "mapped": 10 - held})
    assert seen.most == {"anonymous": 5, "mapped": 9}
    assert seen.by_stage == {"read": 5, "embed": 4}


def test_a_second_counts_for_the_innermost_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Steps:
        def outer(self) -> str:
            return self.inner() + self.made()

        def inner(self) -> str:
            return "in"

        @classmethod
        def made(cls) -> str:
            return "made"

    times = iter([0.0, 1.0, 3.0, 7.0, 8.0, 10.0, 15.0])
    monkeypatch.setattr(timed_build.time, "perf_counter", lambda: next(times))
    said: list[str] = []
    stages = Stages(said.append)
    for stage, name in (("index", "outer"), ("measure", "inner"), ("index", "made")):
        stages.watch(stage, Steps, name)
    assert Steps().outer() == "inmade"
    # Inner from 3 to 7, made from 8 to 10, outer the rest of 1 to 15.
    assert dict(stages.seconds) == {"other": 1.0, "measure": 4.0, "index": 2.0 + 1.0 + 2.0 + 5.0}
    assert said == ["index", "measure", "index", "index", "index", "other"]


def test_every_watched_function_is_there() -> None:
    missing = [name for watched in WATCHED.values() for holder, name in watched if not callable(getattr(holder, name))]
    assert missing == []


class Plain:
    """An encoder whose stream gives texts by twos."""

    def stream(self, texts: Iterable[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        rest = iter(texts)
        while some := list(islice(rest, 2)):
            yield some, np.zeros((len(some), 4), np.float32)

    def _batches(self, texts: list[str]) -> Iterator[tuple[list[int], tuple[np.ndarray, ...]]]:
        yield list(range(len(texts))), (np.zeros(1), np.zeros(1))

    def forward(self, *_: np.ndarray) -> None:
        """Costs nothing."""


def test_titles_are_counted_as_they_are_embedded() -> None:
    encoder: Any = Plain()
    said: list[int] = []
    counting(encoder, said.append)
    assert [some for some, _ in encoder.stream(["a", "b", "c"])] == [["a", "b"], ["c"]]
    assert said == [2, 3]


def test_both_sides_are_timed_in_turn() -> None:
    encoder: Any = Plain()
    # A start and an end for each side of each round: bare takes 1 s, ours 2 s, whichever comes first.
    order = ["bare", "ours", "ours", "bare", "bare", "ours"]
    times = iter([moment for name in order for moment in (0.0, 1.0 if name == "bare" else 2.0)])
    told = rates(encoder, ["a", "b"], 2, lambda: next(times))
    assert told == {"ours": 1.0, "bare": 2.0, "ratio": 0.5, "rounds": {"ours": [1.0, 1.0], "bare": [2.0, 2.0]}}


def test_the_ratio_is_of_rounds_that_were_neighbours() -> None:
    told = summary({"ours": [90.0, 40.0, 20.0], "bare": [100.0, 50.0, 20.0]})
    assert (told["ours"], told["bare"], told["ratio"]) == (40.0, 50.0, 0.9)


def script(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for `timed_build.py`."""
    (folder / "timed_build.py").write_text(f"import json, sys, time\nfrom pathlib import Path\n{body}")
    monkeypatch.setattr(build, "_HERE", folder)


BUILT: dict[str, Any] = {
    "seconds": {"read": 1.0, "embed": 10.0, "whole": 12.0},
    "counts": {"embedded": 5_000},
    "index": {"kind": "HNSW32", "recall_at_100": 0.99},
}


def test_a_build_is_watched_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_EVERY", 0.01)
    lines = [{"stage": "embed"}, {"embedded": 64}, {"built": BUILT}]
    script(tmp_path, f"for line in {lines!r}:\n    print(json.dumps(line), flush=True)\n", monkeypatch)
    seen = build.built(tmp_path / "vitrine.toml", tmp_path / "log")
    assert (seen.embedded, seen.stage, seen.built) == (64, "embed", BUILT)


def test_a_build_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "sys.exit('no such catalogue')\n", monkeypatch)
    for kill_after in (None, 60.0):
        with pytest.raises(RuntimeError, match=r"ended with code 1:\nno such catalogue"):
            build.built(tmp_path / "vitrine.toml", tmp_path / "log", kill_after)


def test_a_kill_costs_what_was_embedded_and_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_EVERY", 0.01)
    shards = tmp_path / "store" / "work" / "embeddings-1"
    shards.mkdir(parents=True)
    np.save(shards / "a.keys.npy", np.zeros((60, 16), np.uint8))
    # The first time it embeds 100 titles and waits to be killed; the second time it ends.
    body = f"""
again = Path("killed").exists()
Path("killed").touch()
print(json.dumps({{"embedded": 40 if again else 100}}), flush=True)
if not again:
    time.sleep(600)
print(json.dumps({{"built": {BUILT!r}}}), flush=True)
"""
    script(tmp_path, body, monkeypatch)
    counts, seen = build.resumed(tmp_path / "vitrine.toml", tmp_path / "log", 0.0)
    assert counts == {"embedded": 100, "saved": 60, "embedded_after": 40, "twice": 40}
    assert seen.built == BUILT
    with pytest.raises(RuntimeError, match="shorter --kill-after"):
        build.resumed(tmp_path / "vitrine.toml", tmp_path / "log", 600.0)


def test_a_shop_of_another_size_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(command: list[str], **_: Any) -> Any:
        ran.append(command[command.index("--products") + 1])
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(build.subprocess, "run", run)
    (tmp_path / "store").mkdir()
    for size in (1_000, 1_000, 2_000, 1_000):
        config = build.make_shop(tmp_path, size, "HNSW32", 2)
    assert ran == ["1000", "2000", "1000"]
    assert 'index = "HNSW32"\nthreads = 2' in config.read_text()
    assert not (tmp_path / "store").exists()


def test_the_table_holds_each_stage() -> None:
    seen = build.Watched(most={"anonymous": 3_000_000}, by_stage={"embed": 2_000_000})
    lines = build.lines_of(BUILT, seen, {"ours": 450.0, "bare": 500.0, "ratio": 0.9})
    assert "| read | 1.00 |  |" in lines
    assert "| embed | 10.00 | 2 |" in lines
    assert "| whole | 12.00 | 3 |" in lines
    assert "\nembedded: 5,000 titles, 500 a second" in lines
    assert "encoding alone: 450 titles a second, the bare model 500; ratio 0.900" in lines
