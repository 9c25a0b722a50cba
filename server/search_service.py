"""SearchService: queries and products to ranked products."""

import asyncio

import grpc
from vitrine.v1 import search_service_pb2, search_service_pb2_grpc

from server import checks, conditions, facets, pages, pipeline, replies
from server.checks import Checks
from server.desk import Desk
from server.faults import NotFoundError, ViolationError
from server.hits import explained
from server.pipeline import Ask
from server.rules import SEARCH, SIMILAR
from server.state import State
from server.suggestions import Suggested


class SearchService(search_service_pb2_grpc.SearchServiceServicer):  # type: ignore[misc]
    """See search_service.proto."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def Search(  # noqa: N802
        self, request: search_service_pb2.SearchRequest, context: grpc.aio.ServicerContext
    ) -> bytes:
        """Check, rank, reply."""
        state = self._desk.live.state
        ask = self._desk.ruled(request, state, SEARCH, _search_ask(request, state))
        ask = ask._replace(deadline=checks.deadline(context))
        answer = await self._desk.answer(pipeline.search, state, ask)
        told = await self._desk.explain(answer, ask.deadline)
        return replies.ranked(
            request,
            ask.offset,
            answer,
            search_service_pb2.SearchResponse,
            told,
            facets=facets.told(answer.facets),
            redirect_uri=answer.applied.redirect,
            corrected_query=answer.corrected,
        )

    async def Similar(  # noqa: N802
        self, request: search_service_pb2.SimilarRequest, context: grpc.aio.ServicerContext
    ) -> bytes:
        """Check, find, reply."""
        state = self._desk.live.state
        ask = _similar_ask(request, state)._replace(deadline=checks.deadline(context))
        if ask.product not in state.row_of:
            # Another worker may have taken it in.
            await asyncio.to_thread(self._desk.live.refresh)
            state = self._desk.live.state
            if ask.product not in state.row_of:
                raise NotFoundError("product", ask.product)
        answer = await self._desk.answer(pipeline.similar, state, self._desk.ruled(request, state, SIMILAR, ask))
        return replies.ranked(request, ask.offset, answer, search_service_pb2.SimilarResponse)

    async def Suggest(  # noqa: N802
        self, request: search_service_pb2.SuggestRequest, context: grpc.aio.ServicerContext
    ) -> search_service_pb2.SuggestResponse:
        """Check, look up; nothing is embedded or ranked, so it does not wait in the queue of those."""
        faults = Checks()
        typed = faults.run(checks.typed, request.query, default="")
        most = faults.run(checks.max_suggestions, request.max_suggestions, default=0)
        faults.done()
        found = await asyncio.to_thread(self._suggested, typed, most)
        return search_service_pb2.SuggestResponse(
            queries=[search_service_pb2.QuerySuggestion(text=text) for text in found.queries],
            values=[search_service_pb2.ValueSuggestion(**value._asdict()) for value in found.values],
        )

    def _suggested(self, typed: str, most: int) -> Suggested:
        self._desk.live.refresh()
        return self._desk.live.state.suggested(typed, most)


def _search_ask(request: search_service_pb2.SearchRequest, state: State) -> Ask:
    faults = Checks()
    query, vector = "", None
    match request.WhichOneof("target"):
        case "query":
            query = faults.run(checks.query, request.query, default="")
        case "query_vector":
            values = request.query_vector.values
            dimensions = state.encoder.dimensions
            vector = faults.run(checks.vector, values, dimensions, "query_vector", default=None)
        case _:
            faults.violations.append(ViolationError("query", "must be given, or query_vector"))
    faults.run(checks.identifier, request.request_id, "request_id", default="")
    faults.run(checks.read_mask, request.read_mask, default=None)
    ask = Ask(
        query=query,
        vector=vector,
        user=faults.run(checks.identifier, request.user_id, "user_id", default="") or None,
        recent=faults.run(checks.recent, request.recent_product_ids, default=[]),
        condition=faults.run(conditions.condition, request, state.columns, default=None),
        counted=faults.run(facets.asked, request.facets, state.columns, default=[]),
        diversity=faults.run(conditions.diversity, request, state.columns, default=None),
        ordering=faults.run(conditions.ordering, request, state.columns, default=None),
        explain=explained(request),
        offset=faults.run(pages.offset_of, request, default=0),
        size=faults.run(checks.page_size, request.page_size, default=0),
    )
    faults.done()
    return ask


def _similar_ask(request: search_service_pb2.SimilarRequest, state: State) -> Ask:
    faults = Checks()
    faults.run(checks.identifier, request.request_id, "request_id", default="")
    faults.run(checks.read_mask, request.read_mask, default=None)
    ask = Ask(
        product=faults.run(checks.identifier, request.product_id, "product_id", required=True, default=""),
        condition=faults.run(conditions.condition, request, state.columns, default=None),
        offset=faults.run(pages.offset_of, request, default=0),
        size=faults.run(checks.page_size, request.page_size, default=0),
    )
    faults.done()
    return ask
