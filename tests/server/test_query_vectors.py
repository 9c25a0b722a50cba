"""The cache of query vectors: the encoder's values, asked for once, and a bound on what is kept."""

from collections.abc import Sequence

import numpy as np
import pytest
from harness import hash_encoder

from indexer.arrays import Floats
from indexer.query_table import QueryEncoder
from server.query_vectors import QueryVectors


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the encoder was asked for, by pass."""
    return []


@pytest.fixture
def make(embedded: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> QueryVectors:
    encoder = hash_encoder()
    encode = encoder.encode

    def told(texts: Sequence[str]) -> Floats:
        embedded.append(list(texts))
        return encode(texts)

    monkeypatch.setattr(encoder, "encode", told)
    return QueryVectors(QueryEncoder(encoder, None), 2)


def test_a_query_is_embedded_once(make: QueryVectors, embedded: list[list[str]]) -> None:
    first = make(["boots", "dress", "boots"])
    again = make(["dress", "boots"])
    wanted = hash_encoder().encode(["boots", "dress", "boots"])
    np.testing.assert_array_equal(first, wanted)
    np.testing.assert_array_equal(again, wanted[1:])
    assert embedded == [["boots", "dress"]]
    assert (make.asked, make.found) == (5, 2)


def test_what_was_asked_longest_ago_gives_way(make: QueryVectors, embedded: list[list[str]]) -> None:
    for query in ("a", "b", "a", "c", "a", "b"):
        make([query])
    assert embedded == [["a"], ["b"], ["c"], ["b"]]


def test_a_batch_larger_than_the_cache_is_answered_whole(make: QueryVectors, embedded: list[list[str]]) -> None:
    assert len(make(["a", "b", "c", "d"])) == 4
    make(["c", "d"])
    assert len(embedded) == 1


def test_nothing_is_kept_where_nothing_may_be(embedded: list[list[str]]) -> None:
    vectors = QueryVectors(hash_encoder(), 0)
    assert vectors(["a"])[0].shape == vectors(["a"])[0].shape
    assert vectors([]) == []
    assert (vectors.asked, vectors.found) == (2, 0)
