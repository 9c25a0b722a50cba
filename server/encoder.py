"""The encoder that an index was built with: another one's query vectors cannot be compared with its titles'."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from indexer import fallbacks
from indexer.agreement import Forward
from indexer.config import IndexerConfig
from indexer.encoder import Encoder
from indexer.errors import SnapshotError
from indexer.remote import CardError, CardProcess, RemoteForward, in_use
from indexer.store import Store
from indexer.tokenise import Tokeniser
from indexer.tuned import encoder_of

logger = logging.getLogger(__name__)


def fitting_encoder(store: Store, index: Mapping[str, Any], config: IndexerConfig) -> Encoder:
    """The encoder of an index (its manifest). Raises `SnapshotError` where the configured one is another."""
    encoder = encoder_of(store, index, config)
    check_fit(encoder, index)
    return encoder


def serving_encoder(store: Store, index: Mapping[str, Any], config: IndexerConfig) -> Encoder:
    """`fitting_encoder` with one thread for each worker: a pool costs a request's few tokens more than it gives.

    Where another process holds the card for this one, the model runs there and this one only tokenises.
    """
    config = config.model_copy(update={"threads": config.threads or 1})
    if (card := in_use()) is None:
        return fitting_encoder(store, index, config)
    config = config.model_copy(update={"device": "cpu"})
    try:
        encoder = _remote_encoder(card, store, index, config)
    except CardError as error:
        fallbacks.count("encoder")
        logger.warning("The encoder runs on the CPU in place of the card: %s.", error)
        return fitting_encoder(store, index, config)
    check_fit(encoder, index)
    return encoder


def check_fit(encoder: Encoder, index: Mapping[str, Any]) -> None:
    """Raises `SnapshotError`, naming both fingerprints, where `encoder` did not make the vectors of an index."""
    made_by = index["encoder"]["fingerprint"]
    if encoder.fingerprint != made_by:
        raise SnapshotError(
            f"The configured encoder {encoder.name} has fingerprint {encoder.fingerprint}, index {index['id']} was "
            f"built with {made_by}. Configure the encoder of the index, or build the index again: "
            "`vitrine index build`."
        )


def _remote_encoder(card: CardProcess, store: Store, index: Mapping[str, Any], config: IndexerConfig) -> Encoder:
    line, told = card.open("encoder", index["id"])
    # Should the card be lost, to try the CPU's compiled forms would take longer than whoever waits has.
    plain = config.model_copy(update={"backend": "torch"})
    forward = RemoteForward(card, line, told.pop("of"), partial(_forward, store, index, plain))
    return Encoder(tokeniser=Tokeniser.load(Path(told.pop("tokeniser"))), forward=forward, **told)


def _forward(store: Store, index: Mapping[str, Any], config: IndexerConfig) -> Forward:
    return fitting_encoder(store, index, config).forward
