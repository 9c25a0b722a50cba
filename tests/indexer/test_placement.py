import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer import dense, fallbacks, placement
from indexer.arrays import Floats, Mask
from indexer.card import CardIndex
from indexer.config import IndexerConfig
from indexer.dense import open_index
from indexer.errors import ConfigError
from indexer.exact import ExactIndex
from indexer.index import Neighbours
from indexer.placement import Residents, fault_of, on_card, placed
from indexer.room import RESERVE, card_memory

# Everything but the card itself.
CPU = torch.device("cpu")
VECTORS = np.eye(8, 16, dtype=np.float32)
SIZE = 8 * 16 * 4
# What a first index with its float32 vectors must find: itself and its successor, and two without them.
FIRST = 2 * 8 * 16 * 6 + 2 * 8 * 16 * 2


def memory(free: int) -> placement.Memory:
    return lambda _: (RESERVE + free, RESERVE + 10**9)


@pytest.fixture(autouse=True)
def _tried_anew() -> Iterator[None]:
    fault_of.cache_clear()
    yield
    fault_of.cache_clear()


def test_without_a_card_the_index_is_the_manifests(tmp_path: Path) -> None:
    for wanted in ("auto", "cpu"):
        assert on_card(VECTORS, tmp_path, IndexerConfig(device=wanted)) is None
        assert isinstance(open_index("exact", tmp_path, VECTORS, IndexerConfig(device=wanted)), ExactIndex)


def test_a_card_that_is_asked_for_and_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='device = "cuda:7"'):
        open_index("exact", tmp_path, VECTORS, IndexerConfig(device="cuda:7"))


@pytest.mark.parametrize("kind", ["exact", "HNSW16", "IVF16,Flat"])
def test_with_a_card_every_kind_is_opened_on_it(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = CardIndex(VECTORS, CPU)
    opened_on(index, monkeypatch)
    # There is no dense.faiss to read.
    assert open_index(kind, tmp_path, VECTORS, IndexerConfig()) is index


def opened_on(index: CardIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `open_index` find a card that holds `index`."""
    monkeypatch.setattr(dense, "card", lambda _: torch.device("cuda:0"))
    monkeypatch.setattr(placement, "on_card", lambda *_: index)


def test_an_empty_index_on_a_card_is_an_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = CardIndex(VECTORS[:0], CPU)
    opened_on(index, monkeypatch)
    assert open_index("exact", tmp_path, VECTORS[:0], IndexerConfig()) is index


@pytest.mark.parametrize(("chosen", "place"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_the_chosen_card_is_asked_with_the_shelf(
    chosen: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, torch.device]] = []
    monkeypatch.setattr(placement, "card", lambda _: torch.device(chosen))
    monkeypatch.setattr(placement, "placed", lambda _, shelf, device: asked.append((shelf, device)))
    on_card(VECTORS, tmp_path / "indexes" / "7", IndexerConfig())
    assert asked == [("indexes", torch.device(place))]


def test_where_there_is_room_the_index_is_placed_and_counted_while_it_lives() -> None:
    residents = Residents()
    index = placed(VECTORS, "indexes", CPU, memory(10**6), residents)
    assert index is not None
    assert index.search(VECTORS[:1], 1).rows.tolist() == [[0]]
    assert residents.of(CPU) == [("indexes", SIZE, True)]
    assert residents.of(torch.device("cuda:0")) == []
    del index
    assert residents.of(CPU) == []


def test_at_a_swap_both_releases_fit_or_the_cpu_takes_over(caplog: pytest.LogCaptureFixture) -> None:
    residents = Residents()
    with caplog.at_level(logging.WARNING):
        assert placed(VECTORS, "indexes", CPU, memory(8 * 16 * 2 * 2 - 1), residents) is None
        old = placed(VECTORS, "indexes", CPU, memory(FIRST), residents)
        new = placed(VECTORS, "indexes", CPU, memory(8 * 16 * 6), residents)
        assert old
        assert new
        assert len(residents.of(CPU)) == 2
        assert placed(VECTORS, "indexes", CPU, memory(0), residents) is None
    first, second = (record.getMessage() for record in caplog.records)
    assert "The CPU searches in place of cpu: 8 vectors of 16 need" in first
    assert "for the release that follows" in first
    assert "for the release that follows" not in second


def test_a_tight_card_holds_half_precision_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[bool] = []

    class Watched(CardIndex):
        def __init__(self, vectors: Floats, device: torch.device, *, resident: bool = True, chunk: int = 64) -> None:
            made.append(resident)
            super().__init__(vectors, device, resident=resident, chunk=chunk)

    monkeypatch.setattr(placement, "CardIndex", Watched)
    assert fault_of(CPU) is None
    made.clear()
    for free in (FIRST, FIRST - 1):
        assert placed(VECTORS, "indexes", CPU, memory(free), Residents())
    assert made == [True, False]


def test_memory_that_went_to_others_meanwhile_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fault_of(CPU)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(placement, "CardIndex", full)
    with caplog.at_level(logging.WARNING):
        assert placed(VECTORS, "indexes", CPU, memory(10**6), Residents()) is None
    assert [record.getMessage() for record in caplog.records] == ["The CPU searches in place of cpu: no memory left."]


def refused(caplog: pytest.LogCaptureFixture) -> str:
    """The warning of a device that was not used."""
    caplog.clear()
    before = fallbacks.counted().get("search", 0)
    with caplog.at_level(logging.WARNING):
        assert placed(VECTORS, "indexes", CPU, memory(10**6), Residents()) is None
    assert fallbacks.counted()["search"] == before + 1
    [record] = caplog.records
    return record.getMessage()


def test_a_device_whose_kernels_do_not_run_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def fails(*_: object) -> Neighbours:
        calls.append(1)
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(CardIndex, "search", fails)
    expected = "The CPU searches in place of cpu: a search on cpu failed: no kernel image is available."
    assert refused(caplog) == expected
    # What was found is not tried again for the next index.
    assert refused(caplog) == expected
    assert len(calls) == 1


def test_a_device_that_finds_something_else_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    search = CardIndex.search

    def wrong(self: CardIndex, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        return search(self, -queries if mask is not None else queries, k, mask)

    monkeypatch.setattr(CardIndex, "search", wrong)
    assert "finds other neighbours than the CPU" in refused(caplog)


def test_a_device_whose_scores_are_noise_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`CardIndex` would answer from the CPU, rightly: that is no reason to use the card."""
    monkeypatch.setattr(torch, "mm", lambda a, b, out: out.fill_(0.5))
    assert "off by more than rounding" in refused(caplog)


@pytest.mark.gpu
def test_a_card_works_and_has_memory(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    device = torch.device("cuda:0")
    assert fault_of(device) is None
    free, total = card_memory(device)
    assert 0 < free <= total
    index = open_index("HNSW16", tmp_path / "indexes" / "1", VECTORS, IndexerConfig(device="cuda:0"))
    assert index.kind == "exact on cuda:0 (float16)"
