"""What a benchmark measured, and the JSON it becomes: with the machine, the commit, the versions and the parameters."""

import json
import os
import platform
import subprocess
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
# A rate is held with at most this share of errors and at least this share of it answered.
MOST_ERRORS = 0.001
LEAST_ACHIEVED = 0.98
# What names the commit of a copy that has no history: `git describe --always --abbrev=40 --exclude '*' --dirty`.
CARRIED = "VITRINE_COMMIT"
_DIRTY = "-dirty"
_CARD_FIELDS = "name,driver_version,memory.total"
# What arithmetic the processor has: AMX makes the encoder twice as fast as the same name without it.
_EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
LIBRARIES = (
    "vitrine",
    "grpcio",
    "protobuf",
    "numpy",
    "polars",
    "pyarrow",
    "torch",
    "lightgbm",
    "faiss-cpu",
    "faiss-gpu-cuvs",
    "faiss-gpu",
    "openvino",
)


@dataclass(frozen=True)
class Slice:
    """Latency in milliseconds and errors by status code of `count` requests."""

    count: int
    errors: Mapping[str, int]
    latency_ms: Mapping[str, float]

    @property
    def error_share(self) -> float:
        """Failed requests over all requests."""
        return sum(self.errors.values()) / max(self.count, 1)


@dataclass(frozen=True)
class Point(Slice):
    """One measurement at one offered rate (requests a second), or in a closed loop, where that rate is None.

    `stages_ms` is the mean of the server's own timings; `not_held` says why the rate does not count as held.
    """

    offered_rate: float | None
    achieved_rate: float
    lag_ms: Mapping[str, float]
    generator_bound: bool
    stages_ms: Mapping[str, float]
    degraded: int
    empty: int
    methods: Mapping[str, Slice]
    not_held: Sequence[str] = ()

    def judged(self, bound_ms: float) -> "Point":
        """This point with the reasons why its rate is not held: any of p99, errors, achieved, generator."""
        failed = {
            "p99": self.latency_ms["p99"] > bound_ms,
            "errors": self.error_share > MOST_ERRORS,
            "achieved": self.achieved_rate < LEAST_ACHIEVED * (self.offered_rate or 0.0),
            "generator": self.generator_bound,
        }
        return replace(self, not_held=tuple(name for name, fails in failed.items() if fails))

    def line(self) -> str:
        """One line for the person who waits."""
        offered = f"offered {self.offered_rate:8.1f}/s  " if self.offered_rate else ""
        latency = "  ".join(f"{name} {self.latency_ms.get(name, float('nan')):.2f}" for name in ("p50", "p95", "p99"))
        errors = f"errors {sum(self.errors.values())} of {self.count}"
        bound = "  (generator bound)" if self.generator_bound else ""
        return f"{offered}achieved {self.achieved_rate:8.1f}/s  {latency} ms  {errors}{bound}"


@dataclass(frozen=True)
class Window:
    """Seconds that count, the seconds of warm-up before them, and each request's time limit in seconds."""

    seconds: float
    warmup: float
    timeout: float
    lag_bound_ms: float = 5.0


@dataclass
class Log:
    """What became of the requests as they ended. Times are seconds of one clock; the warm-up ends at `begin`."""

    begin: float
    methods: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    stages: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    degraded: int = 0
    empty: int = 0

    def add(self, method: str, code: str, due: float, sent: float, done: float) -> None:
        """Note one request: its status code, when it was due, when it was sent and when it ended."""
        self.methods.append(method)
        self.codes.append(code)
        self.times += (due, sent, done)

    def point(self, window: Window, *, offered: bool) -> Point:
        """The figures of the requests due in the window; the achieved rate counts the answers that arrived in it."""
        due, sent, done = np.array(self.times, np.float64).reshape(-1, 3).T
        method, code = np.array(self.methods, np.str_), np.array(self.codes, np.str_)
        counted, end = due >= self.begin, self.begin + window.seconds
        # A refusal in a millisecond is no fast answer: whatever failed weighs as much as a timeout.
        latency = np.where(code == "OK", done - due, window.timeout) * 1e3
        lag = distribution((sent - due)[counted] * 1e3)
        whole = _slice(latency[counted], code[counted])
        parts = {name: counted & (method == name) for name in sorted(set(self.methods))}
        return Point(
            **vars(whole),
            offered_rate=whole.count / window.seconds if offered else None,
            achieved_rate=float(((code == "OK") & (done >= self.begin) & (done < end)).sum() / window.seconds),
            lag_ms={name: lag[name] for name in ("p50", "p99", "max") if lag},
            generator_bound=bool(lag) and lag["p99"] > window.lag_bound_ms,
            stages_ms={name: round(float(np.mean(values)), 4) for name, values in self.stages.items()},
            degraded=self.degraded,
            empty=self.empty,
            methods={name: _slice(latency[part], code[part]) for name, part in parts.items()},
        )


def _slice(latency_ms: NDArray[np.float64], code: NDArray[np.str_]) -> Slice:
    errors = Counter(code[code != "OK"].tolist())
    return Slice(count=len(code), errors=dict(errors), latency_ms=distribution(latency_ms))


def distribution(milliseconds: NDArray[np.float64]) -> dict[str, float]:
    """Nearest-rank percentiles (each one a value that was measured), maximum and mean; empty for no values."""
    if not milliseconds.size:
        return {}
    values = np.quantile(milliseconds, list(PERCENTILES.values()), method="inverted_cdf")
    named = dict(zip(PERCENTILES, values, strict=True)) | {"max": milliseconds.max(), "mean": milliseconds.mean()}
    return {name: round(float(value), 4) for name, value in named.items()}


def environment() -> dict[str, Any]:
    """Machine, commit, library versions and the time now (UTC)."""
    return {
        "machine": machine(),
        "commit": commit(Path(__file__).parent),
        "versions": versions(LIBRARIES),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def machine() -> dict[str, Any]:
    """Processor, cores (all, and those this process may use), memory in bytes (None where unknown) and platform.

    `extensions` are those of the processor that its speed here depends on: several kinds go by one name. `cards`, where
    there are any: the name, the driver and the bytes of memory of each.
    """
    names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else None
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name, extensions = _processor(Path("/proc/cpuinfo"))
    told = {
        "cpu": name,
        "extensions": extensions,
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "memory_bytes": memory,
        "platform": platform.platform(),
    }
    found = cards(output("nvidia-smi", f"--query-gpu={_CARD_FIELDS}", "--format=csv,noheader,nounits") or "")
    return told | {"cards": found} if found else told


def cards(listing: str) -> list[dict[str, str | int | None]]:
    """What nvidia-smi lists of each card: name, driver version and MiB of memory, with commas."""
    rows = [[part.strip() for part in line.split(",")] for line in listing.splitlines()]
    return [
        {"name": row[0], "driver": row[1], "memory_bytes": int(row[2]) * 2**20 if row[2].isdigit() else None}
        for row in rows
        if len(row) == 3
    ]


def commit(folder: Path) -> dict[str, str | bool | None]:
    """The commit checked out at `folder` and whether tracked files differ from it.

    Outside git it is what `CARRIED` says in the environment (a copy on another machine), else "unknown".
    """
    # Untracked files are left out: the result of the run before this one would make every later run dirty.
    status = _git(folder, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    head = _git(folder, "rev-parse", "HEAD")
    if head is None or status is None:
        carried = os.environ.get(CARRIED, "")
        dirty = carried.endswith(_DIRTY) if carried else None
        return {"id": carried.removesuffix(_DIRTY) or "unknown", "dirty": dirty}
    return {"id": head, "dirty": bool(status)}


def versions(names: Sequence[str]) -> dict[str, str]:
    """Python's version and those of the named distributions that are installed."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_result(path: Path, benchmark: str, parameters: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """Write one result as JSON, whole or not at all. Of a path in `parameters` only the file's name is kept."""
    kept = {name: value.name if isinstance(value, Path) else value for name, value in parameters.items()}
    document = {"benchmark": benchmark, "parameters": kept, **body}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps(document, indent=2, ensure_ascii=False, default=_plain) + "\n", encoding="utf-8")
    aside.replace(path)


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"A result cannot hold a {type(value).__name__}; turn it into numbers, text, lists or mappings.")


def _processor(listing: Path) -> tuple[str, list[str]]:
    """Its name, and which of _EXTENSIONS it has; none where there is no such listing."""
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = set(told.get("flags", "").split())
    name = told.get("model name") or platform.processor() or platform.machine()
    return name, [each for each in _EXTENSIONS if each in flags]


def _git(folder: Path, *arguments: str) -> str | None:
    return output("git", "-C", str(folder), *arguments)


def output(*command: str) -> str | None:
    """What a command printed; None where it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
