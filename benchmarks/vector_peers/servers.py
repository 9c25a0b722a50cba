"""Servers of a shop on free ports of 127.0.0.1, each with a few settings of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from side import neutral

from server.config import Settings, load_settings

_ROOT = Path(__file__).parents[2]
_SERVING = re.compile(r"serving release \d+ on (127\.0\.0\.1):(\d+)")
_STARTING = 300.0


def write_config(settings: Settings, server: Mapping[str, Any], path: Path) -> None:
    """The settings as a file of their own, with other values in `[server]`. Raises `ConfigError` where it is no such.

    Paths in `settings` are absolute, so that the file may lie anywhere.
    """
    tables = settings.model_dump(mode="json", exclude_none=True)
    tables["server"] |= server
    path.write_text(toml(tables), encoding="utf-8")
    load_settings(path)


def toml(tables: Mapping[str, Any]) -> str:
    """Plain values and tables of them as TOML."""
    return "\n".join(_lines(tables)) + "\n"


def _lines(table: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Plain values first, then the tables that are in the table."""
    for name, value in table.items():
        if not isinstance(value, Mapping):
            # What JSON writes of text, numbers, truth and lists of them is TOML too.
            yield f"{json.dumps(name)} = {json.dumps(value, ensure_ascii=False)}"
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield f"[{prefix}{json.dumps(name)}]"
            yield from _lines(value, f"{prefix}{json.dumps(name)}.")


@contextmanager
def serving(settings: Settings, server: Mapping[str, Any], work: Path, name: str) -> Iterator[str]:
    """The address of a server with these settings, as long as the context lasts. Raises `RuntimeError`."""
    config, log = work / f"{name}.toml", work / f"{name}-server.log"
    write_config(settings, {**server, "address": "127.0.0.1", "port": 0}, config)
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve", "-c", config],
            cwd=_ROOT,
            env=neutral(),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        yield _address(process, log, int(server.get("workers", 1)))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            # Its own group: the server and its workers.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path, workers: int) -> str:
    """HOST:PORT, once every worker has said that it serves."""
    last = time.monotonic() + _STARTING
    while time.monotonic() < last and process.poll() is None:
        found = _SERVING.findall(log.read_text(errors="replace"))
        if len(found) >= workers:
            return ":".join(found[0])
        time.sleep(0.1)
    raise RuntimeError(f"The server did not start: {log.read_text(errors='replace')[-1_000:]}")
