"""Inverted lists of codes on a card; on the CPU the same code runs, in float32 and in half precision."""

import gc
import logging
import weakref
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from card_forms import CPU, FORMS, crowded, unit

from indexer import card_lists, fallbacks
from indexer.arrays import Floats
from indexer.card import BATCH
from indexer.card_lists import CardLists, lists_of, size_on_card
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex
from indexer.exact import ExactIndex
from indexer.index import NOTHING
from indexer.owner import OneThread
from indexer.tuning import measure_recall

CONFIG = IndexerConfig(nprobe=4, device="cpu")
ROWS = 3_000
# Several blocks of a search and several pieces of a filter.
SMALL = {"block": 2**14, "picked": 500}
Make = Callable[..., CardLists]


def coded(vectors: Floats, kind: str = "IVF16,PQ12x4fsr", config: IndexerConfig = CONFIG) -> DenseIndex:
    return DenseIndex.build(kind, vectors, config).extended(vectors)


@pytest.fixture(params=FORMS)
def make(request: pytest.FixtureRequest) -> Make:
    place, dtype = request.param

    def made(vectors: Floats, own: DenseIndex | None = None, **options: int) -> CardLists:
        return CardLists(coded(vectors) if own is None else own, vectors, torch.device(place), dtype, **options)

    return made


@pytest.mark.parametrize(
    ("dimensions", "kind"),
    [(24, "IVF16,PQ12x4fs"), (24, "IVF16,PQ3x4fs"), (15, "IVF16,PQ15x4fs"), (24, "IVF16,PQ12x4fsr")],
)
def test_the_lists_are_the_indexs(dimensions: int, kind: str, tmp_path: Path) -> None:
    """Read from a file that is mapped: every row once, with what its code stands for."""
    vectors = unit(ROWS, dimensions)
    coded(vectors, kind).save(tmp_path)
    index = DenseIndex.load(kind, tmp_path, vectors, CONFIG)
    lists, fast = lists_of(index), index.lists
    assert fast is not None
    assert sorted(lists.rows.tolist()) == list(range(ROWS))
    np.testing.assert_array_equal(lists.centres, fast.quantizer.reconstruct_n(0, 16))
    _, nearest = fast.quantizer.search(vectors, 1)
    for number in range(16):
        rows = lists.rows[lists.starts[number] : lists.starts[number + 1]]
        assert (nearest[rows, 0] == number).all()
    stands_for = np.concatenate([lists.words[at, lists.codes[:, at]] for at in range(lists.codes.shape[1])], axis=1)
    assert lists.residual == kind.endswith("r")
    beside = np.repeat(lists.centres, np.diff(lists.starts), axis=0) if lists.residual else 0
    expected = fast.pq.decode(fast.pq.compute_codes(np.ascontiguousarray(vectors[lists.rows] - beside)))
    np.testing.assert_array_equal(stands_for[:, :dimensions], expected)
    assert (stands_for[:, dimensions:] == 0).all()
    # It is searched as before.
    assert index.search(vectors[:1], 1).rows[0, 0] == 0


@pytest.mark.parametrize("kind", ["Flat", "HNSW8", "IVF4,Flat", "IVF4,PQ12x8"])
def test_another_kind_is_not_searched_on_a_card(kind: str) -> None:
    assert size_on_card(coded(unit(300), kind)) is None


@pytest.mark.parametrize(("dimensions", "kind"), [(24, "IVF16,PQ12x4fs"), (15, "IVF16,PQ15x4fs")])
def test_its_size_is_known_before_it_is_there(dimensions: int, kind: str) -> None:
    vectors = unit(ROWS, dimensions)
    own = coded(vectors, kind)
    index = CardLists(own, vectors, CPU)
    size = size_on_card(own)
    assert size is not None
    # But for what the values of a code stand for, and the end of the last list.
    words = lists_of(own).words
    assert size <= index.size <= size + words.nbytes + 4 * len(words) + 8
    assert size < ROWS * dimensions * 2


@pytest.mark.parametrize("count", [1, 7, BATCH + 3])
@pytest.mark.parametrize("options", [{}, SMALL])
@pytest.mark.parametrize("kind", ["IVF16,PQ12x4fs", "IVF16,PQ12x4fsr"])
def test_it_finds_what_the_cpu_finds_in_the_same_lists(
    make: Make, count: int, options: dict[str, int], kind: str
) -> None:
    vectors, queries = unit(ROWS), unit(count, seed=1)
    own = coded(vectors, kind)
    found, expected = make(vectors, own, **options).search(queries, 10), own.search(queries, 10)
    # The CPU adds up eight bits of each part's score.
    assert (found.rows == expected.rows).mean() > 0.99
    assert (found.scores[:, 0] >= expected.scores[:, 0] - 1e-6).all()
    assert np.isclose(found.scores, expected.scores, atol=1e-6).mean() > 0.99


def test_a_querys_answer_does_not_depend_on_what_is_asked_beside_it(make: Make) -> None:
    """Each looks into its own lists only, though those of all are scored for all."""
    vectors, queries = unit(ROWS), unit(40, seed=1)
    index = make(vectors, coded(vectors, config=CONFIG.model_copy(update={"nprobe": 1})), **SMALL)
    together = index.search(queries, 30)
    for place, query in enumerate(queries):
        alone = index.search(query[None], 30)
        np.testing.assert_array_equal(alone.rows[0], together.rows[place])
        np.testing.assert_array_equal(alone.scores[0], together.scores[place])


@pytest.mark.parametrize("probes", [1, 4, 16, 100])
def test_it_looks_into_as_many_lists_as_its_index(make: Make, probes: int) -> None:
    vectors, queries = unit(ROWS), unit(20, seed=1)
    own = coded(vectors, config=IndexerConfig(nprobe=probes, device="cpu"))
    index = make(vectors, own, **SMALL)
    lists = lists_of(own)
    list_of = np.empty(ROWS, np.int64)
    list_of[lists.rows] = np.repeat(np.arange(16), np.diff(lists.starts))
    nearest = np.argsort(-(queries @ lists.centres.T), axis=1)[:, :probes]
    rows = index.search(queries, 2_000).rows
    for place in range(len(queries)):
        found = rows[place][rows[place] != NOTHING]
        assert np.isin(list_of[found], nearest[place]).all()
        assert len(found) == min(np.isin(list_of, nearest[place]).sum(), 2_000)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.01])
def test_under_a_filter_all_that_it_keeps_is_compared(make: Make, share: float) -> None:
    """Not only what is in the nearest lists: the mask keeps what is far from every query."""
    vectors, queries = unit(ROWS), unit(1, seed=1).repeat(3, axis=0)
    mask = np.zeros(ROWS, bool)
    mask[np.argsort(vectors @ queries[0])[: round(share * ROWS)]] = True
    # Many of those score nearly alike: four bits for each component tell them apart.
    own = coded(vectors, "IVF16,PQ24x4fsr", IndexerConfig(nprobe=1, device="cpu"))
    index = make(vectors, own, **SMALL)
    found, expected = index.search(queries, 10, mask), ExactIndex(vectors).search(queries, 10, mask)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_each_query_under_its_own_mask(make: Make) -> None:
    vectors, queries = unit(ROWS), unit(9, seed=1)
    one, other = (np.random.default_rng(seed).random(ROWS) < 0.3 for seed in (2, 3))
    bits = np.packbits(other, bitorder="little")
    masks = [one, None, other, np.zeros(ROWS, bool), bits, one, None, np.ones(ROWS, bool), bits]
    index = make(vectors, **SMALL)
    found = index.search_each(queries, 10, masks)
    for place, mask in enumerate(masks):
        alone = index.search(queries[[place]], 10, other if mask is bits else mask)
        np.testing.assert_array_equal(found.rows[place], alone.rows[0])
        np.testing.assert_array_equal(found.scores[place], alone.scores[0])
    assert (found.rows[3] == NOTHING).all()


def test_ties_come_by_row_and_what_is_not_there_is_filled_up(make: Make) -> None:
    vectors = np.repeat(unit(60), 50, axis=0)
    index = make(vectors, coded(vectors, config=IndexerConfig(nprobe=16, device="cpu")))
    rows, scores = index.search(vectors[[60]], 70)
    assert rows[0, :50].tolist() == list(range(50, 100))
    mask = np.arange(ROWS) < 3
    rows, scores = index.search(vectors[:2], 5, mask)
    assert sorted(rows[0, :3].tolist()) == [0, 1, 2]
    assert (rows[:, 3:] == NOTHING).all()
    assert (scores[:, 3:] == -np.inf).all()


def test_an_index_of_no_rows_finds_nothing(make: Make) -> None:
    own = DenseIndex.build("IVF4,PQ12x4fs", unit(300), CONFIG)
    rows, scores = make(unit(0), own).search(unit(2, seed=1), 3)
    assert (rows == NOTHING).all()
    assert (scores == -np.inf).all()


def test_near_ties_are_scored_by_the_vectors(make: Make) -> None:
    """Their codes are nearly all equal, so that only some are found; but in their true order."""
    vectors = crowded(ROWS, 1e-3)
    rows, scores = make(vectors).search(vectors[:5], 20)
    np.testing.assert_allclose(scores, np.take_along_axis(vectors[:5] @ vectors.T, rows, 1), atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_blocks_stay_within_their_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(ROWS)
    index = CardLists(coded(vectors, config=IndexerConfig(nprobe=16, device="cpu")), vectors, CPU, block=24 * 4 * 250)
    seen: list[int] = []
    decoded = index._decoded

    def watched(places: torch.Tensor) -> torch.Tensor:
        seen.append(len(places))
        return decoded(places)

    monkeypatch.setattr(index, "_decoded", watched)
    largest = int(index._sizes.max())
    assert largest < 250 * 2
    for queries in (1, 100):
        step = 250 if queries == 1 else 60
        for mask in (None, np.ones(ROWS, bool)):
            seen.clear()
            index.search(unit(queries, seed=1), 5, mask)
            assert sum(seen) == ROWS
            # A list is not cut, a filter's rows are.
            assert max(seen) <= (max(step, largest) if mask is None else step)


@pytest.mark.parametrize("masked", [False, True])
def test_nothing_of_a_search_is_left_on_another_device(masked: bool) -> None:
    """What a block costs is computed on the `meta` device, which refuses to mix with the CPU as a card does."""
    vectors = unit(ROWS)
    index = CardLists(coded(vectors), vectors, CPU, torch.float16)
    meta = torch.device("meta")
    index._device, index._owner = meta, OneThread(meta)
    for name in ("_centres", "_starts", "_rows", "_codes", "_words", "_bytes"):
        setattr(index, name, getattr(index, name).to(meta))
    places = torch.arange(70, device=meta)
    made = index._owner.run(lambda: index._decoded(places))
    assert (made.device, made.shape, made.dtype) == (meta, (70, 24), torch.float16)
    hidden = torch.zeros((8, 70), dtype=torch.bool, device=meta) if masked else None
    block = card_lists._Block(places, torch.zeros_like(places), hidden)
    queries, centres = torch.empty((8, 24), dtype=torch.float16, device=meta), torch.empty((8, 16), device=meta)
    scored = index._owner.run(lambda: index._merge(index._nothing(8), queries, centres, block, 20))
    assert [each.device for each in scored] == [meta] * 2
    assert [each.shape for each in scored] == [(8, 20)] * 2


def test_a_card_without_memory_left_is_stood_in_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vectors, queries = unit(ROWS), unit(5, seed=1)
    own = coded(vectors)
    index = CardLists(own, vectors, CPU)
    mask = np.arange(ROWS) % 2 == 0

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(index, "_candidates", full)
    before = fallbacks.counted().get("search", 0)
    with caplog.at_level(logging.WARNING):
        found = index.search_each(queries, 4, [None, mask, None, mask, None])
    assert [record.getMessage() for record in caplog.records] == [
        "The CPU searches in place of cpu, which has no memory left: none left"
    ]
    assert fallbacks.counted()["search"] == before + 5
    for place, kept in enumerate([None, mask, None, mask, None]):
        np.testing.assert_array_equal(found.rows[place], own.search(queries[[place]], 4, kept).rows[0])


def test_what_does_not_fit_is_refused() -> None:
    vectors = unit(300)
    index = CardLists(coded(vectors), vectors, CPU)
    with pytest.raises(ValueError, match=r"queries of shape \(2, 7\), \(2, 24\) expected"):
        index.search(unit(2, dimensions=7), 3)
    with pytest.raises(ValueError, match=r"a mask has the shape \(301,\), \(300,\) expected"):
        index.search(unit(2), 3, np.ones(301, bool))


def test_it_is_freed_with_its_last_reference() -> None:
    vectors = unit(ROWS)
    index = CardLists(coded(vectors), vectors, CPU, torch.float16)
    index.search(unit(3, seed=1), 5, np.arange(ROWS) % 2 == 0)
    tables = [weakref.ref(index._codes), weakref.ref(index._rows)]
    gc.disable()
    try:
        # At once, not at the next collection: the next release needs the room.
        del index
        assert [table() for table in tables] == [None, None]
    finally:
        gc.enable()


def test_what_is_saved_is_opened_by_the_cpu(tmp_path: Path) -> None:
    vectors = unit(ROWS)
    own = coded(vectors)
    CardLists(own, vectors, CPU).save(tmp_path)
    again = DenseIndex.load("IVF16,PQ12x4fs", tmp_path, vectors, CONFIG)
    np.testing.assert_array_equal(again.search(vectors[:9], 5).rows, own.search(vectors[:9], 5).rows)
    assert isinstance(again.lists, faiss.IndexIVFPQFastScan)


def test_the_codes_choose_what_is_scored_by_the_vectors(make: Make) -> None:
    """Of what is scored anew a random choice would find a sixth; the centre counts as much as what is beside it."""
    vectors, queries = unit(ROWS), unit(50, seed=1)
    own = coded(vectors, config=IndexerConfig(nprobe=16, device="cpu"))
    index, exact = make(vectors, own), ExactIndex(vectors)
    mask = np.random.default_rng(0).random(ROWS) < 0.9
    for kept in (None, mask):
        found, expected = index.search(queries, 20, kept).rows, exact.search(queries, 20, kept).rows
        assert np.mean([len(set(a) & set(b)) / 20 for a, b in zip(found, expected, strict=True)]) > 0.97


def test_lists_whose_centres_are_searched_by_codes(make: Make) -> None:
    vectors, queries = unit(6_000), unit(20, seed=1)
    own = coded(vectors, "IVF1024,PQ12x4fsr", IndexerConfig(nprobe=100, device="cpu"))
    lists = lists_of(own)
    assert lists.centres.shape == (1_024, 24)
    # The card looks into the nearest lists, the CPU into nearly those.
    exact = ExactIndex(vectors)
    on_card, on_cpu = (measure_recall(index, exact, queries, 10) for index in (make(vectors, own), own))
    assert on_card > 0.8
    assert on_cpu == pytest.approx(on_card, abs=0.05)
