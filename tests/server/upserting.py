"""What tests of upserted products say and ask."""

import time
from typing import Any

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from harness import Running
from vitrine.v1 import admin_service_pb2, catalog_service_pb2, event_pb2, event_service_pb2, product_pb2

from indexer.arrays import Floats
from ranker import features

Product = product_pb2.Product
# Depend on how frequent words and prices are, which amended products do not change.
STATISTICS = {"lexical", "bm25", "query_coverage_idf", "rarest_missing", "price_band_share"}


def upsert(server: Running, *products: Product, at: float | None = None) -> Any:
    moment = Timestamp()
    moment.FromMicroseconds(round((at or time.time()) * 1e6))
    items = [catalog_service_pb2.UpsertProductsRequest.Item(product=each, set_time=moment) for each in products]
    return server.upsert(catalog_service_pb2.UpsertProductsRequest(items=items))


def product(server: Running, name: str) -> Product:
    return server.product(catalog_service_pb2.GetProductRequest(product_id=name))


def buys(server: Running, user: str, name: str, query: str = "") -> None:
    event = event_pb2.Event(
        type=event_pb2.Event.PURCHASE, user_id=user, items=[event_pb2.Event.Item(product_id=name)], query=query
    )
    server.write(event_service_pb2.WriteEventsRequest(events=[event]))


def status(server: Running) -> Any:
    return server.status(admin_service_pb2.GetStatusRequest())


def same_features(before: Any, after: Any, names: list[str], user: str, query: str) -> None:
    """Two states know the same of products, but for STATISTICS."""
    seen = [_seen(state, names, user, query) for state in (before, after)]
    same = [column for column, name in enumerate(features.NAMES) if name not in STATISTICS]
    np.testing.assert_allclose(seen[0][:, same], seen[1][:, same], rtol=1e-5, atol=1e-6)


def _seen(state: Any, names: list[str], user: str, query: str) -> Floats:
    rows = np.array([state.row_of[name] for name in names])
    context = state.model.space.context(2e9, state.behaviour.history(user), query, state.query_vectors([query])[0])
    catalogue = state.model.catalogue._replace(table=state.assortment.offer.table)
    return features.matrix(context, rows, catalogue, state.behaviour)
