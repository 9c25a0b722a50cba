"""CatalogService: what the live release holds of a product, and what changed since its catalogue was written."""

import asyncio
import itertools
import time
from collections.abc import Iterable, Sequence

import grpc
from vitrine.v1 import catalog_service_pb2, catalog_service_pb2_grpc, product_pb2

from ranker.changes import NEVER, Change
from ranker.upserts import Upsert
from server import checks, upserts
from server.batcher import Batcher
from server.checks import MOST_PRODUCTS, Checks
from server.faults import NotFoundError, ViolationError
from server.live import Live

# Takes the changes of a request, and gives what was known of each one's product before it.
Changer = Batcher[list[Change], list[Change | None]]
# Takes the upserts of a request, and says of each whether it was written.
Upserter = Batcher[list[Upsert], list[bool]]


class CatalogService(catalog_service_pb2_grpc.CatalogServiceServicer):  # type: ignore[misc]
    """See catalog_service.proto. Changes that wait together share one commit."""

    def __init__(self, live: Live, changer: Changer, upserter: Upserter) -> None:
        self._live = live
        self._changer = changer
        self._upserter = upserter

    async def GetProduct(  # noqa: N802
        self, request: catalog_service_pb2.GetProductRequest, context: grpc.aio.ServicerContext
    ) -> product_pb2.Product:
        """Look the product up."""
        faults = Checks()
        faults.run(checks.identifier, request.product_id, "product_id", required=True, default="")
        faults.done()
        await asyncio.to_thread(self._live.refresh)
        state = self._live.state
        row, offer = state.row_of.get(request.product_id), state.assortment.offer
        if row is None or not offer.lists(row):
            raise NotFoundError("product", request.product_id)
        return offer.rendered.product(row)

    async def SetInventory(  # noqa: N802
        self, request: catalog_service_pb2.SetInventoryRequest, context: grpc.aio.ServicerContext
    ) -> catalog_service_pb2.SetInventoryResponse:
        """Check all, write all."""
        faults, now = Checks(), time.time()
        _count(request.items, "items", faults)
        changes = [
            _inventory(item, f"items[{i}]", now, faults) for i, item in enumerate(request.items[: MOST_PRODUCTS + 1])
        ]
        faults.done()
        known = await self._changer.submit(changes, checks.deadline(context))
        outdated = sum(map(_outdated, changes, known))
        return catalog_service_pb2.SetInventoryResponse(
            written=len(changes) - outdated, outdated=outdated, unknown_product_ids=self._unknown(changes)
        )

    async def DeleteProducts(  # noqa: N802
        self, request: catalog_service_pb2.DeleteProductsRequest, context: grpc.aio.ServicerContext
    ) -> catalog_service_pb2.DeleteProductsResponse:
        """Check all, write all."""
        faults, now = Checks(), _microseconds(time.time())
        _count(request.product_ids, "product_ids", faults)
        for i, product in enumerate(request.product_ids[: MOST_PRODUCTS + 1]):
            faults.run(checks.identifier, product, f"product_ids[{i}]", required=True, default="")
        faults.done()
        changes = [Change(product, deleted_time=now) for product in dict.fromkeys(request.product_ids)]
        since = self._live.state.assortment.since
        known = await self._changer.submit(changes, checks.deadline(context))
        already = sum(each is not None and each.deleted_time > since for each in known)
        return catalog_service_pb2.DeleteProductsResponse(
            deleted=len(changes) - already, already_deleted=already, unknown_product_ids=self._unknown(changes)
        )

    async def UpsertProducts(  # noqa: N802
        self, request: catalog_service_pb2.UpsertProductsRequest, context: grpc.aio.ServicerContext
    ) -> catalog_service_pb2.UpsertProductsResponse:
        """Check all, write all."""
        faults, state = Checks(), self._live.state
        columns = upserts.Columns(state.columns, state.whole_numbers)
        _count(request.items, "items", faults)
        # A thousand products take 20 ms, which no other call should wait for.
        products = await asyncio.to_thread(
            upserts.checked, request.items[: MOST_PRODUCTS + 1], time.time(), columns, faults
        )
        faults.done()
        new = await self._upserter.submit(products, checks.deadline(context))
        written, pending = list(itertools.compress(products, new)), self._live.state.pending
        return catalog_service_pb2.UpsertProductsResponse(
            written=len(written),
            outdated=len(products) - len(written),
            pending_product_ids=[each.product_id for each in written if each.product_id in pending],
        )

    def _unknown(self, changes: Iterable[Change]) -> list[str]:
        """The changed products that the live release does not hold, each once."""
        row_of = self._live.state.row_of
        return [product for product in dict.fromkeys(change.product_id for change in changes) if product not in row_of]


def _inventory(item: catalog_service_pb2.SetInventoryRequest.Item, path: str, now: float, faults: Checks) -> Change:
    """The change of an item; faults go to `faults`."""
    has_price, has_stock = item.HasField("price"), item.HasField("in_stock")
    if not (has_price or has_stock):
        faults.violations.append(ViolationError(path, "says nothing: give a price, in_stock, or both"))
    if has_price:
        faults.run(checks.price, item.price, f"{path}.price", default=0.0)
    moment = now
    if item.HasField("set_time"):
        moment = faults.run(checks.moment, item.set_time, f"{path}.set_time", now, default=now)
    set_time = _microseconds(moment)
    return Change(
        faults.run(checks.identifier, item.product_id, f"{path}.product_id", required=True, default=""),
        item.price if has_price else None,
        set_time if has_price else NEVER,
        item.in_stock if has_stock else None,
        set_time if has_stock else NEVER,
    )


def _outdated(change: Change, known: Change | None) -> bool:
    """Whether something newer was known of every part that is set."""
    if known is None:
        return False
    times = ((change.price_time, known.price_time), (change.stock_time, known.stock_time))
    return all(mine < theirs for mine, theirs in times if mine != NEVER)


def _count(items: Sequence[object], field: str, faults: Checks) -> None:
    if not 0 < len(items) <= MOST_PRODUCTS:
        faults.violations.append(
            ViolationError(field, f"has {len(items)} products; 1 to {MOST_PRODUCTS:,} are accepted")
        )


def _microseconds(moment: float) -> int:
    return round(moment * 1e6)
