"""In which order a card is asked, and what a failure leaves; what it answers is tested in test_card_encoder."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from indexer import captured
from indexer.captured import Graphs

CPU = torch.device("cpu")


class Stream:
    def __init__(self, name: str) -> None:
        self.name = name

    def wait_stream(self, other: "Stream") -> None:
        Driver.told.append(f"{self.name} waits for {other.name}")


class Driver:
    """What `torch.cuda` would be asked; a capture fails at its end where the work failed, and then stays current."""

    told: list[str]
    current: Stream
    ends: bool

    class Graph:
        def replay(self) -> None:
            Driver.told.append("replayed")

    @staticmethod
    @contextlib.contextmanager
    def capture(graph: Any, pool: int, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        assert (pool, capture_error_mode) == (7, "thread_local")
        own, Driver.current = Driver.current, stream
        try:
            yield
        except RuntimeError as error:
            if not Driver.ends:
                raise RuntimeError("capture was invalidated") from error
            Driver.current = own
            raise
        Driver.current = own

    @staticmethod
    @contextlib.contextmanager
    def stream(stream: Stream) -> Iterator[None]:
        own, Driver.current = Driver.current, stream
        yield
        Driver.current = own

    @staticmethod
    def end(device: int, pool: int) -> None:
        assert (device, pool) == (0, 7)
        if Driver.ends:
            raise RuntimeError("not currently recording to mempool_id")
        Driver.told.append("pool ended")


@pytest.fixture(autouse=True)
def _driver(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver.told, Driver.current, Driver.ends = [], Stream("own"), True
    for name, value in {
        "graph_pool_handle": lambda: 7,
        "Stream": lambda _: Stream("side"),
        "current_stream": lambda _: Driver.current,
        "set_stream": lambda stream: setattr(Driver, "current", stream),
        "stream": Driver.stream,
        "CUDAGraph": Driver.Graph,
        "graph": Driver.capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", Driver.end, raising=False)
    monkeypatch.setattr(captured, "_failed", [])


def test_work_is_warmed_up_and_recorded_on_one_stream_and_replayed_on_what_is_given() -> None:
    seen: list[torch.Tensor] = []

    def work(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        Driver.told.append(f"work on {Driver.current.name}: {one.tolist()}")
        seen[:] = [one, other]
        return one + other

    given = torch.tensor([1]), torch.tensor([2])
    graph = Graphs(CPU).record(work, given)
    assert Driver.told == ["side waits for own", *["work on side: [1]"] * 3, "own waits for side", "work on side: [1]"]
    assert Driver.current.name == "own"
    # Recorded on memory of its own, into which a replay copies what it is given.
    assert seen[0] is not given[0]
    assert graph.replay([torch.tensor([5]), torch.tensor([6])]).tolist() == [3]
    assert [each.tolist() for each in seen] == [[5], [6]]
    assert (Driver.told[-1], [each.tolist() for each in given]) == ("replayed", [[1], [2]])


@pytest.mark.parametrize("ends", [True, False])
def test_after_a_failure_the_thread_is_on_its_own_stream_and_its_memory_is_its_own(ends: bool) -> None:
    Driver.ends = ends
    calls: list[int] = []

    def work(one: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("operation not permitted when stream is capturing")
        return one

    with pytest.raises(RuntimeError, match="not permitted" if ends else "invalidated") as raised:
        Graphs(CPU).record(work, [torch.tensor([1])])
    if not ends:
        assert "not permitted" in str(raised.value.__context__)
    assert Driver.current.name == "own"
    assert ("pool ended" in Driver.told) is not ends
    # The allocator may point to it still.
    assert len(captured._failed) == 1
