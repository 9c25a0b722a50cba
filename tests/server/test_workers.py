"""Several processes on one port: who may have it, and what becomes of the others when one ends."""

import multiprocessing
import signal
import socket
import subprocess
import sys
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


SCRIPT = """
import os, sys, time
from server import workers
from server.config import Settings


def idle(_):
    # One write: what `print` writes in two, others may come between.
    os.write(1, b"idle\\n")
    time.sleep(60)


if __name__ == "__main__":
    workers._work = idle
    workers.run(Settings.model_validate({"store": sys.argv[1], "server": {"workers": 3, "port": 0}}))
"""


def test_a_signal_ends_all_and_is_no_fault(tmp_path: Path) -> None:
    """In a process of its own, as a supervisor ends it."""
    (tmp_path / "serve.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "serve.py"), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["idle\n"] * 3
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=30)
    assert (process.returncode, told) == (0, ("", ""))
