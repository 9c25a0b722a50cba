"""CatalogService: what the live release holds of a product."""

import grpc
from vitrine.v1 import catalog_service_pb2, catalog_service_pb2_grpc, product_pb2

from server import checks
from server.checks import Checks
from server.faults import NotFoundError
from server.live import Live


class CatalogService(catalog_service_pb2_grpc.CatalogServiceServicer):  # type: ignore[misc]
    """See catalog_service.proto."""

    def __init__(self, live: Live) -> None:
        self._live = live

    async def GetProduct(  # noqa: N802
        self, request: catalog_service_pb2.GetProductRequest, context: grpc.aio.ServicerContext
    ) -> product_pb2.Product:
        """Look the product up."""
        faults = Checks()
        faults.run(checks.identifier, request.product_id, "product_id", required=True, default="")
        faults.done()
        state = self._live.state
        row = state.snapshot.row_of.get(request.product_id)
        if row is None:
            raise NotFoundError("product", request.product_id)
        return state.snapshot.rendered.product(row)
