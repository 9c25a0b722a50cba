"""A sample shop of any size, made by steps that can be cut off, with a configuration for each device."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from build import built
from side import neutral, tail
from vector_peers.servers import toml

from indexer.store import Store

# Beside the indexes: what the build told.
_BUILT = "built.json"
Tables = Mapping[str, Mapping[str, Any]]


def overridden(tables: Tables, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`tables` with settings as `server.max_batch=16`; what is not JSON is text. Raises `ValueError` for others."""
    made = {name: dict(table) for name, table in tables.items()}
    for setting in settings:
        name, equals, value = setting.partition("=")
        table, dot, key = name.strip().partition(".")
        if not (equals and dot and table and key):
            raise ValueError(f"{setting!r}: write a setting as in server.max_batch=16.")
        try:
            made.setdefault(table, {})[key] = json.loads(value)
        except ValueError:
            made.setdefault(table, {})[key] = value.strip()
    return made


class Shop:
    """A sample shop in a folder, of `products` products; what is made of it already is not made again."""

    def __init__(self, folder: Path, products: int, sessions: int, candidates: int, settings: Sequence[str]) -> None:
        """`settings` hold for the build and for every server; see `overridden`."""
        self.folder, self.products, self.sessions = folder.resolve(), products, sessions
        self.log = self.folder / "log"
        base: Tables = {
            "indexer": {"catalogue": "data/products.parquet"},
            # All trees and few passes: what is measured is speed.
            "ranker": {
                "events": "data/events.parquet",
                "candidates": candidates,
                "most_requests": 1_000,
                "tower_epochs": 1,
                "network_epochs": 1,
                "trees": 300,
                "leaves": 63,
                "tree_patience": 0,
            },
            # Every query is embedded.
            "server": {"query_cache": 0},
        }
        self._tables = overridden(base, settings)

    def config(self, device: str, settings: Sequence[str] = ()) -> Path:
        """A configuration for a device, over the one store."""
        on_device = [f"{table}.device={device}" for table in ("indexer", "ranker")]
        path = self.folder / f"{device.replace(':', '')}.toml"
        self.folder.mkdir(parents=True, exist_ok=True)
        tables = overridden(self._tables, [*on_device, *settings])
        path.write_text(toml({"store": "store", **tables}), encoding="utf-8")
        return path

    def sample(self) -> float | None:
        """Make the data where there is none of that size; the seconds it took."""
        mark = self.folder / f"sample-{self.products}-{self.sessions}"
        if mark.exists():
            return None
        for old in ("data", "store"):
            shutil.rmtree(self.folder / old, ignore_errors=True)
        options = {"--products": self.products, "--sessions": self.sessions, "--out": self.folder / "data"}
        spent = self._vitrine("sample", *(word for option in options.items() for word in option))
        for other in self.folder.glob("sample-*"):
            other.unlink()
        mark.touch()
        return spent

    def index(self, device: str) -> dict[str, Any]:
        """What the build of the index took, in a process of its own, now or when it was built; see `timed_build.py`."""
        record = self.folder / "store" / _BUILT
        if not record.exists():
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(json.dumps({**(built(self.config(device), self.log).built or {}), "device": device}))
        told: dict[str, Any] = json.loads(record.read_text())
        return told

    def release(self, device: str) -> dict[str, float]:
        """Train, release and promote where that is not done; the seconds of each step."""
        store, config = Store(self.folder / "store"), self.config(device)
        spent = {}
        if not store.ids("models"):
            spent["train"] = self._vitrine("train", "model", "-c", config)
        if not (store.root / "CURRENT").exists():
            spent["release"] = self._vitrine("release", "create", "-c", config)
            spent["promote"] = self._vitrine("release", "promote", 1, "-c", config)
        return spent

    def _vitrine(self, *words: object) -> float:
        self.folder.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        with self.log.open("a", encoding="utf-8") as log:
            command = [sys.executable, "-m", "server", *map(str, words)]
            done = subprocess.run(command, env=neutral(), stdout=log, stderr=log)
        if done.returncode:
            raise RuntimeError(f"vitrine {' '.join(map(str, words))} ended with {done.returncode}:\n{tail(self.log)}")
        return round(time.perf_counter() - start, 2)
