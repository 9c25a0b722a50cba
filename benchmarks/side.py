"""One side of a comparison, measured in a process of its own: how it is started, timed and read."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from result import distribution

# What decides which kernels a numeric library takes and how many threads: set from outside, for instance by a sandbox
# that has OPENBLAS_CORETYPE=Haswell, it would hold NumPy and FAISS to kernels older than the machine.
HELD_BY = ("OPENBLAS_", "GOTO_", "BLIS_", "MKL_", "OMP_", "GOMP_", "KMP_")
WARM_UP = 1.0  # seconds
_READY = "ready"
_MOST_SECONDS = 300.0


def neutral(threads: int | None = None) -> dict[str, str]:
    """This process's environment without `HELD_BY`; `threads` sets OMP_NUM_THREADS, None leaves the libraries' own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(HELD_BY)}
    return kept if threads is None else kept | {"OMP_NUM_THREADS": str(threads)}


def dropped() -> list[str]:
    """The variables that `neutral` leaves out here."""
    return sorted(name for name in os.environ if name.startswith(HELD_BY))


def timed(answer: Callable[[Sequence[str]], Any], queries: Sequence[str], batch: int, seconds: float) -> dict[str, Any]:
    """Requests a second, and the latency of `answer` to one batch after the other; `WARM_UP` comes before."""
    whole = len(queries) // batch * batch
    batches = itertools.cycle([queries[i : i + batch] for i in range(0, whole, batch)])
    spent: list[float] = []
    begin = time.perf_counter() + WARM_UP
    while (start := time.perf_counter()) < begin + seconds:
        answer(next(batches))
        if start >= begin:
            spent.append(time.perf_counter() - start)
    if not spent:
        raise SystemExit(f"No answer began in the {seconds:g} s that count: one took longer than these.")
    rate = len(spent) * batch / sum(spent)
    return {"requests_per_second": round(rate, 2), "latency_ms": distribution(np.array(spent) * 1e3)}


def report(measure: Callable[[], Mapping[str, Any]]) -> None:
    """Called by the side once it has loaded: say so, wait for the word, then measure and tell."""
    print(_READY, flush=True)
    sys.stdin.readline()
    print(json.dumps(measure()), flush=True)


def measured(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str], log: Path, most_seconds: float = _MOST_SECONDS
) -> list[dict[str, Any]]:
    """What each script (its path and arguments) tells by `report`; all have loaded before any measures.

    Standard error goes to `log`. Raises `RuntimeError` with its end where a side fails or takes `most_seconds`.
    """
    with contextlib.ExitStack() as open_things:
        sides = [open_things.enter_context(_started(each, environment, log, most_seconds)) for each in commands]
        for side in sides:
            while (line := side.stdout.readline()).strip() != _READY:
                if not line:
                    raise _failed(side, log)
        for side in sides:
            side.stdin.write("go\n")
            side.stdin.flush()
        told = [side.stdout.read().splitlines() for side in sides]
        for side in sides:
            if side.wait():
                raise _failed(side, log)
    return [json.loads(lines[-1]) for lines in told]


def busy_cores(seconds: float = 0.5) -> float:
    """How many cores are at work now, on average over `seconds`; NaN where the system does not tell (not Linux)."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return float("nan")
    before, start = idle_seconds(stat.read_text()), time.perf_counter()
    time.sleep(seconds)
    idle = idle_seconds(stat.read_text()) - before
    return max((os.cpu_count() or 1) - idle / (time.perf_counter() - start), 0.0)


def idle_seconds(stat: str) -> float:
    """What /proc/stat says of all cores together: the seconds since the start in which they had nothing to do."""
    _, *ticks = stat.splitlines()[0].split()
    return (int(ticks[3]) + int(ticks[4])) / os.sysconf("SC_CLK_TCK")


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def _started(
    command: Sequence[str], environment: Mapping[str, str], log: Path, most_seconds: float
) -> Iterator[subprocess.Popen[str]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with log.open("a", encoding="utf-8") as errors:
        script = [sys.executable, *command]
        process = subprocess.Popen(script, env=dict(environment), stderr=errors, text=True, **pipes)
    patience = threading.Timer(most_seconds, process.kill)
    patience.start()
    try:
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
    finally:
        patience.cancel()


def _failed(side: subprocess.Popen[str], log: Path) -> RuntimeError:
    side.kill()
    return RuntimeError(f"{' '.join(map(str, side.args))} ended with code {side.wait()}:\n{tail(log)}")
