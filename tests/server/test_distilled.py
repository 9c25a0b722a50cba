"""A release whose index has a table for queries: it answers in training as in serving, and the rest is encoded."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
from harness import HashEncoder, Loop, Running, SearchRequest, Trained, copied, hash_encoder, make_trained
from vitrine.v1 import admin_service_pb2

from indexer.pieces import pieces
from indexer.query_table import QueryEncoder
from indexer.sample.shop import make_shop
from indexer.snapshot import IndexSnapshot
from ranker.examples import Slice


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    dump = make_shop(300, sessions=800, seed=0)
    return make_trained(dump, tmp_path_factory.mktemp("distilled"), hash_encoder(), query_encoder="distilled")


@pytest.fixture(scope="module")
def running(distilled: Trained, loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(copied(distilled, tmp_path_factory.mktemp("served")), loop) as running:
        yield running


@pytest.fixture
def embedded(distilled: Trained, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the encoder is asked from now on."""
    encoder = cast(HashEncoder, distilled.encoder)
    monkeypatch.setattr(encoder, "encoded", [])
    return encoder.encoded


def snapshot(trained: Trained) -> IndexSnapshot:
    return IndexSnapshot(trained.store, trained.release.index, trained.settings.indexer)


def status(running: Running) -> Any:
    return running.status(admin_service_pb2.GetStatusRequest())


def test_known_words_need_no_pass_of_the_encoder(running: Running, embedded: list[str]) -> None:
    known = pieces(snapshot(running.trained).products.column("title").to_pylist(), seed=1)[0]
    before = status(running).queries_by_table
    assert running.search(SearchRequest(query=known)).hits
    assert embedded == []
    assert status(running).queries_by_table == before + 1
    assert running.search(SearchRequest(query=f"{known} zzyzx")).hits
    assert len(embedded) == 1
    assert status(running).queries_by_table == before + 1


def test_the_encoder_is_warm_for_what_the_table_does_not_know(
    distilled: Trained, loop: Loop, embedded: list[str], tmp_path: Any
) -> None:
    with Running(copied(distilled, tmp_path), loop):
        assert {len(text.split()) for text in embedded} >= {1, 5}


def test_training_read_the_vectors_that_serving_makes(distilled: Trained) -> None:
    index = snapshot(distilled)
    queries = QueryEncoder(distilled.encoder, index.query_table)
    examples = [example for part in Slice for example in distilled.slices[part] if example.context.query][:50]
    assert examples
    asked = [index.lexical.mended(example.context.query) for example in examples]
    made = np.stack([cast(Any, example.context.query_vector) for example in examples])
    np.testing.assert_array_equal(made, np.concatenate([queries.encode([query]) for query in asked]))
    assert queries.by_table > len(asked) / 2
    # The table is not the encoder: that would have been no test of which of them was asked.
    assert not np.array_equal(made, distilled.encoder.encode(asked))
