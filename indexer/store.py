"""The store: directories of arrays that appear whole or not at all, each with a manifest."""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from indexer.errors import LockedError, SnapshotError

FORMAT = "vitrine-snapshot"
FORMAT_VERSION = 1
_ASIDE = ".aside-"
# What publishing adds to a manifest.
_ADDED = ("format", "format_version", "kind", "id", "created", "files")

Kind = Literal["encoders", "indexes", "models"]


class Store:
    """`root/indexes/<id>/`, `root/models/<id>/`, of which releases are made, and `root/encoders/<id>/`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def publish(self, kind: Kind, fill: Callable[[Path], Mapping[str, Any]]) -> str:
        """Let `fill` write files into a folder and return its manifest; returns the id under which both are published.

        Everything is written aside, flushed to disk with its checksums, and renamed as the last step: a crash before
        that leaves only a folder that nobody reads and the next publishing removes.
        """
        folder = self.root / kind
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob(f"{_ASIDE}*"):
            shutil.rmtree(stale)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{secrets.token_hex(2)}"
        aside = folder / f"{_ASIDE}{name}"
        aside.mkdir()
        manifest = dict(fill(aside))
        files = {str(f.relative_to(aside)): checksum(f) for f in sorted(aside.rglob("*")) if f.is_file()}
        head = {"format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind, "id": name, "created": time.time()}
        write_json(aside / "manifest.json", {**head, **manifest, "files": files})
        for path in [*sorted(aside.rglob("*")), aside]:
            flush(path)
        os.rename(aside, folder / name)
        flush(folder)
        return name

    def ids(self, kind: Kind) -> list[str]:
        """Published ids, oldest first."""
        folder = self.root / kind
        return sorted(p.parent.name for p in folder.glob("*/manifest.json") if not p.parent.name.startswith(_ASIDE))

    def latest(self, kind: Kind) -> str:
        """The newest id. Raises `SnapshotError` where there is none."""
        ids = self.ids(kind)
        if not ids:
            verbs = {"encoders": "vitrine train encoder", "indexes": "vitrine index build", "models": "vitrine train"}
            verb = verbs[kind]
            raise SnapshotError(f"{self.root / kind} holds no {kind}. Make one with `{verb}`.")
        return ids[-1]

    def path(self, kind: Kind, name: str) -> Path:
        """The folder of a published id."""
        return self.root / kind / name

    def manifest(self, kind: Kind, name: str) -> dict[str, Any]:
        """The manifest of an id. Raises `SnapshotError` where it is missing or of another format version."""
        path = self.path(kind, name) / "manifest.json"
        try:
            manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SnapshotError(f"{path} cannot be read: {error}. `vitrine index list` shows what is there.") from error
        version = manifest.get("format_version")
        if manifest.get("format") != FORMAT or version != FORMAT_VERSION:
            side = "newer" if isinstance(version, int) and version > FORMAT_VERSION else "older"
            raise SnapshotError(
                f"{path} has format {manifest.get('format')} version {version}, {side} than version {FORMAT_VERSION}, "
                f"which this program reads. {'Update the program' if side == 'newer' else 'Build it again'}."
            )
        return manifest

    def told(self, kind: Kind, name: str) -> dict[str, Any]:
        """What the manifest of an id says beside what publishing added to it. Raises `SnapshotError` as `manifest`."""
        return {key: value for key, value in self.manifest(kind, name).items() if key not in _ADDED}

    def verify(self, kind: Kind, name: str) -> list[str]:
        """The faults found when every file of an id is read and its checksum compared; empty if it is sound."""
        folder = self.path(kind, name)
        files = self.manifest(kind, name)["files"]
        faults = [f"{file} is missing" for file in files if not (folder / file).is_file()]
        present = [file for file in files if (folder / file).is_file()]
        return faults + [f"{file} has changed" for file in present if checksum(folder / file) != files[file]]

    def remove(self, kind: Kind, name: str) -> None:
        """Remove an id, in one step for whoever looks; what has its files open keeps them."""
        aside = self.root / kind / f"{_ASIDE}{name}"
        os.rename(self.path(kind, name), aside)
        shutil.rmtree(aside)

    @contextlib.contextmanager
    def locked(self, what: str, *, wait: bool = False) -> Iterator[None]:
        """Hold the lock `what`; the system frees it when the process ends, however it ends.

        Where another run holds it: with `wait` once that has ended, else `LockedError`.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{what}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LockedError(f"Another {what} is running on {self.root}. Wait until it has ended.") from error
            yield


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """fsync a file or a folder, so that a rename after it cannot reach the disk first."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def replace_text(path: Path, content: str) -> None:
    """Replace a small file in one step: a reader sees the old or the new content, whatever happens."""
    aside = path.with_name(f"{_ASIDE}{path.name}")
    aside.write_text(content, encoding="utf-8")
    flush(aside)
    os.replace(aside, path)
    flush(path.parent)
