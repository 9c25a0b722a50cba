"""Encoders tuned on the shop's own log: kept in the store, and named by the indexes that were built with them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from indexer.config import IndexerConfig
from indexer.encoder import Encoder, fingerprint, load_encoder, resolve
from indexer.errors import SnapshotError
from indexer.store import Store


def newest_encoder(store: Store, config: IndexerConfig) -> Encoder:
    """What a build embeds with: the newest tuned encoder of the configured one, or that one itself.

    `indexer.tuned = false` leaves tuned encoders alone.
    """
    if config.tuned and store.ids("encoders"):
        base = fingerprint(resolve(config.encoder))
        for name in reversed(store.ids("encoders")):
            if store.manifest("encoders", name)["base"] == base:
                return _tuned(store, name, config)
    return load_encoder(config, None, _kept(store))


def encoder_of(store: Store, index: Mapping[str, Any], config: IndexerConfig) -> Encoder:
    """The encoder that the vectors of an index (its manifest) were made with; the configured one if it was not tuned.

    Raises `SnapshotError` where a tuned one is no longer in the store.
    """
    tuned = index["encoder"].get("tuned")
    if not tuned:
        return load_encoder(config, None, _kept(store))
    if tuned["id"] not in store.ids("encoders"):
        raise SnapshotError(
            f"Index {index['id']} was built with the tuned encoder {tuned['id']}, which {store.root / 'encoders'} does "
            "not hold. Restore it from a backup, or build the index again: `vitrine index build`."
        )
    return _tuned(store, tuned["id"], config)


def model_folder(store: Store, name: str) -> Path:
    """Where the weights of a tuned encoder are."""
    return store.path("encoders", name) / "model"


def _tuned(store: Store, name: str, config: IndexerConfig) -> Encoder:
    manifest = store.manifest("encoders", name)
    told = {key: manifest[key] for key in ("id", "queries_below", "events_before")}
    tuned = config.model_copy(update={"encoder": str(model_folder(store, name))})
    return load_encoder(tuned, told, _kept(store))


def _kept(store: Store) -> Path:
    """Where compiled encoders are kept."""
    return store.root / "compiled"
