"""What becomes of the workers where the process that started them is killed."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

ORPHANED = """
import os, signal, sys
from server import workers
from server.config import Settings


def drain(_):
    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"draining\\n") and sys.exit())
    os.write(1, b"up\\n")
    signal.pause()


workers._serve = drain
if __name__ == "__main__":
    workers.run(Settings.model_validate({"store": sys.argv[1], "server": {"workers": 2, "port": 0}}))
"""


def test_workers_end_where_their_parent_is_killed(tmp_path: Path) -> None:
    """They would keep the port, and its supervisor could not start the server again."""
    (tmp_path / "serve.py").write_text(ORPHANED)
    command = [sys.executable, str(tmp_path / "serve.py"), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["up\n"] * 2
        process.kill()
        try:
            # Ends when nobody is left who could write.
            told, _ = process.communicate(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert told == "draining\n" * 2
