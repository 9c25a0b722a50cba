"""The build: read the catalogue, embed its titles, index the vectors, measure the recall, publish."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from indexer.arrays import Floats, mapped
from indexer.config import IndexerConfig
from indexer.distil import distilled
from indexer.embeddings import EmbeddingCache
from indexer.encoder import Encoder
from indexer.errors import InputError, SnapshotError
from indexer.kinds import chosen_kind
from indexer.lexical import LexicalIndex
from indexer.pieces import pieces
from indexer.query_table import QueryEncoder
from indexer.readers import Catalogue, read_catalogue
from indexer.rendered import write_rendered
from indexer.snapshot import LEXICAL, PRODUCTS, TOKEN_OFFSETS, TOKENS, VECTORS, IndexSnapshot, open_latest
from indexer.store import Store
from indexer.text import token_hashes
from indexer.tuning import filled

REJECTS = "rejects.jsonl"
# Titles whose tokens are held as one array each at a time: an empty array takes as much as 14 tokens.
_BLOCK = 10_000
# Seconds that clocks of two machines may differ by.
_AHEAD = 60.0

# Called with a stage, how many units are done since the last call, and how many there are.
Progress = Callable[[str, int, int], None]
# What is known beyond a catalogue file, put into what was read of it; also called with when the file was last modified,
# in Unix seconds.
Amend = Callable[[Catalogue, float | None], Catalogue]


def build_index(
    store: Store,
    config: IndexerConfig,
    encoder: Encoder,
    progress: Progress,
    like: IndexSnapshot | None = None,
    amend: Amend | None = None,
) -> str:
    """Build and publish an index of the configured catalogue; returns its id. The live index is not touched.

    One that is to be `like` another, which `encoder` made too, takes its table for queries as it is. With `amend`, the
    index is of what that makes of the catalogue. A second build after a kill embeds only what the first had not. Raises
    `InputError` where the catalogue is unusable.
    """
    started = time.perf_counter()
    # Before it is read: what is written meanwhile is not in the index.
    file_time = modified(config.catalogue)
    catalogue = read_catalogue(config.catalogue, config.columns)
    check_rejects(store, catalogue, config)
    if amend:
        catalogue = amend(catalogue, file_time)
    # Shuffled rows make the last ones a fair sample to hold out, and give the index no order to depend on.
    catalogue = catalogue._replace(products=catalogue.products.sample(fraction=1.0, shuffle=True, seed=0))
    _check_text_columns(catalogue.products, config)
    titles, texts = catalogue.products["title"], searched_texts(catalogue.products, config.text_columns)
    cache = EmbeddingCache(store.root / "work" / f"embeddings-{encoder.fingerprint}")
    _offer_indexes(store, config, encoder, cache, like)
    embedded = cache.fill(titles, encoder, lambda n: progress("embed", n, len(titles)))
    counts = {"products": len(titles), "rejected": len(catalogue.rejects), "embedded": embedded}

    def fill(folder: Path) -> Mapping[str, Any]:
        LexicalIndex.build(texts).save(folder / LEXICAL)
        entries = _write(folder, catalogue, encoder, cache, config, progress, like)
        return {
            "encoder": _told(encoder),
            "dimensions": encoder.dimensions,
            "counts": counts,
            "catalogue": {"modified": file_time},
            **entries,
            "seconds": round(time.perf_counter() - started, 2),
        }

    name = store.publish("indexes", fill)
    cache.clear()
    return name


def modified(path: Path) -> float | None:
    """When a file was last modified, in Unix seconds; None where there is none, which is for its reader to tell.

    Raises `InputError` where that is yet to come: until then every live change would be taken for older than the file.
    """
    if not path.is_file():
        return None
    moment = path.stat().st_mtime
    if (ahead := moment - time.time()) > _AHEAD:
        raise InputError(
            f"{path} was last modified {ahead:,.0f} seconds from now, and until then no price, stock or deletion that "
            "is set would count. Give it the time at which it was read (`touch -d`), or set the clock."
        )
    return moment


def _told(encoder: Encoder) -> dict[str, Any]:
    """The manifest's entry on the encoder: what it is, how its backend was chosen, what a tuned one saw of the log."""
    told = {"name": encoder.name, "fingerprint": encoder.fingerprint, "backend": encoder.backend}
    rest = {"choice": encoder.choice, "tuned": encoder.tuned}
    return told | {name: dict(value) for name, value in rest.items() if value is not None}


def check_rejects(store: Store, catalogue: Catalogue, config: IndexerConfig) -> None:
    """Write the rejected rows down. Raises `InputError` where they are too many, or nothing else is there."""
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


def _check_text_columns(products: pl.DataFrame, config: IndexerConfig) -> None:
    if unknown := [name for name in config.text_columns if name not in products.columns]:
        raise InputError(
            f"indexer.text_columns names {', '.join(map(repr, unknown))}, which {config.catalogue} does not have. "
            f"Its columns are {', '.join(map(repr, products.columns))}."
        )


def searched_texts(products: pl.DataFrame, columns: Iterable[str]) -> pl.Series:
    """Every product's title and what it has in `columns`, which are searched by word."""
    parts = [pl.col(name).cast(pl.String) for name in dict.fromkeys(("title", *columns))]
    return products.select(pl.concat_str(parts, separator=" | ", ignore_nulls=True)).to_series()


def _write_rejects(path: Path, catalogue: Catalogue) -> None:
    lines = (json.dumps(reject._asdict(), ensure_ascii=False) + "\n" for reject in catalogue.rejects)
    path.write_text("".join(lines), encoding="utf-8")


def _offer_indexes(
    store: Store, config: IndexerConfig, encoder: Encoder, cache: EmbeddingCache, like: IndexSnapshot | None
) -> None:
    """Offer the vectors of the newest index, and of the one to be like: the newest may be of another encoder."""
    try:
        # Its vectors are read and not searched: they need not be copied to a card.
        last = open_latest(store, config.model_copy(update={"device": "cpu"}))
    except SnapshotError:
        last = None
    for index in {each.id: each for each in (last, like) if each is not None}.values():
        # A damaged vector must not be handed on from index to index.
        if index.encoder_fingerprint == encoder.fingerprint and not store.verify("indexes", index.id):
            cache.offer(pl.Series(index.products.column("title")), index.vectors)


def _write(
    folder: Path,
    catalogue: Catalogue,
    encoder: Encoder,
    cache: EmbeddingCache,
    config: IndexerConfig,
    progress: Progress,
    like: IndexSnapshot | None,
) -> dict[str, Any]:
    """Write every file of the snapshot; returns the manifest's entries on the index and on its table for queries."""
    products, titles = catalogue.products, catalogue.products["title"]
    products.write_ipc(folder / PRODUCTS, compat_level=pl.CompatLevel.oldest())
    write_rendered(products, folder)
    _write_rejects(folder / REJECTS, catalogue)
    _write_tokens(folder, titles)
    shape = (len(titles), encoder.dimensions)
    written = np.lib.format.open_memmap(folder / VECTORS, mode="w+", dtype=np.float32, shape=shape)
    cache.gather(titles, written)
    written.flush()
    # What was written stays in memory as long as it is mapped.
    del written
    vectors = mapped(folder / VECTORS)
    queries, entries = _query_encoder(folder, encoder, titles, vectors, config, progress, like)
    progress("index", 0, len(titles))
    kind = chosen_kind(config, *vectors.shape)
    # What is asked is shorter than a title, and its neighbours are harder to find.
    index, entry = filled(kind, vectors, config, lambda count: queries.encode(pieces(titles[-count:].to_list())))
    index.save(folder)
    progress("index", len(titles), len(titles))
    return {"index": entry, **entries}


def _query_encoder(
    folder: Path,
    encoder: Encoder,
    titles: pl.Series,
    vectors: Floats,
    config: IndexerConfig,
    progress: Progress,
    like: IndexSnapshot | None,
) -> tuple[QueryEncoder, dict[str, Any]]:
    """What will embed queries, and the manifest's entry on it where it was distilled."""
    if like is not None:
        return _same_query_encoder(folder, encoder, like)
    if config.query_encoder == "full":
        return QueryEncoder(encoder, None), {}
    table, entry = distilled(encoder, titles.to_list(), vectors, lambda done, of: progress("distil", done, of))
    if table:
        table.save(folder)
    return QueryEncoder(encoder, table), {"queries": entry}


def _same_query_encoder(folder: Path, encoder: Encoder, like: IndexSnapshot) -> tuple[QueryEncoder, dict[str, Any]]:
    """What embeds the queries of `like`: its table, whose entry names the index that it was fitted for, or none."""
    table = like.query_table
    if table:
        table.save(folder)
    entry = like.manifest.get("queries")
    return QueryEncoder(encoder, table), {} if entry is None else {"queries": {"fitted_for": like.id} | entry}


def _write_tokens(folder: Path, titles: pl.Series) -> None:
    hashes, lengths = [], [0]
    for start in range(0, len(titles), _BLOCK):
        lists = [token_hashes(title) for title in titles[start : start + _BLOCK]]
        hashes.append(np.concatenate(lists))
        lengths += map(len, lists)
    np.save(folder / TOKENS, np.concatenate(hashes))
    np.save(folder / TOKEN_OFFSETS, np.cumsum(lengths, dtype=np.int64))
