"""Vectors of titles, made once: taken from the last index or from a killed build's shards where the title is there."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from indexer.arrays import Floats
from indexer.encoder import Encoder

# Titles encoded between two saves: about two seconds of work on one core, so a kill loses at most that.
_SHARD = 2_048


class EmbeddingCache:
    """Vectors by title, in memory-mapped shards under `folder`, for one encoder fingerprint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks: list[Floats] = []
        self._place: dict[bytes, tuple[int, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for keys in sorted(folder.glob("*.keys.npy")):
            self._load(keys.name.removesuffix(".keys.npy"))

    def offer(self, titles: Sequence[str], vectors: Floats) -> None:
        """Make the vectors of an earlier index available."""
        self._remember([_digest(title) for title in titles], vectors)

    def fill(self, titles: Sequence[str], encoder: Encoder, progress: Callable[[int], None]) -> int:
        """Encode and save the titles that are missing; returns how many were. `progress` counts every title."""
        missing = list({key: title for title in titles if (key := _digest(title)) not in self._place}.values())
        progress(len(titles) - len(missing))
        for start in range(0, len(missing), _SHARD):
            shard = missing[start : start + _SHARD]
            self._save([_digest(title) for title in shard], encoder.encode(shard))
            progress(len(shard))
        return len(missing)

    def gather(self, titles: Sequence[str], out: Floats) -> None:
        """Copy the vectors of `titles` into `out` [titles, dimensions]; every one must be there."""
        for i, title in enumerate(titles):
            block, row = self._place[_digest(title)]
            out[i] = self._blocks[block][row]

    def clear(self) -> None:
        """Remove the shards: a published index holds their vectors now."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _save(self, keys: list[bytes], vectors: Floats) -> None:
        """Vectors first: a shard counts as written when its keys are there."""
        stem = secrets.token_hex(8)
        for part, array in (("vectors", vectors), ("keys", np.array([list(k) for k in keys], np.uint8))):
            path = self.folder / f"{stem}.{part}.npy"
            with path.with_suffix(".tmp").open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path.with_suffix(".tmp"), path)
        self._load(stem)

    def _load(self, stem: str) -> None:
        keys = np.load(self.folder / f"{stem}.keys.npy")
        self._remember([bytes(k) for k in keys], np.load(self.folder / f"{stem}.vectors.npy", mmap_mode="r"))

    def _remember(self, keys: list[bytes], vectors: Floats) -> None:
        block = len(self._blocks)
        self._blocks.append(vectors)
        self._place.update((key, (block, row)) for row, key in enumerate(keys))


def _digest(title: str) -> bytes:
    return hashlib.blake2b(title.encode(), digest_size=16).digest()
