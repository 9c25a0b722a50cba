from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.arrays import Floats
from indexer.config import IndexerConfig
from indexer.dense import FILE, DenseIndex, chosen_kind, open_index
from indexer.errors import ConfigError, SnapshotError
from indexer.exact import ExactIndex

CONFIG = IndexerConfig()


@pytest.mark.parametrize(
    ("setting", "rows", "kind"),
    [("auto", 100, "exact"), ("auto", 101, "HNSW32"), ("exact", 10**7, "exact"), ("IVF16,Flat", 1, "IVF16,Flat")],
)
def test_the_kind_follows_the_setting_and_the_rows(setting: str, rows: int, kind: str) -> None:
    assert chosen_kind(IndexerConfig(index=setting, exact_up_to=100), rows) == kind


def test_a_word_that_is_no_factory_string_is_named(clustered: Callable[[int, int], Floats]) -> None:
    with pytest.raises(ConfigError, match=r'indexer\.index = "Bogus7" is not a FAISS factory string'):
        DenseIndex.build("Bogus7", clustered(10, 1), CONFIG)


def test_too_few_vectors_to_train_on_are_named(clustered: Callable[[int, int], Floats]) -> None:
    with pytest.raises(ConfigError, match=r'indexer\.index = "IVF64,Flat" cannot be trained on 10 vectors'):
        DenseIndex.build("IVF64,Flat", clustered(10, 1), CONFIG)


@pytest.mark.parametrize("kind", ["NSG32", "IVF16,Flat,RFlat"])
def test_a_kind_that_cannot_filter_is_refused_when_it_is_built(
    kind: str, clustered: Callable[[int, int], Floats]
) -> None:
    with pytest.raises(ConfigError, match="cannot be searched under a filter"):
        DenseIndex.build(kind, clustered(2_000, 1), CONFIG)


@pytest.mark.parametrize("kind", ["PCA16,IVF16,Flat", "PCA16,Flat", "HNSW32,SQ8"])
def test_a_composed_kind_filters_and_visits_nprobe_lists(
    kind: str, clustered: Callable[[int, int], Floats], tmp_path: Path
) -> None:
    vectors, queries = clustered(2_000, 1), clustered(10, 2)
    DenseIndex.build(kind, vectors, CONFIG).extended(vectors).save(tmp_path)
    index = open_index(kind, tmp_path, vectors, CONFIG)
    mask = np.arange(2_000) % 2 == 0
    rows = index.search(queries, 50, mask).rows
    assert (mask[rows] & (rows >= 0)).all()
    # One of sixteen lists holds far fewer.
    assert (index.search(queries, 1_900).rows >= 0).all()


def test_an_empty_index_finds_nothing(clustered: Callable[[int, int], Floats]) -> None:
    index = DenseIndex.build("HNSW32", clustered(5, 1), CONFIG)
    assert index.search(clustered(2, 2), 3).rows.tolist() == [[-1, -1, -1], [-1, -1, -1]]


def test_an_index_grows_to_all_vectors(clustered: Callable[[int, int], Floats]) -> None:
    vectors = clustered(500, 1)
    index = DenseIndex.build("HNSW32", vectors, CONFIG)
    assert len(index) == 0
    index = index.extended(vectors[:400]).extended(vectors)
    assert len(index) == 500
    assert index.search(vectors[450:], 1).rows[:, 0].tolist() == list(range(450, 500))


def test_k_above_ef_search_still_finds_k(clustered: Callable[[int, int], Floats]) -> None:
    vectors = clustered(2_000, 1)
    index = DenseIndex.build("HNSW32", vectors, IndexerConfig(ef_search=4)).extended(vectors)
    assert (index.search(clustered(5, 2), 300).rows >= 0).all()


def test_a_filter_that_keeps_fewer_than_k_is_answered_exactly(clustered: Callable[[int, int], Floats]) -> None:
    vectors, queries = clustered(200, 1), clustered(5, 2)
    index = DenseIndex.build("HNSW32", vectors, IndexerConfig(exact_below_share=0)).extended(vectors)
    mask = np.arange(200) < 60
    np.testing.assert_array_equal(
        index.search(queries, 60, mask).rows, ExactIndex(vectors).search(queries, 60, mask).rows
    )


def test_another_number_of_rows_is_refused(clustered: Callable[[int, int], Floats], tmp_path: Path) -> None:
    vectors = clustered(50, 1)
    DenseIndex.build("Flat", vectors, CONFIG).extended(vectors).save(tmp_path)
    with pytest.raises(SnapshotError, match="holds 50 vectors, 40 expected"):
        open_index("Flat", tmp_path, vectors[:40], CONFIG)


@pytest.mark.parametrize("content", [None, b"", b"not an index"])
def test_a_damaged_file_is_refused(
    content: bytes | None, clustered: Callable[[int, int], Floats], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(SnapshotError, match="cannot be read"):
        open_index("Flat", tmp_path, clustered(5, 1), CONFIG)
