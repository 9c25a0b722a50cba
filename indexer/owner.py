"""Whose thread computes on a device: a card's one owner, with its own stream and memory; on the CPU the caller's."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Protocol, TypeVar

import torch

T = TypeVar("T")


class Owner(Protocol):
    """Runs work on a device. What several callers ask of a card is done one after the other, in the order asked."""

    def run(self, work: Callable[[], T]) -> T:
        """What `work` returns; what it raises is raised here, and the owner goes on with the next."""

    def scratch(self, size: int) -> torch.Tensor:
        """`size` bytes on the device, uint8, for the running work only."""


class Caller:
    """The CPU needs no owner: work is done where it is asked for, several at a time."""

    def run(self, work: Callable[[], T]) -> T:
        """See `Owner.run`."""
        with torch.inference_mode():
            return work()

    def scratch(self, size: int) -> torch.Tensor:
        """See `Owner.scratch`."""
        return torch.empty(size, dtype=torch.uint8)


class OneThread:
    """A thread that alone uses a device.

    A CUDA stream is current to one thread, FAISS's GPU resources must not be used by two, and requests that wait for
    one card gain nothing by waiting inside the driver.
    """

    def __init__(self, device: torch.device, start: Callable[[], None] = lambda: None) -> None:
        """`start` is called in the thread before its first work."""
        self._device = device
        self._start = start
        self._thread: int | None = None
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._pool = ThreadPoolExecutor(1, f"owner of {device}", self._begin)

    def run(self, work: Callable[[], T]) -> T:
        """See `Owner.run`. Work that asks for more work has it done at once: the thread would wait for itself."""
        if threading.get_ident() == self._thread:
            return work()
        return self._pool.submit(self._do, work).result()

    def scratch(self, size: int) -> torch.Tensor:
        """See `Owner.scratch`. The same memory each time, made anew where more is asked for."""
        if len(self._scratch) < size:
            # Let go before the larger piece is asked for.
            self._scratch = torch.empty(0, dtype=torch.uint8)
            self._scratch = torch.empty(size, dtype=torch.uint8, device=self._device)
        return self._scratch[:size]

    def _begin(self) -> None:
        self._thread = threading.get_ident()
        self._start()

    def _do(self, work: Callable[[], T]) -> T:
        with torch.inference_mode():
            return work()


def owner_of(device: torch.device) -> Owner:
    """The one owner of a device in this process."""
    if device.type == "cpu":
        return Caller()
    # Two that ask at once for a card which nobody has used yet must get the same one.
    with _making:
        return _made(device.type, device.index or 0)


_making = threading.Lock()


@cache
def _made(kind: str, number: int) -> Owner:
    device = torch.device(kind, number)

    def start() -> None:
        torch.cuda.set_device(device)
        torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]

    return OneThread(device, start)
