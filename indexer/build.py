"""The build: read the catalogue, embed its titles, index the vectors, measure the recall, publish."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from indexer.arrays import Floats
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex, chosen_kind
from indexer.embeddings import EmbeddingCache
from indexer.encoder import Encoder
from indexer.errors import InputError, SnapshotError
from indexer.exact import ExactIndex
from indexer.index import NOTHING, Index
from indexer.lexical import LexicalIndex
from indexer.readers import Catalogue, read_catalogue
from indexer.rendered import write_rendered
from indexer.snapshot import LEXICAL, PRODUCTS, TOKEN_OFFSETS, TOKENS, VECTORS, open_latest
from indexer.store import Store
from indexer.text import token_hashes

REJECTS = "rejects.jsonl"
# Titles held out of the index while its recall is measured.
_HELD_OUT = 1_000

# Called with a stage, how many units are done since the last call, and how many there are.
Progress = Callable[[str, int, int], None]


def build_index(store: Store, config: IndexerConfig, encoder: Encoder, progress: Progress) -> str:
    """Build and publish an index of the configured catalogue; returns its id. The live index is not touched.

    A second build after a kill embeds only what the first had not. Raises `InputError` where the catalogue is unusable.
    """
    started = time.perf_counter()
    catalogue = read_catalogue(config.catalogue, config.columns)
    _check_rejects(store, catalogue, config)
    # Shuffled rows make the last ones a fair sample to hold out, and give the index no order to depend on.
    products = catalogue.products.sample(fraction=1.0, shuffle=True, seed=0)
    titles = products["title"].to_list()
    texts = _texts(products, config)
    cache = EmbeddingCache(store.root / "work" / f"embeddings-{encoder.fingerprint}")
    _offer_last_index(store, config, encoder, cache)
    embedded = cache.fill(titles, encoder, lambda n: progress("embed", n, len(titles)))
    counts = {"products": len(products), "rejected": len(catalogue.rejects), "embedded": embedded}

    def fill(folder: Path) -> Mapping[str, Any]:
        LexicalIndex.build(texts).save(folder / LEXICAL)
        index = _write(folder, products, catalogue, encoder, cache, config, progress)
        return {
            "encoder": _told(encoder),
            "dimensions": encoder.dimensions,
            "counts": counts,
            "index": index,
            "seconds": round(time.perf_counter() - started, 2),
        }

    name = store.publish("indexes", fill)
    cache.clear()
    return name


def _told(encoder: Encoder) -> dict[str, Any]:
    """The manifest's entry on the encoder: what it is, and what a tuned one has seen of the log."""
    told = {"name": encoder.name, "fingerprint": encoder.fingerprint, "backend": encoder.backend}
    return told if encoder.tuned is None else told | {"tuned": dict(encoder.tuned)}


def _check_rejects(store: Store, catalogue: Catalogue, config: IndexerConfig) -> None:
    rows = len(catalogue.products) + len(catalogue.rejects)
    path = store.root / REJECTS
    store.root.mkdir(parents=True, exist_ok=True)
    _write_rejects(path, catalogue)
    if not len(catalogue.products):
        raise InputError(f"{config.catalogue} holds no usable row of {rows}; {path} says why. The live index stays.")
    share = len(catalogue.rejects) / rows
    if share > config.max_reject_share:
        raise InputError(
            f"{len(catalogue.rejects)} of {rows} rows of {config.catalogue} were rejected ({share:.1%}), more than "
            f"indexer.max_reject_share = {config.max_reject_share:.1%}. {path} gives each line and reason. "
            "The live index stays."
        )


def _texts(products: pl.DataFrame, config: IndexerConfig) -> list[str]:
    """Every product's title and its `indexer.text_columns`, which are searched by word."""
    if unknown := [name for name in config.text_columns if name not in products.columns]:
        raise InputError(
            f"indexer.text_columns names {', '.join(map(repr, unknown))}, which {config.catalogue} does not have. "
            f"Its columns are {', '.join(map(repr, products.columns))}."
        )
    columns = [pl.col(name).cast(pl.String) for name in dict.fromkeys(("title", *config.text_columns))]
    return products.select(pl.concat_str(columns, separator=" | ", ignore_nulls=True)).to_series().to_list()


def _write_rejects(path: Path, catalogue: Catalogue) -> None:
    lines = (json.dumps(reject._asdict(), ensure_ascii=False) + "\n" for reject in catalogue.rejects)
    path.write_text("".join(lines), encoding="utf-8")


def _offer_last_index(store: Store, config: IndexerConfig, encoder: Encoder, cache: EmbeddingCache) -> None:
    try:
        last = open_latest(store, config)
    except SnapshotError:
        return
    # A damaged vector must not be handed on from index to index.
    if last.encoder_fingerprint == encoder.fingerprint and not store.verify("indexes", last.id):
        cache.offer(last.products.column("title").to_pylist(), last.vectors)


def _write(
    folder: Path,
    products: pl.DataFrame,
    catalogue: Catalogue,
    encoder: Encoder,
    cache: EmbeddingCache,
    config: IndexerConfig,
    progress: Progress,
) -> dict[str, Any]:
    """Write every file of the snapshot; returns the manifest's entry on the index."""
    titles = products["title"].to_list()
    products.write_ipc(folder / PRODUCTS, compat_level=pl.CompatLevel.oldest())
    write_rendered(products, folder)
    _write_rejects(folder / REJECTS, catalogue)
    _write_tokens(folder, titles)
    shape = (len(titles), encoder.dimensions)
    vectors = np.lib.format.open_memmap(folder / VECTORS, mode="w+", dtype=np.float32, shape=shape)
    cache.gather(titles, vectors)
    vectors.flush()
    kind = chosen_kind(config, len(titles))
    progress("index", 0, len(titles))
    index, recall = _indexed(kind, vectors, config)
    index.save(folder)
    progress("index", len(titles), len(titles))
    return {"kind": kind, "recall_at_100": recall, "held_out": _held_out(len(titles))}


def _write_tokens(folder: Path, titles: list[str]) -> None:
    lists = [token_hashes(title) for title in titles]
    np.save(folder / TOKENS, np.concatenate(lists))
    np.save(folder / TOKEN_OFFSETS, np.cumsum([0, *map(len, lists)], dtype=np.int64))


def _held_out(rows: int) -> int:
    return min(_HELD_OUT, rows // 10)


def _indexed(kind: str, vectors: Floats, config: IndexerConfig) -> tuple[Index, float]:
    """The index over all vectors, and its recall@100 measured with queries it did not hold at that time."""
    if kind == "exact":
        return ExactIndex(vectors), 1.0
    first = len(vectors) - _held_out(len(vectors))
    index = DenseIndex.build(kind, vectors[:first], config).extended(vectors[:first])
    recall = measure_recall(index, ExactIndex(vectors[:first]), np.asarray(vectors[first:]))
    return index.extended(vectors), recall


def measure_recall(index: Index, oracle: ExactIndex, queries: Floats, k: int = 100) -> float:
    """The mean share of the oracle's k best that `index` finds; a neighbour that ties with the k-th counts as found.

    What was found is scored again by the vectors themselves: a compressed index only estimates its scores.
    """
    if not len(queries) or not len(index):
        return 1.0
    k = min(k, len(index))
    worst = oracle.search(queries, k).scores[:, -1]
    rows = index.search(queries, k).rows
    scores = (oracle.vectors[found[found != NOTHING]] @ query for found, query in zip(rows, queries, strict=True))
    found = sum(int((s >= least - 1e-5).sum()) for s, least in zip(scores, worst, strict=True))
    return found / rows.size
