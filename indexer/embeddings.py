"""Vectors of titles, made once: taken from the last index or from a killed build's shards where the title is there."""

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import compress
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from indexer.arrays import Bytes, Floats, Ints, Mask, mapped
from indexer.encoder import Encoder

# What a kill may lose: a shard is saved after so many seconds of encoding, or titles.
_SECONDS = 2.0
_SHARD = 16_384
# Rows gathered at a time: what was encoded together lies together, so that few shards are opened for them.
_ROWS = 16_384
_DIGEST = 16

# Digests of titles as byte strings of a fixed length, which NumPy sorts and searches: bytes[titles].
Keys: TypeAlias = NDArray[np.bytes_]


class EmbeddingCache:
    """Vectors by title, in shards under `folder`, for one encoder fingerprint; in memory a title is its digest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._keys: list[Keys] = []
        # Each opens vectors [keys, dimensions], memory-mapped: what stays open stays in memory, page by page.
        self._blocks: list[Callable[[], Floats]] = []
        folder.mkdir(parents=True, exist_ok=True)
        for keys in sorted(folder.glob("*.keys.npy")):
            self._load(keys.name.removesuffix(".keys.npy"))

    def offer(self, titles: Iterable[str], vectors: Floats) -> None:
        """Make the vectors of an earlier index available."""
        self._remember(_digests(titles), lambda: vectors)

    def fill(self, titles: Iterable[str], encoder: Encoder, progress: Callable[[int], None]) -> int:
        """Encode and save the titles that are missing; returns how many were. `progress` counts every title.

        `titles` are gone through twice. A shard is saved while the next is encoded.
        """
        keys = _digests(titles)
        missing = self._missing(keys)
        count = int(missing.sum())
        progress(len(keys) - count)
        with ThreadPoolExecutor(1, "save") as saver:
            saving: Future[None] | None = None
            for texts, vectors in _shards(encoder.stream(compress(titles, missing))):
                if saving:
                    saving.result()
                saving = saver.submit(self._save, _digests(texts), vectors)
                progress(len(texts))
            if saving:
                saving.result()
        return count

    def gather(self, titles: Iterable[str], out: Floats) -> None:
        """Copy the vectors of `titles` into `out` [titles, dimensions]; `KeyError` where one is not there."""
        places = self._places(_digests(titles))
        if len(places) and places.min() < 0:
            raise KeyError(f"{np.count_nonzero(places < 0)} titles have no vector.")
        begins = np.cumsum([0, *map(len, self._keys)])
        for start in range(0, len(places), _ROWS):
            part = places[start : start + _ROWS]
            blocks = np.searchsorted(begins, part, side="right") - 1
            for block in np.unique(blocks):
                rows = np.flatnonzero(blocks == block)
                out[start + rows] = self._blocks[block]()[part[rows] - begins[block]]

    def clear(self) -> None:
        """Remove the shards: a published index holds their vectors now."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _missing(self, keys: Keys) -> Mask:
        """Which of `keys` have no vector; of equal ones the first alone."""
        missing = np.zeros(len(keys), np.bool_)
        distinct, first = np.unique(keys, return_index=True)
        missing[first] = self._places(distinct) < 0
        return missing

    def _places(self, keys: Keys) -> Ints:
        """Where each key's vector is, counted through all blocks; -1 where it is in none."""
        known = np.concatenate([_digests(()), *self._keys])
        if not len(known):
            return np.full(len(keys), -1, np.int64)
        order = np.argsort(known)
        found = order[np.searchsorted(known, keys, sorter=order).clip(max=len(known) - 1)]
        return np.where(known[found] == keys, found, -1)

    def _save(self, keys: Keys, vectors: Floats) -> None:
        """Vectors first: a shard counts as written when its keys are there."""
        stem = secrets.token_hex(8)
        for part, array in (("vectors", vectors), ("keys", _bytes(keys))):
            path = self.folder / f"{stem}.{part}.npy"
            with path.with_suffix(".tmp").open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path.with_suffix(".tmp"), path)
        self._load(stem)

    def _load(self, stem: str) -> None:
        keys: Bytes = np.load(self.folder / f"{stem}.keys.npy")
        self._remember(keys.view(f"S{_DIGEST}").reshape(-1), partial(mapped, self.folder / f"{stem}.vectors.npy"))

    def _remember(self, keys: Keys, block: Callable[[], Floats]) -> None:
        self._keys.append(keys)
        self._blocks.append(block)


def _shards(batches: Iterable[tuple[Sequence[str], Floats]]) -> Iterator[tuple[list[str], Floats]]:
    """Encoded batches put together until they are worth saving: titles, and vectors [titles, dimensions]."""
    texts: list[str] = []
    vectors: list[Floats] = []
    begun = time.monotonic()
    for some, made in batches:
        texts += some
        vectors.append(made)
        if len(texts) >= _SHARD or time.monotonic() - begun >= _SECONDS:
            yield texts, np.concatenate(vectors)
            texts, vectors, begun = [], [], time.monotonic()
    if texts:
        yield texts, np.concatenate(vectors)


def _digests(titles: Iterable[str]) -> Keys:
    digests = (hashlib.blake2b(title.encode(), digest_size=_DIGEST).digest() for title in titles)
    return np.fromiter(digests, f"S{_DIGEST}")


def _bytes(keys: Keys) -> Bytes:
    return keys.view(np.uint8).reshape(-1, _DIGEST)
