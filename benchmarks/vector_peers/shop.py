"""A shop's titles, vectors and queries as the files that every engine is given."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from load import read_pool

from indexer.arrays import Floats
from indexer.exact import ExactIndex
from indexer.snapshot import VECTORS, IndexSnapshot, open_latest
from indexer.store import Store
from indexer.tuned import encoder_of
from server.config import Settings

_BATCH = 64
# `LexicalIndex` keeps the spelling of so many queries; fewer than that are never spelt while they are timed.
KEPT = 256


def queries_of(settings: Settings, given: Path | None, count: int) -> list[str]:
    """At most `count` queries, spread evenly over those of a file, of the log or of the judgments (the first there is).

    Raises `ValueError` where there is none.
    """
    path = given or settings.ranker.events or settings.ranker.judgments
    if path is None:
        raise ValueError("The configuration names no events and no judgments. Give --queries FILE.")
    pool = read_pool(path, "query")
    return pool if len(pool) <= count else [pool[i] for i in np.linspace(0, len(pool) - 1, count).astype(int)]


def write_data(settings: Settings, texts: Sequence[str], k: int, folder: Path) -> IndexSnapshot:
    """The newest index of the store and `texts` as the files that `adapter.Data` reads; returns that index."""
    store = Store(settings.store)
    snapshot = open_latest(store, settings.indexer)
    encoder = encoder_of(store, snapshot.manifest, settings.indexer)
    queries = encoder.encode([snapshot.lexical.mended(text) for text in texts])
    (folder / "vectors.npy").symlink_to((snapshot.folder / VECTORS).resolve())
    np.save(folder / "queries.npy", queries)
    np.save(folder / "least.npy", least_scores(snapshot.vectors, queries, k))
    titles = snapshot.products.column("title").to_pylist()
    for name, content in (("texts", list(texts)), ("titles", titles), ("ids", snapshot.ids)):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return snapshot


def least_scores(vectors: Floats, queries: Floats, k: int) -> Floats:
    """The score of the k-th best row of each query, by exact search."""
    if len(vectors) < k:
        raise ValueError(f"The index holds {len(vectors)} products; {k} are asked for. Give a larger shop.")
    exact = ExactIndex(vectors)
    parts = [queries[start : start + _BATCH] for start in range(0, len(queries), _BATCH)]
    return np.concatenate([exact.search(part, k).scores[:, -1] for part in parts])
