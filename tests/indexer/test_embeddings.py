from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer import embeddings
from indexer.embeddings import EmbeddingCache

TITLES = [f"title {i} 靴" for i in range(25)]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_SHARD", 10)


def ignore(done: int) -> None:
    """A progress nobody watches."""


def test_every_title_is_encoded_once_and_gathered_in_order(tmp_path: Path, encoder: Any) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    done: list[int] = []
    assert cache.fill([*TITLES, *TITLES[:5]], encoder, done.append) == 25
    assert encoder.encoded == TITLES
    # The five repeated titles are done at once, then the shards.
    assert done == [5, 10, 10, 5]
    out = np.zeros((3, encoder.dimensions), np.float32)
    cache.gather([TITLES[24], TITLES[0], TITLES[24]], out)
    np.testing.assert_array_equal(out, encoder.encode([TITLES[24], TITLES[0], TITLES[24]]))


def test_a_second_cache_finds_the_shards_of_the_first(tmp_path: Path, encoder: Any) -> None:
    EmbeddingCache(tmp_path).fill(TITLES, encoder, ignore)
    encoder.encoded.clear()
    cache = EmbeddingCache(tmp_path)
    assert cache.fill([*TITLES, "new"], encoder, ignore) == 1
    assert encoder.encoded == ["new"]
    out = np.zeros((26, encoder.dimensions), np.float32)
    cache.gather([*TITLES, "new"], out)
    np.testing.assert_array_equal(out, encoder.encode([*TITLES, "new"]))


def test_a_shard_without_keys_is_encoded_again(tmp_path: Path, encoder: Any) -> None:
    EmbeddingCache(tmp_path).fill(TITLES, encoder, ignore)
    lost = next(path for path in tmp_path.glob("*.keys.npy") if len(np.load(path)) == 5)
    lost.rename(lost.with_suffix(".tmp"))
    assert EmbeddingCache(tmp_path).fill(TITLES, encoder, ignore) == 5


def test_offered_vectors_are_used(tmp_path: Path, encoder: Any) -> None:
    vectors = np.full((2, encoder.dimensions), 0.5, np.float32)
    cache = EmbeddingCache(tmp_path)
    cache.offer(TITLES[:2], vectors)
    assert cache.fill(TITLES[:3], encoder, ignore) == 1
    assert encoder.encoded == [TITLES[2]]
    out = np.zeros((2, encoder.dimensions), np.float32)
    cache.gather(TITLES[:2], out)
    np.testing.assert_array_equal(out, vectors)


def test_clear_removes_the_shards_and_keeps_what_is_in_memory(tmp_path: Path, encoder: Any) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    cache.fill(TITLES, encoder, ignore)
    cache.clear()
    assert not (tmp_path / "cache").exists()
    cache.gather(TITLES, np.zeros((25, encoder.dimensions), np.float32))


def test_no_titles_need_no_encoding(tmp_path: Path, encoder: Any) -> None:
    assert EmbeddingCache(tmp_path).fill([], encoder, ignore) == 0
    assert encoder.encoded == []
