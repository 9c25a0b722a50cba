"""Work on a card, recorded once for a shape and replayed on other inputs: CUDA graphs, and the seam they are behind."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

Work = Callable[..., torch.Tensor]

# How often work is done before it is recorded: libraries allocate and choose their kernels in the first calls.
_WARM_UP = 3
# Graphs whose recording failed: in some versions PyTorch's allocator keeps a bare pointer to one that did not end.
_failed: list[torch.cuda.CUDAGraph] = []


class Captured(Protocol):
    """Recorded work. All calls are made in the thread that recorded it."""

    def replay(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """What the work makes of `inputs`, on any device, of the shapes it was recorded with.

        The result is overwritten by the next replay of whatever the same recorder recorded, so whoever wants to keep
        it copies it first, on the same stream.
        """


class Recorder(Protocol):
    """Records work."""

    def record(self, work: Work, inputs: Sequence[torch.Tensor]) -> Captured:
        """`work`, which is called with tensors like `inputs` on the device. Raises whatever capturing it raises."""


class Graphs:
    """Records CUDA graphs, all of which share one pool of memory: they are replayed one after the other.

    To be made and used in the thread that owns the card.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def record(self, work: Work, inputs: Sequence[torch.Tensor]) -> Captured:
        """See `Recorder.record`."""
        fixed = [each.to(self._device, copy=True) for each in inputs]
        own = torch.cuda.current_stream(self._device)
        # Warmed up on the stream that is captured, whose cuBLAS workspace is then there.
        self._stream.wait_stream(own)
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP):
                work(*fixed)
        own.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may allocate (pinned) memory meanwhile, which is an error in the default mode.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                result = work(*fixed)
        except BaseException:
            self._abandon(graph, own)
            raise
        return _Graph(graph, fixed, result)

    def _abandon(self, graph: torch.cuda.CUDAGraph, own: torch.cuda.Stream) -> None:
        """Undo what a capture that did not end leaves: its stream as the current one, its pool as the allocator's."""
        torch.cuda.set_stream(own)
        _failed.append(graph)
        # PyTorch 2.7 does not have it, and it raises where the capture did end, as after an exception of Python's.
        with contextlib.suppress(AttributeError, RuntimeError):
            torch._C._cuda_endAllocateToPool(self._device.index or 0, self._pool)


def graphs_of(device: torch.device) -> Recorder | None:
    """What records on a device: the CPU has nothing that would."""
    return Graphs(device) if device.type == "cuda" else None


class _Graph:
    """One CUDA graph with the memory it reads and writes."""

    def __init__(self, graph: torch.cuda.CUDAGraph, fixed: Sequence[torch.Tensor], result: torch.Tensor) -> None:
        self._graph, self._fixed, self._result = graph, fixed, result

    def replay(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `Captured.replay`."""
        for fixed, given in zip(self._fixed, inputs, strict=True):
            fixed.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._result
