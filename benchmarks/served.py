"""`vitrine serve` as a process of its own on a free port: the seconds until it serves, its workers' memory."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

import grpc
from client import CHANNEL_OPTIONS
from grpc_health.v1 import health_pb2, health_pb2_grpc
from side import tail
from vitrine.v1 import admin_service_pb2, admin_service_pb2_grpc

HOST = "127.0.0.1"
_MOST_SECONDS = 120.0
# Each look asks the workers that are starting, which costs them time.
_POLL = 0.1
_GRACE = 30.0


class Memory(NamedTuple):
    """Of one process in MB (1e6 bytes): pages of its own, pages others map too, and its proportional share of all."""

    private: float
    shared: float
    proportional: float


class Server(NamedTuple):
    """A server that serves. `start_seconds` ran from its start until every worker said SERVING."""

    target: str
    start_seconds: float
    workers: tuple[int, ...]

    def memory(self) -> list[Memory]:
        """The memory of each worker now (Linux)."""
        return [memory(Path(f"/proc/{worker}/smaps_rollup").read_text()) for worker in self.workers]


@contextlib.asynccontextmanager
async def serving(config: Path, workers: int, environment: Mapping[str, str], log: Path) -> AsyncIterator[Server]:
    """A server of `workers` processes, stopped at the end. Raises `RuntimeError` with the end of `log` if it fails."""
    port = _free_port()
    command = [sys.executable, "-m", "server", "serve", "-c", config, "--address", HOST, "--port", str(port)]
    begin = time.perf_counter()
    with log.open("a", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*command, "--workers", str(workers)], env=dict(environment), stdout=output, stderr=output
        )
    pids: tuple[int, ...] = ()
    try:
        await _wait(process, port, workers, log)
        seconds = time.perf_counter() - begin
        # With a card the process that holds it was started before them.
        pids = worker_ids(process.pid)[-workers:] if workers > 1 else (process.pid,)
        yield Server(f"{HOST}:{port}", seconds, pids)
    finally:
        _stop(process, pids)


def memory(rollup: str) -> Memory:
    """What a /proc/PID/smaps_rollup says."""
    lines = [line.partition(":") for line in rollup.splitlines()[1:]]
    sizes = {name: int(value.split()[0]) * 1024 / 1e6 for name, _, value in lines}
    return Memory(
        sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Shared_Clean"] + sizes["Shared_Dirty"], sizes["Pss"]
    )


def worker_ids(parent: int) -> tuple[int, ...]:
    """The processes that multiprocessing spawned for `parent`; its resource tracker is none of them."""
    children = [int(each) for each in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    return tuple(each for each in children if b"--multiprocessing-fork" in Path(f"/proc/{each}/cmdline").read_bytes())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


async def _wait(process: subprocess.Popen[bytes], port: int, workers: int, log: Path) -> None:
    """Until as many processes as there are workers have said SERVING; each tells by when it started which it is."""
    ready: set[int] = set()
    last, reason = time.monotonic() + _MOST_SECONDS, "it does not listen"
    while len(ready) < workers:
        if process.poll() is not None or time.monotonic() > last:
            told = f"{len(ready)} of {workers} workers serve, {reason}"
            raise RuntimeError(f"the server did not come up: {told}:\n{tail(log)}")
        if _listens(port):
            # The system deals connections out by chance.
            for each in await asyncio.gather(*(_ready(f"{HOST}:{port}") for _ in range(2 * workers))):
                if isinstance(each, int):
                    ready.add(each)
                else:
                    reason = each
        if len(ready) < workers:
            await asyncio.sleep(_POLL)


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex((HOST, port)) == 0


async def _ready(target: str) -> int | str:
    """When the worker that this connection reaches was started, in nanoseconds; why not, if it does not serve yet."""
    async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
        health, admin = health_pb2_grpc.HealthStub(channel), admin_service_pb2_grpc.AdminServiceStub(channel)
        try:
            said = await health.Check(health_pb2.HealthCheckRequest(), timeout=2)
            status = await admin.GetStatus(admin_service_pb2.GetStatusRequest(), timeout=2)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
    if said.status != health_pb2.HealthCheckResponse.SERVING:
        return "NOT_SERVING"
    return int(status.start_time.ToNanoseconds())


def _stop(process: subprocess.Popen[bytes], workers: tuple[int, ...]) -> None:
    """SIGTERM drains it; what has not ended then is killed, the workers too, which would be left behind."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        for worker in {*workers, process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, 9)
        process.wait()
