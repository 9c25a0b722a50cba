"""Builds a shop's index in a process of its own, so that its time and its memory are its alone.

python -m vector_peers.built CONFIG OUT.json
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from indexer.build import build_index
from indexer.snapshot import IndexSnapshot
from indexer.store import Store
from indexer.tuned import newest_encoder
from ranker.train import train
from server.config import Settings, load_settings
from server.rebuild import read_sources
from server.release import Releases


class Clock:
    """The times at which a build said where it is; called as its `Progress`."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.embedded = self.index_began = self.index_ended = self.start

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note a stage: titles are embedded bit by bit, the index begins with 0 done and ends with all."""
        now = time.perf_counter()
        if stage == "embed":
            self.embedded = now
        elif done:
            self.index_ended = now
        else:
            self.index_began = now

    def seconds(self) -> dict[str, float]:
        """What embedding took (with the reading before it), the index, and the whole until now."""
        parts = {
            "embed": self.embedded - self.start,
            "index": self.index_ended - self.index_began,
            "build": time.perf_counter() - self.start,
        }
        return {name: round(spent, 2) for name, spent in parts.items()}


def peak_bytes() -> int | None:
    """The most memory this process has held, mapped files included; None where the system does not say.

    `getrusage` would not do: Linux counts there what the parent held as it started this process.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1_024 if found else None


def build(settings: Settings) -> dict[str, Any]:
    """Build, train and release; what it took. The peak of memory is the build's, before anything is trained."""
    store, releases = Store(settings.store), Releases(Store(settings.store))
    with store.locked("rebuild"):
        encoder = newest_encoder(store, settings.indexer)
        # Vectors of a killed build or of an index before: this one then says little of what embedding takes.
        reused = any((settings.store / "work").glob("embeddings-*/*.keys.npy")) or bool(store.ids("indexes"))
        clock = Clock()
        name = build_index(store, settings.indexer, encoder, clock)
        told = {"seconds": clock.seconds(), "peak_bytes": peak_bytes(), "reused": reused}
        snapshot = IndexSnapshot(store, name, settings.indexer)
        start = time.perf_counter()
        model = train(
            store, settings.ranker, settings.indexer, snapshot, encoder, read_sources(settings), lambda _: None
        )
        told["seconds"]["train"] = round(time.perf_counter() - start, 2)
        releases.promote(releases.create(name, model, "scale", settings.indexer).number)
    manifest = snapshot.manifest
    files = {
        file.relative_to(snapshot.folder).as_posix(): file.stat().st_size
        for file in sorted(snapshot.folder.rglob("*"))
        if file.is_file()
    }
    ranking = store.manifest("models", model)["fusion"]
    return {**told, "counts": manifest["counts"], "index": manifest["index"], "fusion": ranking, "bytes": files}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(build(load_settings(Path(sys.argv[1])))), encoding="utf-8")
