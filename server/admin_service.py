"""AdminService: what is live."""

import asyncio
import time

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from vitrine.v1 import admin_service_pb2, admin_service_pb2_grpc

from indexer import fallbacks
from server import replies
from server.desk import Desk


class AdminService(admin_service_pb2_grpc.AdminServiceServicer):  # type: ignore[misc]
    """See admin_service.proto."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._started = time.time()

    async def GetStatus(  # noqa: N802
        self, request: admin_service_pb2.GetStatusRequest, context: grpc.aio.ServicerContext
    ) -> admin_service_pb2.GetStatusResponse:
        """Tell."""
        live = self._desk.live
        await asyncio.to_thread(live.refresh)
        state, offer = live.state, live.state.assortment.offer
        entry = state.snapshot.manifest["index"]
        return admin_service_pb2.GetStatusResponse(
            versions=replies.versions(state),
            start_time=_timestamp(self._started),
            release_load_time=_timestamp(state.loaded),
            now=_timestamp(state.now()),
            products=len(offer.products),
            users=len(state.behaviour.users),
            journal_sequence=live.sequence(),
            index_kind=state.snapshot.index.kind,
            index_recall=entry["recall_at_100"],
            encoder_backend=state.encoder.backend,
            fusion=state.model.manifest["fusion"],
            filter_columns=dict(state.columns),
            vector_dimensions=state.encoder.dimensions,
            user_vector_dimensions=int(state.model.space.projection.shape[0]),
            waiting=self._desk.waiting,
            queries_asked=state.query_vectors.asked,
            queries_cached=state.query_vectors.found,
            queries_by_table=state.query_vectors.by_table,
            fallbacks=fallbacks.counted(),
            products_with_live_inventory=offer.stocked,
            products_deleted=offer.deleted,
            products_added=state.newcomers,
            products_changed=len(state.upserts) - state.newcomers,
            products_pending=len(state.pending),
            rules=live.rulebook.of(state.columns).in_force(time.time()),
            rules_faults=live.rulebook.faults(state.columns),
        )


def _timestamp(moment: float) -> Timestamp:
    made = Timestamp()
    made.FromMicroseconds(int(moment * 1e6))
    return made
