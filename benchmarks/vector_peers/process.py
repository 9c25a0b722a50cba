"""The side that asks: an engine's process, its rounds, and rounds of many engines in turn."""

import json
import select
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from result import distribution
from side import neutral

_FOLDER = Path(__file__).parents[1]
# A catalogue of a million takes an engine the better part of an hour.
_PREPARING = 7_200.0


class Round(NamedTuple):
    """Answers a second, and milliseconds of one."""

    rate: float
    p50: float
    p99: float


@dataclass(frozen=True)
class Row:
    """An engine as one row of the table: its adapter, the interpreter it runs in, its options and wanted recall."""

    name: str
    adapter: str
    python: Path
    target: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def end_cleanly_when_terminated() -> None:
    """Let SIGTERM unwind the stack as an interrupt does: what was started is then stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Engine:
    """A process of `worker.py`. Close it; it closes what it started."""

    def __init__(self, row: Row, data: Path, work: Path, k: int) -> None:
        self.row, self._k = row, k
        name = "".join(c if c.isalnum() else "-" for c in row.name)
        self._log, self._out = work / f"{name}.log", work / f"{name}.npy"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [row.python, "-m", "vector_peers.worker", row.adapter, data],
                cwd=_FOLDER,
                env=neutral() | dict(row.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def prepare(self) -> dict[str, Any]:
        """Build and tune; what was chosen. Raises `RuntimeError` where it cannot be."""
        command = {"k": self._k, "target": self.row.target, "options": dict(self.row.options)}
        return self._ask("prepare", _PREPARING, **command)

    def round(self, callers: int, seconds: float, warmup: float) -> Round:
        """One round. Raises `RuntimeError` where a caller failed."""
        limit = 120 + 10 * (seconds + warmup)
        told = self._ask("round", limit, callers=callers, seconds=seconds, warmup=warmup, out=str(self._out))
        spent = distribution(np.load(self._out) * 1e3)
        return Round(told["rate"], spent["p50"], spent["p99"])

    def _ask(self, do: str, limit: float, **command: Any) -> dict[str, Any]:
        sent, answers = self._process.stdin, self._process.stdout
        if sent is None or answers is None:
            raise RuntimeError("The process has no pipes.")
        try:
            sent.write(json.dumps({"do": do, **command}) + "\n")
            sent.flush()
        except BrokenPipeError:
            raise RuntimeError(f"its process ended: {self._last_words()}") from None
        if not select.select([answers], [], [], limit)[0]:
            raise RuntimeError(f"no answer to {do} in {limit:.0f} s")
        line = answers.readline()
        if not line:
            raise RuntimeError(f"its process ended: {self._last_words()}")
        told: dict[str, Any] = json.loads(line)
        if "error" in told:
            raise RuntimeError(told["error"])
        return told

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        """End the process: its input ends, and what does not stop then is terminated."""
        self._process.stdin.close()  # type: ignore[union-attr]
        for stop in (lambda: None, self._process.terminate, self._process.kill):
            stop()
            try:
                self._process.wait(timeout=30)
                break
            except subprocess.TimeoutExpired:
                continue
        self._process.stdout.close()  # type: ignore[union-attr]


def alternate(
    engines: Sequence[Engine], callers: int, rounds: int, seconds: float, warmup: float, say: Callable[[str], None]
) -> dict[str, list[Round]]:
    """Every engine once uncounted, then `rounds` times in turn, each second time backwards; rounds by name.

    An engine that fails is said to and left out from then on.
    """
    made: dict[str, list[Round]] = {engine.row.name: [] for engine in engines}
    for number in range(rounds + 1):
        for engine in engines if number % 2 else engines[::-1]:
            name = engine.row.name
            if name not in made:
                continue
            try:
                measured = engine.round(callers, seconds, warmup)
            except RuntimeError as error:
                say(f"{name} is left out with {callers} callers: {error}")
                del made[name]
                continue
            if number:
                made[name].append(measured)
        say(f"callers: {callers}; {f'round {number} of {rounds}' if number else 'warm-up'} done")
    return made


def medians(rounds: Sequence[Round]) -> dict[str, Any]:
    """The median of each figure over the rounds, and the rounds themselves."""
    middle = Round(*(round(statistics.median(values), 4) for values in zip(*rounds, strict=True)))
    return {**middle._asdict(), "rounds": [[round(value, 4) for value in each] for each in rounds]}
