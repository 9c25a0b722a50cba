import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from indexer import embeddings
from indexer.embeddings import EmbeddingCache

TITLES = [f"title {i} 靴" for i in range(25)]


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_SHARD", 10)
    monkeypatch.setattr(embeddings, "_SECONDS", math.inf)


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


def test_clear_removes_the_shards(tmp_path: Path, encoder: Any) -> None:
    cache = EmbeddingCache(tmp_path / "cache")
    cache.fill(TITLES, encoder, ignore)
    cache.clear()
    assert not (tmp_path / "cache").exists()
    cache.clear()


def test_no_titles_need_no_encoding(tmp_path: Path, encoder: Any) -> None:
    assert EmbeddingCache(tmp_path).fill([], encoder, ignore) == 0
    assert encoder.encoded == []


def test_a_shard_is_saved_after_its_time(tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1_000))
    monkeypatch.setattr(embeddings.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(embeddings, "_SECONDS", 3)
    done: list[int] = []
    EmbeddingCache(tmp_path).fill(TITLES, encoder, done.append)
    # The clock goes on by one at each title and at the begin of each shard.
    assert done == [0, *[3] * 8, 1]
    assert EmbeddingCache(tmp_path).fill(TITLES, encoder, ignore) == 0


def test_vectors_are_gathered_from_many_shards_in_any_order(
    tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_ROWS", 7)
    cache = EmbeddingCache(tmp_path)
    cache.offer([], np.zeros((0, encoder.dimensions), np.float32))
    cache.fill(TITLES[::2], encoder, ignore)
    cache.fill(TITLES, encoder, ignore)
    mixed = [TITLES[i] for i in np.random.default_rng(0).integers(25, size=40)]
    out = np.zeros((40, encoder.dimensions), np.float32)
    cache.gather(mixed, out)
    np.testing.assert_array_equal(out, encoder.encode(mixed))


def test_a_title_without_a_vector_is_an_error(tmp_path: Path, encoder: Any) -> None:
    cache = EmbeddingCache(tmp_path)
    out = np.zeros((2, encoder.dimensions), np.float32)
    with pytest.raises(KeyError, match="2 titles have no vector"):
        cache.gather(TITLES[:2], out)
    cache.fill(TITLES[:1], encoder, ignore)
    with pytest.raises(KeyError, match="1 titles have no vector"):
        cache.gather(TITLES[:2], out)


def test_what_cannot_be_saved_ends_the_build(tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(EmbeddingCache, "_save", full)
    with pytest.raises(OSError, match="No space left"):
        EmbeddingCache(tmp_path).fill(TITLES, encoder, ignore)
    # The second shard was on its way when the first failed.
    assert len(encoder.encoded) == 20


def test_digests_that_end_in_zeros_stay_apart(tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        def __init__(self, content: bytes, digest_size: int) -> None:
            self.digest = lambda: content.split()[1].ljust(digest_size, b"\0")

    monkeypatch.setattr(embeddings, "hashlib", SimpleNamespace(blake2b=Short))
    titles = [f"title {i}" for i in (1, 10, 100)]
    EmbeddingCache(tmp_path).fill(titles, encoder, ignore)
    out = np.zeros((3, encoder.dimensions), np.float32)
    EmbeddingCache(tmp_path).gather(titles, out)
    np.testing.assert_array_equal(out, encoder.encode(titles))
