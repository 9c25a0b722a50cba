"""What a server's processes, its card and the machine were busy with, so that a limit can be named."""

import contextlib
import os
import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from result import output
from side import idle_seconds

_TICKS = os.sysconf("SC_CLK_TCK")
# A resource that is at work for this share of the time is a limit.
BUSY = 0.85
_QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")
# Seconds between two looks at the card: each is a process, which must not weigh on what is measured.
_LOOK = 1.0


def cpu_seconds(stat: str) -> float:
    """User and system time of a /proc/PID/stat or /proc/PID/task/TID/stat; the name in it may hold anything."""
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def parent_of(stat: str) -> int:
    """The parent process in a /proc/PID/stat."""
    return int(stat.rpartition(")")[2].split()[1])


def family(roots: Iterable[int]) -> set[int]:
    """Processes with all that descend from them."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(parent_of(path.read_text()), []).append(int(path.parent.name))
    found, waiting = set(), list(roots)
    while waiting:
        process = waiting.pop()
        if process not in found:
            found.add(process)
            waiting += children.get(process, [])
    return found


def server_processes(workers: Iterable[int]) -> set[int]:
    """The workers, the process that started them where it is not this one, and all that these have started."""
    parents = {parent_of(Path(f"/proc/{worker}/stat").read_text()) for worker in workers}
    return family({*workers, *(parents - {os.getpid()})})


def thread_seconds(processes: Iterable[int]) -> dict[tuple[int, int], float]:
    """CPU seconds so far by (process, thread)."""
    spent = {}
    for process in processes:
        for path in Path(f"/proc/{process}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                spent[process, int(path.parent.name)] = cpu_seconds(path.read_text())
    return spent


class Usage:
    """Cores in use between entering and `told`, by processes; and the card, where nvidia-smi shows one."""

    def __init__(self, server: Iterable[int], generators: Iterable[int]) -> None:
        self._groups = {"server": sorted(server), "generators": sorted(generators)}
        self.told: dict[str, Any] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Measure what happens inside; `told` says it afterwards."""
        before = {name: thread_seconds(group) for name, group in self._groups.items()}
        idle, start = _idle(), time.perf_counter()
        with _card() as seen:
            yield
        wall = time.perf_counter() - start
        self.told = {"machine_cores": _rounded((os.cpu_count() or 1) - (_idle() - idle) / wall)}
        for name, group in self._groups.items():
            spent = thread_seconds(group)
            self.told[name] = cores_of({key: spent[key] - before[name].get(key, 0.0) for key in spent}, wall)
        self.told["card"] = card_of(seen)


def cores_of(spent: Mapping[tuple[int, int], float], wall: float) -> dict[str, Any]:
    """Cores in use: of all, of each process and of the busiest thread, from CPU seconds by (process, thread)."""
    processes: dict[int, float] = {}
    for (process, _), seconds in spent.items():
        processes[process] = processes.get(process, 0.0) + seconds
    return {
        "cores": _rounded(sum(processes.values()) / wall),
        "processes": sorted((_rounded(seconds / wall) for seconds in processes.values()), reverse=True),
        "busiest_thread": _rounded(max(spent.values(), default=0.0) / wall),
    }


def card_of(seen: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    """The mean utilisation and the most MiB in use of what was seen, as `_card` gives it; None where nothing was."""
    if not seen:
        return None
    return {"utilisation": statistics.mean(s for s, _ in seen) / 100, "memory_mib": max(m for _, m in seen)}


def limits(told: Mapping[str, Any], cores: int) -> list[str]:
    """The resources that were at work for `BUSY` of the time or more; empty where none was."""
    server, generators = told["server"], told["generators"]
    shares = {
        "the machine's cores": told["machine_cores"] / cores,
        "one thread of the server": server["busiest_thread"],
        "the threads of one server process together (one core, as Python's lock allows)": max(
            server["processes"], default=0.0
        ),
        "the card": (told["card"] or {}).get("utilisation", 0.0),
        "one generator of load": max(generators["processes"], default=0.0),
    }
    return [f"{name}: {share:.2f}" for name, share in shares.items() if share >= BUSY]


@contextlib.contextmanager
def _card() -> Iterator[list[tuple[float, float]]]:
    """(utilisation in percent, MiB in use) of the first card, as often as nvidia-smi tells; empty without one."""
    seen: list[tuple[float, float]] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set() and (line := output(*_QUERY)):
            with contextlib.suppress(ValueError):
                share, memory = line.splitlines()[0].split(",")
                seen.append((float(share), float(memory)))
            ended.wait(_LOOK)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _idle() -> float:
    stat = Path("/proc/stat")
    return idle_seconds(stat.read_text()) if stat.exists() else float("nan")


def _rounded(value: float) -> float:
    return round(value, 3)
