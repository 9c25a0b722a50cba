"""Several server processes on one port, over one release that they map into memory, or one card, together."""

import asyncio
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path
from typing import Any, NamedTuple

from indexer.device import has_driver
from indexer.errors import VitrineError
from server.config import Settings

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Seconds until the process that holds the card is ready (it imports PyTorch and starts CUDA), and until it has ended.
_STARTING, _ENDING = 120.0, 10.0


def run(settings: Settings, device: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT, in this process or in `server.workers` of them.

    The system gives each new connection to one of the processes, so a caller needs several connections to keep all of
    them busy. With a card, one more process holds it for all of them; `device` is its device, by default the configured
    one where that is a card. Where one process ends by itself the others are stopped. Raises `VitrineError` then, and
    where the address cannot be had.
    """
    if settings.server.workers == 1:
        _serve(settings)
        return
    with _reserved(settings.server.address, settings.server.port) as port:
        _supervise(settings.model_copy(update={"server": settings.server.model_copy(update={"port": port})}), device)


def log_to_stderr() -> None:
    """How a server process logs."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(processName)s %(name)s %(message)s")


def _serve(settings: Settings) -> None:
    # The parent of several workers needs none of what a server imports.
    from server import app

    log_to_stderr()
    # The loop reads and writes in microseconds; by default it waits up to 5 ms for the ranking thread to let it.
    sys.setswitchinterval(0.001)
    asyncio.run(app.serve(settings))


def _supervise(settings: Settings, device: str | None) -> None:
    # A fork would copy the locks of gRPC's and PyTorch's threads.
    context = multiprocessing.get_context("spawn")
    workers: list[SpawnProcess] = []
    ended: list[SpawnProcess] = []
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True
        for worker in workers:
            if worker.is_alive():
                worker.terminate()

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        with _card(context, settings, device) as card:
            address = card.address if card else None
            for i in range(settings.server.workers):
                mine = _metrics_of(settings, i)
                workers.append(context.Process(target=_work, args=(mine, address), name=f"worker-{i + 1}"))
            for worker in workers:
                if not stopped:
                    worker.start()
            started = [worker for worker in workers if worker.pid]
            watched = [*started, *([card.process] if card else [])]
            gone = wait([process.sentinel for process in watched]) if started else []
            ended = [process for process in watched if process.sentinel in gone and not stopped]
            stop()
            for worker in started:
                worker.join()
    except VitrineError:
        # A signal while the card's process starts may end that, too.
        if not stopped:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended:
        raise _by_itself(ended[0])


def _metrics_of(settings: Settings, number: int) -> Settings:
    """The settings of a worker, counted from 0: each tells its own metrics at a port of its own."""
    if not (port := settings.server.metrics_port):
        return settings
    return settings.model_copy(update={"server": settings.server.model_copy(update={"metrics_port": port + number})})


def _by_itself(process: SpawnProcess) -> VitrineError:
    error = VitrineError(f"{process.name} ended by itself with code {process.exitcode}; the others were stopped.")
    # What a person can mend ends several processes as it ends one; a signal's number is negative.
    error.exit_code = max(process.exitcode or 0, error.exit_code)
    return error


class _Card(NamedTuple):
    """The process that holds the card for the workers, and where they find it."""

    process: SpawnProcess
    address: str


@contextmanager
def _card(context: SpawnContext, settings: Settings, device: str | None) -> Iterator[_Card | None]:
    """That process, ready; None where no card is chosen. It is ended after those who use it."""
    if device is None and (settings.indexer.device == "cpu" or not has_driver()):
        yield None
        return
    # Closed to other users, as the socket in it is by that.
    with tempfile.TemporaryDirectory(prefix="vitrine-") as folder:
        address = str(Path(folder) / "card")
        ours, theirs = context.Pipe()
        process = context.Process(target=_hold, args=(settings, address, theirs, device), name="card")
        process.start()
        theirs.close()
        try:
            yield _Card(process, address) if _ready(process, ours) else None
        finally:
            # It ends when it sees that; if it does not, it hangs.
            ours.close()
            process.join(_ENDING)
            if process.is_alive():
                process.kill()
                process.join()


def _ready(process: SpawnProcess, pipe: Connection) -> bool:
    """Whether there is a card, which now may be asked. Raises `VitrineError` where it takes too long or fails."""
    if not wait([pipe, process.sentinel], _STARTING):
        raise VitrineError(f"The process that holds the card was not ready after {_STARTING:.0f} seconds.")
    try:
        chosen = bool(pipe.recv())
    except EOFError:
        process.join()
        raise _by_itself(process) from None
    if not chosen:
        process.join(_ENDING)
    return chosen


def _hold(settings: Settings, address: str, parent: Connection, device: str | None) -> None:
    from server import card_process

    log_to_stderr()
    with _told():
        card_process.hold(settings, address, parent, device)


def _work(settings: Settings, address: str | None) -> None:
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    if address is not None:
        from indexer import remote

        remote.use(remote.CardProcess(address))
    with _told():
        _serve(settings)


def _end_with_parent() -> None:
    """Drain once the parent is gone, which may have been killed: the port would stay taken, and no new server start."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _told() -> Iterator[None]:
    """A condition that a person can mend ends the process with its message and its own exit code."""
    try:
        yield
    except VitrineError as error:
        logger.error("%s", error)
        raise SystemExit(error.exit_code) from None


@contextmanager
def _reserved(address: str, port: int) -> Iterator[int]:
    """The port, kept for the workers: any of them may listen on it, and nobody else does.

    Raises `VitrineError` where somebody listens already, be it another server that would share it.
    """
    host = address.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as alone, socket.socket(family, socket.SOCK_STREAM) as shared:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            alone.bind((host, port))
            number = int(alone.getsockname()[1])
            alone.close()
            shared.bind((host, number))
        except OSError as error:
            raise VitrineError(f"{address}:{port} cannot be listened on: {error}. Is it in use?") from error
        yield number
