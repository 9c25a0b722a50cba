"""Several processes on one port: who may have it, and what becomes of the others when one ends."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from indexer.errors import VitrineError
from server import workers
from server.config import Settings


def settings(folder: Path, count: int = 2) -> Settings:
    return Settings.model_validate({"store": folder / "store", "server": {"workers": count, "port": 0}})


def listen(port: int, *options: int) -> socket.socket:
    made = socket.socket()
    for option in options:
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        made.bind(("127.0.0.1", port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def test_a_reserved_port_is_for_those_who_share_it() -> None:
    with workers._reserved("127.0.0.1", 0) as port:
        with listen(port, socket.SO_REUSEPORT), listen(port, socket.SO_REUSEPORT):
            pass
        with pytest.raises(OSError, match="in use"):
            listen(port)


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEPORT,)])
def test_a_port_that_somebody_listens_on_is_refused(options: tuple[int, ...]) -> None:
    """Also one that could be shared: half of the callers would reach the other server."""
    with listen(0, *options) as taken:
        port = taken.getsockname()[1]
        refused = pytest.raises(VitrineError, match=f"127.0.0.1:{port} cannot be listened on.*in use")
        with refused, workers._reserved("127.0.0.1", port):
            pass


def test_where_one_process_ends_by_itself_all_end(tmp_path: Path) -> None:
    # There is no release to serve.
    with pytest.raises(VitrineError, match=r"worker-\d ended by itself with code 4; the others were stopped"):
        workers.run(settings(tmp_path))
    assert multiprocessing.active_children() == []


def idle(_: Settings) -> None:
    """A worker that waits for its signal."""
    time.sleep(60)


def test_a_signal_ends_all_and_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_work", idle)
    before = signal.getsignal(signal.SIGTERM)

    def end() -> None:
        while len(multiprocessing.active_children()) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end)
    ending.start()
    workers.run(settings(tmp_path, 3))
    ending.join()
    assert multiprocessing.active_children() == []
    assert signal.getsignal(signal.SIGTERM) is before
