"""The process that alone uses the card, for all workers: what they ask at the same time it answers together."""

import contextlib
import logging
import signal
import socket
import sys
import threading
from functools import partial
from multiprocessing import current_process
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from indexer.arrays import mapped
from indexer.card_encoder import CardEncoder
from indexer.config import IndexerConfig
from indexer.device import choose
from indexer.errors import VitrineError
from indexer.placement import coded_in, placed
from indexer.store import Store
from indexer.threads import pin_to_one_thread
from indexer.wire import Line, Message, accepted, listening
from server.card_work import Encodings, Searches, Work
from server.config import Settings
from server.encoder import fitting_encoder
from server.shelf import Shelf

logger = logging.getLogger(__name__)

# Seconds for which a worker may leave an answer unread.
_UNREAD = 5.0


def hold(settings: Settings, address: str, parent: Connection, device: str | None = None) -> None:
    """Serve the workers at `address`, a path, until the other end of `parent` is closed.

    True is sent over `parent` as soon as workers may connect, False where no card is chosen: then there is nothing to
    hold. `device` is by default the configured one. Raises `ConfigError` where that is a card which is not there.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        # They reach all processes at once, and the workers still need the card to finish what is in flight.
        signal.signal(number, signal.SIG_IGN)
    chosen = choose(settings.indexer.device) if device is None else torch.device(device)
    if device is None and chosen.type == "cpu":
        parent.send(False)
        return
    if chosen.type == "cuda":
        chosen = torch.device(chosen.type, chosen.index or 0)
    pin_to_one_thread()
    # Many threads do little each, and by default one waits up to 5 ms for another to let it.
    sys.setswitchinterval(0.001)
    with listening(address) as listener:
        shelf = Shelf(partial(opened, settings, chosen, Path(address).parent))
        parent.send(True)
        logger.info("holding %s for %d workers", chosen, settings.server.workers)
        serve(listener, shelf, current_process().authkey, parent)


def serve(listener: socket.socket, shelf: Shelf, key: bytes, parent: Connection) -> None:
    """Answer every connection that opens with `key`, until the other end of `parent` is closed."""
    while parent not in wait([listener, parent]):
        line = accepted(listener, _UNREAD)
        threading.Thread(target=_converse, args=(line, shelf, key), name="connection", daemon=True).start()


def opened(settings: Settings, device: torch.device, folder: Path, what: str, name: str) -> Work:
    """An index by the path of its vectors, or the encoder of an index by the index's id; its tokeniser in `folder`.

    Raises `VitrineError` where the device does not have it, with the reason.
    """
    if what == "index":
        return _index(Path(name), device, settings.indexer)
    config = settings.indexer.model_copy(update={"device": str(device), "threads": settings.indexer.threads or 1})
    return _encoder(Store(settings.store), name, config, device, folder)


def _index(path: Path, device: torch.device, config: IndexerConfig) -> Searches:
    reasons: list[str] = []
    vectors, shelf = mapped(path), path.parent.parent.name
    coded = partial(coded_in, path.parent, vectors, config)
    index = placed(vectors, shelf, device, refuse=lambda _, why: reasons.append(why), coded=coded)
    if index is None:
        raise VitrineError(f"{device}: {reasons[0]}")
    return Searches(index)


def _encoder(store: Store, index: str, config: IndexerConfig, device: torch.device, folder: Path) -> Encodings:
    encoder = fitting_encoder(store, store.manifest("indexes", index), config)
    if device.type == "cuda" and not isinstance(encoder.forward, CardEncoder):
        # On the CPU each worker has its own.
        raise VitrineError(f"the encoder does not run on {device}, as this process said before")
    encoder.warm_up()
    return Encodings(encoder, folder)


def _converse(line: Line, shelf: Shelf, key: bytes) -> None:
    """Answer one connection. What was opened over it is held until it ends, however its worker ends."""
    with contextlib.closing(line), contextlib.ExitStack() as held, contextlib.suppress(OSError, EOFError):
        known = line.opens_with(key)
        while known:
            _answer(line, line.receive(), shelf, held)


def _answer(line: Line, message: Message, shelf: Shelf, held: contextlib.ExitStack) -> None:
    try:
        if message.told["do"] == "open":
            line.send(held.enter_context(shelf.holding(message.told["what"], message.told["name"])))
        else:
            shelf.put(message, line)
    except Exception as error:  # Whatever it is, the worker can do without.
        line.send({"error": str(error)})
