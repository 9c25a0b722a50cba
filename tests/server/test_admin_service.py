"""GetStatus: what is live."""

import time

import pytest
from harness import DIMENSIONS, Running, SearchRequest, hash_encoder
from vitrine.v1 import admin_service_pb2

from indexer import fallbacks


def test_the_status_names_what_is_live(server: Running) -> None:
    state = server.live.state
    told = server.status(admin_service_pb2.GetStatusRequest())
    assert (told.versions.release, told.versions.index, told.versions.model) == ("1", state.snapshot.id, state.model.id)
    assert (told.products, told.users) == (600, len(state.behaviour.users))
    assert (told.index_kind, told.index_recall) == ("exact", 1.0)
    assert (told.encoder_backend, told.fusion) == (hash_encoder().backend, state.model.members.fusion.kind)
    assert (told.vector_dimensions, told.user_vector_dimensions) == (DIMENSIONS, 16)
    assert {"price": "number", "in_stock": "bool", "title": "string"}.items() <= dict(told.filter_columns).items()
    assert (told.waiting, told.journal_sequence) == (0, server.live.journal.sequence())
    assert 0 <= time.time() - told.now.ToMicroseconds() / 1e6 < 60
    assert told.release_load_time.ToMicroseconds() <= told.start_time.ToMicroseconds() <= time.time() * 1e6


def test_the_status_tells_where_the_cpu_stood_in_for_a_card(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fallbacks, "counted", lambda: {"search": 3})
    told = server.status(admin_service_pb2.GetStatusRequest())
    assert dict(told.fallbacks) == {"search": 3}


def test_the_status_counts_queries_and_those_already_known(server: Running) -> None:
    def counts() -> tuple[int, int]:
        told = server.status(admin_service_pb2.GetStatusRequest())
        return told.queries_asked, told.queries_cached

    asked, cached = counts()
    for query in ("a query that nobody asked", "a query that nobody asked", "a query that nobody asked before"):
        server.search(SearchRequest(query=query))
    assert counts() == (asked + 3, cached + 1)
