"""Releases: which index and model go live together, and which of them is live."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from indexer.config import IndexerConfig
from indexer.errors import SnapshotError, VitrineError
from indexer.snapshot import IndexSnapshot
from indexer.store import Store, replace_text
from ranker.model import load_model, stored_report

_CURRENT = "CURRENT"
# Least recall@100 against exact search an index may go live with.
LEAST_RECALL = 0.95


class GateError(VitrineError):
    """A release that its gate does not let through."""

    exit_code = 6


@dataclass(frozen=True)
class Release:
    """A numbered pair; `gate` says what was checked. Its `ndcg` is None where the model has no ranking."""

    number: int
    index: str
    model: str
    note: str
    time: float
    gate: Mapping[str, Any]


class Releases:
    """`root/releases/<n>.json` and `root/CURRENT`, the number of the live one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.root / "releases"

    def create(self, index: str, model: str, note: str, config: IndexerConfig, after: Release | None = None) -> Release:
        """Check that the pair loads and is good enough, and write it down. Raises `GateError` or `SnapshotError`.

        What was made `after` a release is refused where another one is live by now.
        """
        gate = self._gate(index, model, config)
        with self._store.locked("release"):
            if after is not None:
                self._check_live(after)
            return self._numbered(index, model, note, gate)

    def _check_live(self, release: Release) -> None:
        live = self.live()
        if live != release:
            raise GateError(
                f"Release {live.number} went live meanwhile, where this began with release {release.number}. It stays "
                "live; what was made is of the other one's model and is not released. Begin again."
            )

    def check_ranked(self, model: str) -> None:
        """Raise `GateError` where a model without a ranking would follow a live one that ranks."""
        live = self.current()
        if live is None or live.gate["ndcg"] is None or stored_report(self._store, model) is not None:
            return
        reason = self._store.manifest("models", model)["unranked"]
        raise GateError(
            f"Release {live.number} stays live, because it ranks and model {model} would not: {reason}. Was a part of "
            "the log lost? Look at ranker.events, ranker.judgments and the store's journal. If it is meant: "
            "`vitrine rebuild --unranked`."
        )

    def _numbered(self, index: str, model: str, note: str, gate: Mapping[str, Any]) -> Release:
        number = max((release.number for release in self.list()), default=0) + 1
        release = Release(number, index, model, note, time.time(), gate)
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_text(self._path(number), json.dumps(asdict(release), indent=2) + "\n")
        return release

    def list(self) -> list[Release]:
        """Every release, oldest first."""
        return [Release(**json.loads(path.read_text())) for path in sorted(self._folder.glob("[0-9]*.json"))]

    def get(self, number: int) -> Release:
        """One release. Raises `SnapshotError` where there is none of that number."""
        path = self._path(number)
        if not path.is_file():
            there = ", ".join(str(release.number) for release in self.list()) or "none"
            raise SnapshotError(f"There is no release {number} in {self._folder}; there are: {there}.")
        return Release(**json.loads(path.read_text()))

    def current(self) -> Release | None:
        """The live release; None before the first promotion."""
        path = self._store.root / _CURRENT
        if not path.is_file():
            return None
        content = path.read_text().strip()
        if not content.isdecimal():
            raise SnapshotError(f"{path} holds no release number but {content!r}. Mend it: `vitrine release promote`.")
        return self.get(int(content))

    def live(self) -> Release:
        """The live release. Raises `SnapshotError` before the first promotion."""
        live = self.current()
        if live is None:
            raise SnapshotError(f"{self._store.root} has no live release. Make one with `vitrine rebuild`.")
        return live

    def promote(self, number: int) -> Release:
        """Make a release live; servers pick it up within their `reload_seconds`."""
        release = self.get(number)
        replace_text(self._store.root / _CURRENT, f"{number}\n")
        return release

    def rollback(self) -> Release:
        """Make the release before the live one live again. Raises `SnapshotError` where there is none."""
        live = self.current()
        earlier = [release for release in self.list() if live and release.number < live.number]
        if not earlier:
            raise SnapshotError("There is no earlier release to go back to.")
        return self.promote(earlier[-1].number)

    def forget(self, number: int) -> None:
        """Remove a release from the list; its index and model stay. The live one is not to be given."""
        self._path(number).unlink()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.json"

    def _gate(self, index: str, model: str, config: IndexerConfig) -> dict[str, Any]:
        faults = self._store.verify("indexes", index) + self._store.verify("models", model)
        if faults:
            raise GateError(f"The release is damaged: {'; '.join(faults)}. Build and train again.")
        snapshot = IndexSnapshot(self._store, index, config)
        load_model(self._store, model, snapshot, config)
        recall = float(snapshot.manifest["index"]["recall_at_100"])
        if recall < LEAST_RECALL:
            raise GateError(
                f"Index {index} has recall@100 {recall:.3f}, less than {LEAST_RECALL}. Raise "
                "indexer.ef_construction or indexer.recall_target, or choose another indexer.index."
            )
        report = stored_report(self._store, model)
        found = {"checksums": "ok", "recall_at_100": recall, "ndcg": None if report is None else _headline(report)}
        trained = self._store.manifest("models", model).get("carried_from")
        # The figure is of that one.
        return found if trained is None else {**found, "carried_from": trained}


def _headline(report: Mapping[str, Any]) -> float:
    return float(next(r["metrics"]["ndcg@10"]["mean"] for r in report["table"] if r["scorer"] == report["chosen"]))
