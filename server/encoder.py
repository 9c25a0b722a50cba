"""The encoder that an index was built with: another one's query vectors cannot be compared with its titles'."""

from collections.abc import Mapping
from typing import Any

from indexer.config import IndexerConfig
from indexer.encoder import Encoder
from indexer.errors import SnapshotError
from indexer.store import Store
from indexer.tuned import encoder_of


def fitting_encoder(store: Store, index: Mapping[str, Any], config: IndexerConfig) -> Encoder:
    """The encoder of an index (its manifest). Raises `SnapshotError` where the configured one is another."""
    encoder = encoder_of(store, index, config)
    check_fit(encoder, index)
    return encoder


def serving_encoder(store: Store, index: Mapping[str, Any], config: IndexerConfig) -> Encoder:
    """`fitting_encoder` with one thread for each worker: a pool costs a request's few tokens more than it gives."""
    return fitting_encoder(store, index, config.model_copy(update={"threads": config.threads or 1}))


def check_fit(encoder: Encoder, index: Mapping[str, Any]) -> None:
    """Raises `SnapshotError`, naming both fingerprints, where `encoder` did not make the vectors of an index."""
    made_by = index["encoder"]["fingerprint"]
    if encoder.fingerprint != made_by:
        raise SnapshotError(
            f"The configured encoder {encoder.name} has fingerprint {encoder.fingerprint}, index {index['id']} was "
            f"built with {made_by}. Configure the encoder of the index, or build the index again: "
            "`vitrine index build`."
        )
