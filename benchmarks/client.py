"""The calls of a load test: requests as bytes over a few connections, spread evenly over a server's processes."""

import asyncio
import itertools
import selectors
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple

import grpc
import typer
from result import Log
from vitrine.v1 import admin_service_pb2, admin_service_pb2_grpc, recommend_service_pb2, search_service_pb2

PATHS = {"search": "/vitrine.v1.SearchService/Search", "recommend": "/vitrine.v1.RecommendService/Recommend"}
ANSWERS = {"search": search_service_pb2.SearchResponse, "recommend": recommend_service_pb2.RecommendResponse}
# A proxy from the environment would be measured too; channels of one process share a connection unless told not to.
CHANNEL_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
# Each time a process still lacks connections, as many as at first are opened once more.
_MOST_OPENED = 20

Channel = grpc.aio.Channel


def precise_runner() -> asyncio.Runner:
    """What runs a load: epoll and poll round every wait up to a whole millisecond, select does not."""
    return asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector()))


class Request(NamedTuple):
    """A request as it goes over the wire."""

    method: str
    payload: bytes


class Client:
    """Raw calls to a server over a few connections, taken in turn. Close it with `contextlib.aclosing`."""

    def __init__(self, target: str, connections: int = 1) -> None:
        self.target = target
        self._channels = [self._open() for _ in range(connections)]
        self._take_in_turn()

    def _open(self) -> Channel:
        return grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)

    def _take_in_turn(self) -> None:
        self._calls: dict[str, Iterator[Callable[..., Awaitable[bytes]]]] = {}
        for method, path in PATHS.items():
            self._calls[method] = itertools.cycle([channel.unary_unary(path) for channel in self._channels])

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def spread(self, workers: int) -> None:
        """Keep as many connections to each of the server's `workers` processes, at least as many as before in all.

        The system deals connections out by chance: more are opened until each process has its share, and what is over
        is closed. A process is known by when it started. Raises `typer.BadParameter` where there are not that many.
        """
        count = len(self._channels)
        share = -(-count // workers)
        reached: dict[int, list[Channel]] = {}
        new = self._channels
        for _ in range(_MOST_OPENED):
            for channel, status in zip(new, await self._told(new), strict=True):
                reached.setdefault(status.start_time.ToNanoseconds(), []).append(channel)
            if len(reached) >= workers and min(map(len, reached.values())) >= share:
                break
            new = [self._open() for _ in range(count)]
            self._channels = self._channels + new
        if len(reached) != workers:
            raise typer.BadParameter(f"{self.target} is {len(reached)} processes. Give --workers {len(reached)}.")
        kept = [channel for turn in zip(*reached.values(), strict=False) for channel in turn][: share * workers]
        await asyncio.gather(*(channel.close() for channel in self._channels if channel not in kept))
        self._channels = kept
        self._take_in_turn()

    async def status(self) -> dict[str, Any]:
        """What the server says it is running, and the queries of all its processes. Opens every connection."""
        told = await self._told(self._channels)
        processes = {each.start_time.ToNanoseconds(): each for each in told}.values()
        versions = {name: getattr(told[0].versions, name) for name in ("release", "index", "model", "encoder")}
        others = ("index_kind", "index_recall", "encoder_backend", "fusion", "products", "users")
        queries = {name: sum(getattr(p, name) for p in processes) for name in ("queries_asked", "queries_cached")}
        return {"versions": versions, "workers": len(processes)} | {n: getattr(told[0], n) for n in others} | queries

    async def _told(self, channels: Sequence[Channel]) -> list[Any]:
        stubs = [admin_service_pb2_grpc.AdminServiceStub(channel) for channel in channels]
        request = admin_service_pb2.GetStatusRequest()
        try:
            return await asyncio.gather(*(stub.GetStatus(request, timeout=10, wait_for_ready=True) for stub in stubs))
        except grpc.aio.AioRpcError as error:
            message = f"{self.target} does not answer GetStatus: {error.code().name}. Start a server or set --target."
            raise typer.BadParameter(message) from error

    async def ask(self, request: Request, due: float, timeout: float, log: Log) -> None:
        """Send one request that was due at `due` and note how it ended; its time limit runs from `due` too."""
        sent, body, code = time.perf_counter(), b"", "OK"
        left = max(due + timeout - sent, 0.001)  # gRPC takes 0 for no limit at all
        try:
            body = await next(self._calls[request.method])(request.payload, timeout=left)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        done = time.perf_counter()
        late = code == "OK" and done - due > timeout
        log.add(request.method, "DEADLINE_EXCEEDED" if late else code, due, sent, done)
        if code == "OK" and due >= log.begin:
            answer = ANSWERS[request.method].FromString(body)
            log.degraded += bool(answer.info.degraded)
            log.empty += not answer.hits
            for timing in answer.info.timings:
                log.stages[timing.stage].append(timing.duration.seconds * 1e3 + timing.duration.nanos / 1e6)
