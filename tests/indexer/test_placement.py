import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from card_forms import unit

from indexer import dense, fallbacks, placement
from indexer.arrays import Floats, Mask
from indexer.card import CardIndex
from indexer.card_lists import CardLists
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex, open_index
from indexer.errors import ConfigError
from indexer.exact import ExactIndex
from indexer.index import Neighbours
from indexer.placement import Coded, Residents, coded_in, fault_of, fault_of_lists, on_card, placed
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
    for tried in (fault_of, fault_of_lists):
        tried.cache_clear()
    yield
    for tried in (fault_of, fault_of_lists):
        tried.cache_clear()


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
    monkeypatch.setattr(placement, "placed", lambda _, shelf, device, **__: asked.append((shelf, device)))
    on_card(VECTORS, tmp_path / "indexes" / "7", IndexerConfig())
    assert asked == [("indexes", torch.device(place))]


def test_where_there_is_room_the_index_is_placed_and_counted_while_it_lives() -> None:
    residents = Residents()
    index = placed(VECTORS, "indexes", CPU, memory(10**6), residents)
    assert index is not None
    assert index.search(VECTORS[:1], 1).rows.tolist() == [[0]]
    assert residents.of(CPU) == [("indexes", SIZE, "full")]
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


# Half a byte for each two of 16 components, a row's number and 16 centres: less than the 32 bytes of half precision.
CODED = unit(2_000, 16)
OF_CODES = 2_000 * (4 + 4) + 16 * (4 * 16 + 8)


def coded(kind: str = "IVF16,PQ8x4fsr") -> DenseIndex:
    return DenseIndex.build(kind, CODED, IndexerConfig(nprobe=16, device="cpu")).extended(CODED)


def test_where_vectors_do_not_fit_their_codes_are_placed(caplog: pytest.LogCaptureFixture) -> None:
    residents = Residents()
    with caplog.at_level(logging.INFO):
        index = placed(CODED, "indexes", CPU, memory(2 * OF_CODES), residents, coded=coded)
    assert isinstance(index, CardLists)
    assert index.kind == "IVF16,PQ8x4r on cpu (float32)"
    assert residents.of(CPU) == [("indexes", index.size, "codes")]
    warned, told = (record.getMessage() for record in caplog.records)
    assert warned.startswith("cpu searches codes in place of vectors: 2,000 vectors of 16 need")
    assert told.startswith("2000 vectors are searched on cpu, codes:")
    exact, mask = ExactIndex(CODED), np.arange(2_000) % 2 == 0
    np.testing.assert_array_equal(index.search(CODED[:5], 9).rows, exact.search(CODED[:5], 9).rows)
    np.testing.assert_array_equal(index.search(CODED[:5], 9, mask).rows, exact.search(CODED[:5], 9, mask).rows)
    del index
    assert residents.of(CPU) == []


def test_where_vectors_fit_nobody_asks_for_codes() -> None:
    index = placed(CODED, "indexes", CPU, memory(10**9), Residents(), coded=lambda: pytest.fail("not to be opened"))
    assert isinstance(index, CardIndex)


def test_after_codes_come_codes_so_that_every_swap_has_its_room() -> None:
    residents = Residents()
    first = placed(CODED, "indexes", CPU, memory(2 * OF_CODES), residents, coded=coded)
    second = placed(CODED, "indexes", CPU, memory(10**9), residents, coded=coded)
    assert isinstance(first, CardLists)
    assert isinstance(second, CardLists)
    del first, second
    assert isinstance(placed(CODED, "indexes", CPU, memory(10**9), residents, coded=coded), CardIndex)


def told_refusal(free: int, opened: Coded, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert placed(CODED, "indexes", CPU, memory(free), Residents(), coded=opened) is None
    [record] = caplog.records
    return record.getMessage()


def test_where_neither_fits_both_are_told(caplog: pytest.LogCaptureFixture) -> None:
    told = told_refusal(2 * OF_CODES - 1, coded, caplog)
    assert told.startswith("The CPU searches in place of cpu: 2,000 vectors of 16 need ")
    assert "; their codes, of 2,000 vectors of 16, need " in told


def test_an_index_without_such_codes_is_searched_by_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    for opened in (lambda: None, lambda: coded("IVF16,Flat")):
        assert "codes" not in told_refusal(2 * OF_CODES, opened, caplog)


@pytest.mark.parametrize("scores", ["wrong", "failing"])
def test_a_device_whose_codes_score_wrongly_is_not_used(
    scores: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def decoded(self: CardLists, places: torch.Tensor) -> torch.Tensor:
        if scores == "failing":
            raise RuntimeError("no kernel image is available")
        return torch.zeros((len(places), self._words.shape[1] * len(self._bytes)))

    monkeypatch.setattr(CardLists, "_decoded", decoded)
    told = told_refusal(2 * OF_CODES, coded, caplog)
    wrong = scores == "wrong"
    assert told.endswith(" finds other neighbours than the CPU." if wrong else "failed: no kernel image is available.")
    assert "; a search of codes on cpu " in told


def test_the_codes_of_a_folder_are_opened_as_they_were_tuned(tmp_path: Path) -> None:
    config = IndexerConfig(device="cpu")
    assert coded_in(tmp_path, CODED, config) is None
    for kind, found in (("IVF16,PQ8x4fsr", True), ("HNSW8", False)):
        index = DenseIndex.build(kind, CODED, config).extended(CODED)
        index.with_tuning(replace(index.tuning, effort=11)).save(tmp_path)
        opened = coded_in(tmp_path, CODED, config)
        assert (opened is not None) == found
        if opened is not None:
            assert opened.tuning.effort == 11
            assert coded_in(tmp_path, CODED, IndexerConfig(device="cpu", nprobe=3)).tuning.effort == 3


@pytest.mark.gpu
def test_a_card_searches_codes() -> None:
    device = torch.device("cuda:0")
    assert fault_of_lists(device) is None
    index = placed(CODED, "indexes", device, memory(2 * OF_CODES), Residents(), coded=coded)
    assert index is not None
    assert index.kind == "IVF16,PQ8x4r on cuda:0 (float16)"


@pytest.mark.gpu
def test_a_card_works_and_has_memory(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    device = torch.device("cuda:0")
    assert fault_of(device) is None
    free, total = card_memory(device)
    assert 0 < free <= total
    index = open_index("HNSW16", tmp_path / "indexes" / "1", VECTORS, IndexerConfig(device="cuda:0"))
    assert index.kind == "exact on cuda:0 (float16)"
