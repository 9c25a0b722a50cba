"""Load from several processes at once, since one Python process cannot offer thousands of requests a second."""

import asyncio
import multiprocessing
from collections.abc import Sequence
from contextlib import aclosing
from multiprocessing.connection import Connection
from typing import Any

import load
import numpy as np
from client import Client, Request, precise_runner
from load import Arrivals
from result import Log, Point, Window

# Beyond a window and its time limit: what a generator may take to end.
_PATIENCE = 60.0


class Kept(Client):
    """A client that keeps the log of its last measurement."""

    def __init__(self, target: str, connections: int) -> None:
        super().__init__(target, connections)
        self.log = Log(0.0)

    async def ask(self, request: Request, due: float, timeout: float, log: Log) -> None:
        """See `Client.ask`."""
        self.log = log
        await super().ask(request, due, timeout, log)


class Generators:
    """Processes that offer equal shares of a rate, each with requests and connections of its own. Close them."""

    def __init__(
        self, target: str, requests: Sequence[Request], processes: int, workers: int, connections: int
    ) -> None:
        """`connections` of each process are spread over the server's `workers` processes."""
        # A fork would copy the locks of gRPC's threads.
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for part in range(processes):
            ours, theirs = context.Pipe()
            arguments = (theirs, target, list(requests[part::processes]), workers, connections, part)
            process = context.Process(target=_generate, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            _received(pipe, 2 * _PATIENCE)

    @property
    def ids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self._processes if process.pid]

    def point(self, rate: float, window: Window) -> Point:
        """Offer `rate` requests a second in all, as a Poisson process: a sum of Poisson processes is one."""
        for pipe in self._pipes:
            pipe.send((rate / len(self._pipes), window))
        patience = window.warmup + window.seconds + window.timeout + _PATIENCE
        return merged([_received(pipe, patience) for pipe in self._pipes]).point(window, offered=True)

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()


def merged(logs: Sequence[Log]) -> Log:
    """One log of several, whose times are counted from the end of each one's own warm-up."""
    whole = Log(0.0)
    for log in logs:
        whole.methods += log.methods
        whole.codes += log.codes
        whole.times += (np.array(log.times, np.float64) - log.begin).tolist()
        for stage, values in log.stages.items():
            whole.stages[stage] += values
        whole.degraded += log.degraded
        whole.empty += log.empty
    return whole


def _received(pipe: Connection, patience: float) -> Any:
    """What a generator sends next. Raises `RuntimeError` with its reason, or where it is silent for `patience`."""
    if not pipe.poll(patience):
        raise RuntimeError(f"A generator of load has been silent for {patience:g} s.")
    try:
        told = pipe.recv()
    except EOFError:
        raise RuntimeError("A generator of load has ended by itself.") from None
    if isinstance(told, str):
        raise RuntimeError(f"A generator of load failed: {told}")
    return told


def _generate(
    pipe: Connection, target: str, requests: Sequence[Request], workers: int, connections: int, seed: int
) -> None:
    with precise_runner() as runner:
        try:
            runner.run(_offer(pipe, target, requests, workers, connections, seed))
        except EOFError:
            return
        except Exception as error:  # The parent waits for a word.
            pipe.send(f"{type(error).__name__}: {error}")


async def _offer(
    pipe: Connection, target: str, requests: Sequence[Request], workers: int, connections: int, seed: int
) -> None:
    rng, turn = np.random.default_rng([seed, 11]), 0
    async with aclosing(Kept(target, connections)) as client:
        await client.spread(workers)
        pipe.send(())
        while True:
            rate, window = await asyncio.to_thread(pipe.recv)
            offsets = load.schedule(rate, window, Arrivals.POISSON, rng)
            mine = [requests[(turn + i) % len(requests)] for i in range(len(offsets))]
            turn += len(mine)
            client.log = Log(0.0)
            await load.open_loop(client, mine, offsets, window)
            pipe.send(client.log)
