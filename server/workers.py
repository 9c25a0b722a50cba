"""Several server processes on one port, over one release that they map into memory together."""

import asyncio
import logging
import multiprocessing
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from indexer.errors import VitrineError
from server.config import Settings

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, in this process or in `server.workers` of them.

    The system gives each new connection to one of the processes, so a caller needs several connections to keep all of
    them busy. Where one process ends by itself the others are stopped. Raises `VitrineError` then, and where the
    address cannot be had.
    """
    if settings.server.workers == 1:
        _serve(settings)
        return
    with _reserved(settings.server.address, settings.server.port) as port:
        _supervise(settings.model_copy(update={"server": settings.server.model_copy(update={"port": port})}))


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


def _supervise(settings: Settings) -> None:
    # A fork would copy the locks of gRPC's and PyTorch's threads.
    context = multiprocessing.get_context("spawn")
    count = settings.server.workers
    processes = [context.Process(target=_work, args=(settings,), name=f"worker-{i + 1}") for i in range(count)]
    stopped = False

    def stop(*_: Any) -> None:
        nonlocal stopped
        stopped = True
        for process in processes:
            if process.is_alive():
                process.terminate()

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        for process in processes:
            if not stopped:
                process.start()
        started = [process for process in processes if process.pid]
        gone = wait([process.sentinel for process in started])
        ended = [process for process in started if process.sentinel in gone and not stopped]
        stop()
        for process in started:
            process.join()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended:
        raise VitrineError(f"{ended[0].name} ended by itself with code {ended[0].exitcode}; the others were stopped.")


def _work(settings: Settings) -> None:
    try:
        _serve(settings)
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
