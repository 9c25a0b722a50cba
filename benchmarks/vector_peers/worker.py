"""One engine's process: it takes commands as JSON lines and answers with a JSON line each.

    python -m vector_peers.worker ADAPTER FOLDER

`{"do": "prepare", ...}` builds and tunes; `{"do": "round", "callers": N, ...}` measures. It ends with its input.
"""

import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from vector_peers.adapter import Adapter, Ask, Data, Tuned, tune


class Worker:
    """An adapter with its data, once prepared."""

    def __init__(self, name: str, folder: Path, stack: ExitStack) -> None:
        self._name, self._folder, self._stack = name, folder, stack

    def prepare(self, k: int, target: float, options: dict[str, Any]) -> dict[str, Any]:
        """Build and tune the engine; returns what was chosen and the versions."""
        self._data = Data(self._folder, k, options)
        module = importlib.import_module(f"vector_peers.{self._name}")
        self._adapter: Adapter = module.make(self._data)
        # The folder first, so that it is there until the adapter has stopped what works in it.
        work = self._stack.enter_context(TemporaryDirectory(prefix=f"vitrine-{self._name}-"))
        self._stack.callback(self._adapter.close)
        self._tuned: Tuned = tune(self._adapter, self._data, target, Path(work))
        return {**self._tuned._asdict(), "versions": versions(self._adapter)}

    def round(self, callers: int, seconds: float, warmup: float, out: str) -> dict[str, Any]:
        """Ask for `seconds` after `warmup`, each caller the next query as it has an answer; latencies (s) go to `out`.

        Returns the answers a second.
        """
        gc.collect()
        gc.freeze()
        with ExitStack() as stack:
            asks = [self._adapter.caller(self._tuned.search, stack) for _ in range(callers)]
            begin = time.perf_counter() + warmup
            logs = together(asks, len(self._data.queries), begin, begin + seconds)
        gc.unfreeze()
        spent = np.concatenate([np.array(log, np.float64).reshape(-1, 2) for log in logs])
        np.save(out, spent[:, 1])
        return {"rate": len(spent) / (float(spent.sum(axis=1).max()) - begin), "count": len(spent)}


def together(asks: list[Ask], queries: int, begin: float, end: float) -> list[list[tuple[float, float]]]:
    """The times (start, seconds) of every answer asked for from `begin` on, by caller. A caller's fault is raised."""
    logs: list[list[tuple[float, float]]] = [[] for _ in asks]
    faults: list[BaseException] = []

    def call(number: int, ask: Ask) -> None:
        i, log, clock = number * queries // len(asks), logs[number], time.perf_counter
        try:
            while (start := clock()) < end:
                ask(i % queries)
                if start >= begin:
                    log.append((start, clock() - start))
                i += 1
        except BaseException as fault:
            faults.append(fault)

    if len(asks) == 1:
        call(0, asks[0])
    else:
        threads = [threading.Thread(target=call, args=pair) for pair in enumerate(asks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if faults:
        raise faults[0]
    return logs


def versions(adapter: Adapter) -> dict[str, str]:
    """The versions of the adapter's distributions."""
    found = {}
    for name in adapter.packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main(name: str, folder: Path) -> None:
    """Answer commands until the input ends."""
    # What an engine prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # A terminated process closes what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with ExitStack() as stack:
        worker = Worker(name, folder, stack)
        for line in sys.stdin:
            command = json.loads(line)
            work = {"prepare": worker.prepare, "round": worker.round}[command.pop("do")]
            try:
                told = work(**command)
            except Exception as error:
                told = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
