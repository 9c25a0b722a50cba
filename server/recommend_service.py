"""RecommendService: users to ranked products."""

from collections.abc import Sequence

import grpc
from vitrine.v1 import event_pb2, recommend_service_pb2, recommend_service_pb2_grpc

from ranker import history
from server import checks, conditions, pages, pipeline, replies
from server.checks import Checks
from server.desk import Desk
from server.faults import ViolationError
from server.hits import explained
from server.pipeline import Ask
from server.rules import RECOMMEND
from server.state import State

# What a history remembers of a product.
_EXCLUDED = {
    getattr(event_pb2.Event, kind): getattr(history, kind)
    for kind in ("VIEW", "CLICK", "ADD_TO_CART", "PURCHASE", "RATING")
}


class RecommendService(recommend_service_pb2_grpc.RecommendServiceServicer):  # type: ignore[misc]
    """See recommend_service.proto."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def Recommend(  # noqa: N802
        self, request: recommend_service_pb2.RecommendRequest, context: grpc.aio.ServicerContext
    ) -> bytes:
        """Check, rank, reply."""
        state = self._desk.live.state
        ask = self._desk.ruled(request, state, RECOMMEND, _ask(request, state))
        ask = ask._replace(deadline=checks.deadline(context))
        answer = await self._desk.answer(pipeline.recommend, state, ask)
        response = recommend_service_pb2.RecommendResponse
        return replies.ranked(
            request,
            ask.offset,
            answer,
            response,
            await self._desk.explain(answer, ask.deadline),
            fallback=response.Fallback.NONE if answer.personal else response.Fallback.POPULAR,
            unknown_product_ids=[product for product in ask.recent if product not in answer.state.row_of],
        )


def _ask(request: recommend_service_pb2.RecommendRequest, state: State) -> Ask:
    faults = Checks()
    vector = None
    if request.user_vector:
        dimensions = int(state.model.space.projection.shape[0])
        vector = faults.run(checks.vector, request.user_vector, dimensions, "user_vector", default=None)
    faults.run(checks.identifier, request.request_id, "request_id", default="")
    faults.run(checks.read_mask, request.read_mask, default=None)
    ask = Ask(
        vector=vector,
        user=faults.run(checks.identifier, request.user_id, "user_id", default="") or None,
        recent=faults.run(checks.recent, request.recent_product_ids, default=[]),
        condition=faults.run(conditions.condition, request, state.columns, default=None),
        excluded=faults.run(_excluded, request.exclude, default=frozenset()),
        diversity=faults.run(conditions.diversity, request, state.columns, default=None),
        ordering=faults.run(conditions.ordering, request, state.columns, default=None),
        explain=explained(request),
        offset=faults.run(pages.offset_of, request, default=0),
        size=faults.run(checks.page_size, request.page_size, default=0),
    )
    faults.done()
    return ask


def _excluded(types: Sequence[int]) -> frozenset[int]:
    """The kinds of engagement whose products are left out. Raises `ViolationError`."""
    for place, each in enumerate(types):
        if each not in _EXCLUDED:
            names = ", ".join(event_pb2.Event.Type.Name(known) for known in _EXCLUDED)
            raise ViolationError(f"exclude[{place}]", f"cannot be excluded; {names} can")
    return frozenset(_EXCLUDED[each] for each in types)
