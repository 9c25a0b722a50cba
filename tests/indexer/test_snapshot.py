import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.build import build_index
from indexer.config import IndexerConfig
from indexer.errors import SnapshotError
from indexer.lexical import LexicalIndex
from indexer.snapshot import LEXICAL, PRODUCTS, TOKEN_OFFSETS, TOKENS, VECTORS, IndexSnapshot, open_latest
from indexer.store import Store
from indexer.text import token_hashes

TITLES = ["red mugs", "!", "防水登山靴", *(f"bowl {i}" for i in range(20))]
LEXICAL_FILES = [
    f"{LEXICAL}/{name}.index.{kind}"
    for name, kind in (
        ("data.csc", "npy"),
        ("indices.csc", "npy"),
        ("indptr.csc", "npy"),
        ("params", "json"),
        ("vocab", "json"),
    )
]


@pytest.fixture
def config(catalogue: Callable[..., Path]) -> IndexerConfig:
    return IndexerConfig(catalogue=catalogue(TITLES), index="Flat")


@pytest.fixture
def store(tmp_path: Path, config: IndexerConfig, encoder: Any) -> Store:
    store = Store(tmp_path / "store")
    build_index(store, config, encoder, lambda *step: None)
    return store


def test_rows_are_the_same_everywhere(store: Store, config: IndexerConfig, encoder: Any) -> None:
    index = open_latest(store, config)
    assert len(index) == len(index.ids) == len(index.index) == index.products.num_rows == len(TITLES)
    assert all(index.ids[row] == product_id for product_id, row in index.row_of.items())
    for number, title in enumerate(TITLES):
        row = index.row_of[f"p{number}"]
        assert index.products.column("title")[row].as_py() == title
        start, end = index.tokens.offsets[row], index.tokens.offsets[row + 1]
        np.testing.assert_array_equal(index.tokens.hashes[start:end], token_hashes(title))
        assert index.index.search(encoder.encode([title]), 1).rows.tolist() == [[row]]
        assert index.lexical.search(title, 1).rows.tolist() == ([row] if title != "!" else [])


def test_the_arrays_are_memory_mapped(store: Store, config: IndexerConfig) -> None:
    index = open_latest(store, config)
    assert isinstance(index.vectors.base, np.memmap)
    assert isinstance(index.tokens.hashes.base, np.memmap)
    assert isinstance(index.lexical._bm25.scores["data"], np.memmap)
    assert index.encoder_fingerprint == "fake-1"


def test_no_index_says_what_to_do(tmp_path: Path, config: IndexerConfig) -> None:
    with pytest.raises(SnapshotError, match="vitrine index build"):
        open_latest(Store(tmp_path / "empty"), config)


@pytest.mark.parametrize("file", [PRODUCTS, VECTORS, TOKENS, TOKEN_OFFSETS, "dense.faiss", *LEXICAL_FILES])
@pytest.mark.parametrize("content", [None, b"", b"something else"])
def test_a_damaged_index_is_refused(store: Store, config: IndexerConfig, file: str, content: bytes | None) -> None:
    name = store.latest("indexes")
    path = store.path("indexes", name) / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SnapshotError, match=r"Build the index again"):
        IndexSnapshot(store, name, config)


def test_an_index_of_a_version_without_the_lexical_one_is_refused(store: Store, config: IndexerConfig) -> None:
    name = store.latest("indexes")
    shutil.rmtree(store.path("indexes", name) / LEXICAL)
    with pytest.raises(SnapshotError, match=r"a version without a lexical index\. Build the index again"):
        IndexSnapshot(store, name, config)


def test_a_lexical_index_of_other_rows_is_refused(store: Store, config: IndexerConfig) -> None:
    name = store.latest("indexes")
    LexicalIndex.build(TITLES[:-1]).save(store.path("indexes", name) / LEXICAL)
    with pytest.raises(SnapshotError, match=rf"{len(TITLES) - 1} rows, {len(TITLES)} expected\. Build the index again"):
        IndexSnapshot(store, name, config)
