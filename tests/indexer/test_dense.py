import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest

from indexer import dense
from indexer.arrays import Floats, Mask
from indexer.config import IndexerConfig
from indexer.dense import FILE, DenseIndex, exact_centres, open_index
from indexer.errors import ConfigError, SnapshotError
from indexer.exact import ExactIndex
from indexer.index import NOTHING, Neighbours
from indexer.planner import Filtered, Point, Tuning

Draw = Callable[[int, int], Floats]
CONFIG = IndexerConfig()


def test_a_word_that_is_no_factory_string_is_named(clustered: Draw) -> None:
    with pytest.raises(ConfigError, match=r'indexer\.index = "Bogus7" is not a FAISS factory string'):
        DenseIndex.build("Bogus7", clustered(10, 1), CONFIG)


def test_too_few_vectors_to_train_on_are_named(clustered: Draw) -> None:
    with pytest.raises(ConfigError, match=r'indexer\.index = "IVF64,Flat" cannot be trained on 10 vectors'):
        DenseIndex.build("IVF64,Flat", clustered(10, 1), CONFIG)


@pytest.mark.parametrize("kind", ["NSG32", "IVF16,Flat,RFlat"])
def test_a_kind_that_cannot_filter_is_refused_when_it_is_built(kind: str, clustered: Draw) -> None:
    with pytest.raises(ConfigError, match="cannot be searched under a filter"):
        DenseIndex.build(kind, clustered(2_000, 1), CONFIG)


@pytest.mark.parametrize("kind", ["PCA16,IVF16,Flat", "PCA16,Flat", "HNSW32,SQ8"])
def test_a_composed_kind_filters_and_visits_nprobe_lists(kind: str, clustered: Draw, tmp_path: Path) -> None:
    vectors, queries = clustered(2_000, 1), clustered(10, 2)
    DenseIndex.build(kind, vectors, CONFIG).extended(vectors).save(tmp_path)
    index = open_index(kind, tmp_path, vectors, CONFIG)
    mask = np.arange(2_000) % 2 == 0
    rows = index.search(queries, 50, mask).rows
    assert (mask[rows] & (rows >= 0)).all()
    # One of sixteen lists holds far fewer.
    assert (index.search(queries, 1_900).rows >= 0).all()


def test_an_empty_index_finds_nothing(clustered: Draw) -> None:
    index = DenseIndex.build("HNSW32", clustered(5, 1), CONFIG)
    assert index.search(clustered(2, 2), 3).rows.tolist() == [[-1, -1, -1], [-1, -1, -1]]


def test_an_index_grows_to_all_vectors(clustered: Draw) -> None:
    vectors = clustered(500, 1)
    index = DenseIndex.build("HNSW32", vectors, CONFIG)
    assert len(index) == 0
    index = index.extended(vectors[:400]).extended(vectors)
    assert len(index) == 500
    assert index.search(vectors[450:], 1).rows[:, 0].tolist() == list(range(450, 500))


def test_k_above_ef_search_still_finds_k(clustered: Draw) -> None:
    vectors = clustered(2_000, 1)
    index = DenseIndex.build("HNSW32", vectors, IndexerConfig(ef_search=4)).extended(vectors)
    assert (index.search(clustered(5, 2), 300).rows >= 0).all()


def test_a_filter_that_keeps_fewer_than_k_is_answered_exactly(clustered: Draw) -> None:
    vectors, queries = clustered(200, 1), clustered(5, 2)
    index = DenseIndex.build("HNSW32", vectors, CONFIG).extended(vectors)
    mask = np.arange(200) < 60
    np.testing.assert_array_equal(
        index.search(queries, 60, mask).rows, ExactIndex(vectors).search(queries, 60, mask).rows
    )


def far_from(query: Floats, vectors: Floats) -> Mask:
    """A mask that keeps the half of the vectors which is farthest from a query [dimensions]."""
    scores = vectors @ query
    return scores < np.median(scores)


def test_a_filter_that_leaves_out_the_neighbourhood_is_answered_exactly(clustered: Draw) -> None:
    vectors, queries = clustered(4_000, 1), clustered(1, 2)
    index = DenseIndex.build("HNSW16", vectors, CONFIG).extended(vectors)
    mask = far_from(queries[0], vectors)
    # The graph never gets there: nothing but exact search finds them.
    assert (index.search_with(128, queries, 50, mask).rows == NOTHING).any()
    found, exact = index.search(queries, 50, mask), ExactIndex(vectors).search(queries, 50, mask)
    np.testing.assert_array_equal(found.rows, exact.rows)


def test_queries_that_a_filtered_graph_leaves_short_are_answered_exactly(clustered: Draw) -> None:
    vectors, queries = clustered(4_000, 1), clustered(6, 2)
    measured = [Filtered(0.0001, 1e9, [Point(100, 1.0, 0.1)]), Filtered(1.0, 1e9, [Point(100, 1.0, 0.1)])]
    tuning = Tuning(0.9, 100, [Point(100, 1.0, 0.1)], measured)
    index = DenseIndex.build("HNSW16", vectors, CONFIG).extended(vectors).with_tuning(tuning)
    # By this table the graph always suffices; of what is near the first query the filter keeps one row of a hundred.
    near = index.search(queries, 100).rows
    mask = far_from(queries[0], vectors)
    mask[near[:, 50]] = True
    short = (index.search_with(100, queries, 60, mask).rows == NOTHING).any(axis=1)
    assert short[0]
    found, exact = index.search(queries, 60, mask), ExactIndex(vectors).search(queries, 60, mask)
    assert (found.rows != NOTHING).all()
    np.testing.assert_array_equal(found.rows[short], exact.rows[short])


def test_the_tuning_says_how_a_filter_is_answered(clustered: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = clustered(4_000, 1), clustered(3, 2)
    mask = np.random.default_rng(0).random(4_000) < 0.5
    index = DenseIndex.build("HNSW16", vectors, CONFIG).extended(vectors)
    efforts: list[int] = []
    search = index.search_with

    def watched(effort: int, queries: Floats, k: int, mask: Mask | None) -> Neighbours:
        efforts.append(effort)
        return search(effort, queries, k, mask)

    for exact_ms, expected in ((0.01, []), (1.0, [400])):
        tuning = Tuning(0.9, 100, [Point(100, 1.0, 0.1)], [Filtered(0.1, exact_ms, [Point(400, 0.95, 0.2)])])
        tuned = index.with_tuning(tuning)
        monkeypatch.setattr(tuned, "search_with", watched)
        efforts.clear()
        tuned.search(queries, 10, mask)
        assert efforts == expected


def test_the_effort_is_the_configurations_before_the_tunings(clustered: Draw) -> None:
    vectors, tuning = clustered(200, 1), Tuning(0.9, 32)
    for kind, key in (("HNSW16", "ef_search"), ("IVF4,Flat", "nprobe")):
        for setting, effort in ((0, 32), (3, 3)):
            index = DenseIndex.build(kind, vectors, IndexerConfig.model_validate({key: setting}))
            assert index.with_tuning(tuning).tuning.effort == effort
    assert DenseIndex.build("Flat", vectors, CONFIG).with_tuning(tuning).tuning.effort == 0


def test_a_graph_is_built_as_wide_as_configured(clustered: Draw) -> None:
    index = DenseIndex.build("PCA16,HNSW16", clustered(200, 1), IndexerConfig(ef_construction=17))
    assert index._inner.hnsw.efConstruction == 17


@pytest.mark.parametrize("share", [None, 0.5])
def test_rows_are_true_wherever_a_graph_keeps_them(
    share: float | None, clustered: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "_BLOCK", 300)
    vectors, queries = clustered(1_000, 1), clustered(10, 2)
    index = DenseIndex.build("HNSW16", vectors, CONFIG).extended(vectors[:900]).extended(vectors)
    index.save(tmp_path)
    mask = None if share is None else np.random.default_rng(0).random(1_000) < share
    for opened in (index, open_index("HNSW16", tmp_path, vectors, CONFIG)):
        assert isinstance(opened, DenseIndex)
        rows, scores = opened.search_with(1_000, queries, 20, mask)
        np.testing.assert_array_equal(rows, ExactIndex(vectors).search(queries, 20, mask).rows)
        np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-5)


def test_vectors_are_added_a_block_at_a_time(clustered: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "_BLOCK", 30)
    vectors = clustered(100, 1)
    added: list[int] = []
    index = DenseIndex.build("Flat", vectors, CONFIG).extended(vectors[:5])
    monkeypatch.setattr(index._index, "add", lambda rows: added.append(len(rows)))
    index.extended(vectors)
    assert added == [30, 30, 30, 5]


def test_another_number_of_rows_is_refused(clustered: Draw, tmp_path: Path) -> None:
    vectors = clustered(50, 1)
    DenseIndex.build("Flat", vectors, CONFIG).extended(vectors).save(tmp_path)
    with pytest.raises(SnapshotError, match="holds 50 vectors, 40 expected"):
        open_index("Flat", tmp_path, vectors[:40], CONFIG)


@pytest.mark.parametrize("content", [None, b"", b"not an index"])
def test_a_damaged_file_is_refused(content: bytes | None, clustered: Draw, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(SnapshotError, match="cannot be read"):
        open_index("Flat", tmp_path, clustered(5, 1), CONFIG)


@pytest.mark.parametrize("kind", ["IVF16,PQ32x4fs", "HNSW32_SQ4", "PCA16,IVF16,Flat", "SQ8"])
def test_what_codes_estimate_is_scored_anew(kind: str, clustered: Draw) -> None:
    vectors, queries = clustered(4_000, 1), clustered(10, 2)
    index = DenseIndex.build(kind, vectors, IndexerConfig(nprobe=16, ef_search=1_000)).extended(vectors)
    mask = np.arange(4_000) % 3 == 0
    for kept in (None, mask):
        found = index.search(queries, 20, kept)
        expected = np.take_along_axis(queries @ vectors.T, found.rows, 1)
        np.testing.assert_allclose(found.scores, expected, atol=1e-5)
        assert (np.diff(found.scores, axis=1) <= 0).all()
        assert kept is None or kept[found.rows].all()
        least = ExactIndex(vectors).search(queries, 20, kept).scores[:, -1:]
        assert (found.scores >= least - 1e-5).mean() > 0.95


def test_lists_are_tried_in_steps_of_at_most_a_half(clustered: Draw) -> None:
    index = DenseIndex.build("IVF16,Flat", clustered(2_000, 1), CONFIG)
    assert list(index.efforts(100)) == [1, 2, 3, 4, 6, 8, 12, 16]


def test_a_file_of_inverted_lists_keeps_its_effort(clustered: Draw, tmp_path: Path) -> None:
    vectors = clustered(2_000, 1)
    index = DenseIndex.build("IVF16,PQ8x4fs", vectors, CONFIG).extended(vectors)
    index.with_tuning(replace(index.tuning, effort=7)).save(tmp_path)
    config = IndexerConfig(device="cpu")
    assert DenseIndex.load("IVF16,PQ8x4fs", tmp_path, vectors, config).tuning.effort == 7
    tuned = Tuning(0.98, 5)
    assert DenseIndex.load("IVF16,PQ8x4fs", tmp_path, vectors, config, tuned).tuning.effort == 5


MANY = "IVF1024,PQ16x4fsr"


@pytest.mark.parametrize("kind", [MANY, "IVF1024,Flat", "PCA16,IVF1024,Flat"])
def test_the_centres_of_many_lists_are_searched_by_codes(kind: str, clustered: Draw, tmp_path: Path) -> None:
    vectors, queries = clustered(6_000, 1), clustered(40, 2)
    index = DenseIndex.build(kind, vectors[:5_000], IndexerConfig(nprobe=100)).extended(vectors)
    lists = index._inner
    centres = exact_centres(lists)
    assert centres is not None
    assert centres.ntotal == 1_024
    asked = index._index.chain.at(0).apply(queries) if kind.startswith("PCA") else queries
    quick, exact = lists.quantizer.search(asked, 100), centres.search(asked, 100)
    np.testing.assert_allclose(quick[0][:, :10], exact[0][:, :10], atol=0.02)
    found = [len(set(a) & set(b)) / 100 for a, b in zip(quick[1], exact[1], strict=True)]
    assert np.mean(found) > 0.9
    index.save(tmp_path)
    opened = DenseIndex.load(kind, tmp_path, vectors, IndexerConfig(nprobe=100))
    assert exact_centres(opened._inner) is not None
    np.testing.assert_array_equal(opened.search(queries, 10).rows, index.search(queries, 10).rows)


def test_every_row_is_in_its_nearest_list(clustered: Draw) -> None:
    """Its codes would put one in ten elsewhere."""
    vectors = clustered(6_000, 1)
    index = DenseIndex.build("IVF1024,Flat", vectors, IndexerConfig(nprobe=1)).extended(vectors)
    lists = index.search_with(1, vectors, 1, None).rows
    nearest = exact_centres(index._inner).search(vectors, 1)[1][:, 0]
    inverted = index._inner.invlists
    for number in range(0, 1_024, 7):
        size = inverted.list_size(number)
        rows = faiss.rev_swig_ptr(inverted.get_ids(number), size).copy() if size else np.empty(0, np.int64)
        np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(nearest == number))
    assert (lists[:, 0] == np.arange(6_000)).mean() > 0.8


def test_few_lists_keep_their_centres_as_they_are(clustered: Draw) -> None:
    index = DenseIndex.build("IVF16,PQ16x4fsr", clustered(2_000, 1), CONFIG)
    assert exact_centres(index._inner) is None


def test_an_index_with_quick_centres_is_freed_once(clustered: Draw) -> None:
    vectors = clustered(6_000, 1)
    for _ in range(3):
        index = DenseIndex.build(MANY, vectors, IndexerConfig(nprobe=10)).extended(vectors)
        assert index.search(vectors[:1], 1).rows[0, 0] == 0
        del index
        gc.collect()


@pytest.mark.parametrize(
    ("kind", "of_100", "of_400"), [("IVF16,PQ16x4fsr", 500, 1_000), ("IVF16,PQ16x4fs", 800, 1_600)]
)
def test_the_more_exact_the_codes_the_fewer_are_scored_anew(
    kind: str, of_100: int, of_400: int, clustered: Draw
) -> None:
    index = DenseIndex.build(kind, clustered(2_000, 1), CONFIG)
    assert (index.candidates(100), index.candidates(400)) == (of_100, of_400)
