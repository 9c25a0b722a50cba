"""Vitrine's `Search` over gRPC, by a query's vector or by its words, answered with product ids."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from numpy.typing import NDArray
from vitrine.v1.search_service_pb2 import QueryVector, SearchRequest, SearchResponse

from vector_peers.adapter import Adapter, Ask, Data, Settings

_PATH = "/vitrine.v1.SearchService/Search"
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
_TIMEOUT = 30.0


class Search:
    """A channel for each caller, requests serialised before the clock runs, answers parsed while it does."""

    packages = ("vitrine", "grpcio", "protobuf", "numpy")
    builds = ({"as": "the store has it"},)

    def __init__(self, data: Data) -> None:
        self._data = data
        self._ranked = bool(data.options["ranked"])
        self.recalls = not self._ranked and data.options["by"] == "vector"
        mask = FieldMask(paths=["product.id"])
        by_words = [SearchRequest(query=text, page_size=data.k, read_mask=mask) for text in data.texts]
        by_vector = [
            SearchRequest(query_vector=QueryVector(values=vector.tolist()), page_size=data.k, read_mask=mask)
            for vector in data.queries
        ]
        asked = by_words if data.options["by"] == "words" else by_vector
        self._requests = [request.SerializeToString() for request in asked]

    def build(self, settings: Settings, folder: Path) -> None:
        """See that the server does what its row says. Raises `RuntimeError` where it does not."""
        with ExitStack() as stack:
            info = self._called(stack)(0).info
        left_out = [f"{each.stage}: {each.reason}" for each in info.degraded]
        if self._ranked and left_out:
            raise RuntimeError(f"The server does not rank in full: {'; '.join(left_out)}. Build with a log of queries.")
        if not self._ranked and not left_out:
            raise RuntimeError("The server ranks, where its recall alone was to be asked.")
        self.searches: list[Settings] = [{"candidates": info.candidates, "ranked": self._ranked}]

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """Ids of products."""
        call = self._called(stack)
        return lambda i: [hit.product.id for hit in call(i).hits]

    def _called(self, stack: ExitStack) -> Ask:
        channel = stack.enter_context(grpc.insecure_channel(self._data.options["address"], options=_OPTIONS))
        grpc.channel_ready_future(channel).result(timeout=_TIMEOUT)
        call, requests = channel.unary_unary(_PATH), self._requests
        return lambda i: SearchResponse.FromString(call(requests[i], timeout=_TIMEOUT))

    def rows(self, answer: Any) -> NDArray[np.int64]:
        """The row of each id."""
        if not hasattr(self, "_row_of"):
            self._row_of = {product: row for row, product in enumerate(self._data.ids)}
        return np.array([self._row_of[product] for product in answer], np.int64)

    def close(self) -> None:
        """The server is not ours."""


def make(data: Data) -> Adapter:
    """The adapter for `options`: address, by (`vector` or `words`) and ranked."""
    return Search(data)
