"""EventService: what users do, on disk before it is acknowledged and in the next answer."""

import asyncio
import math
import uuid
from collections.abc import Callable

import grpc
from vitrine.v1 import event_pb2, event_service_pb2, event_service_pb2_grpc

from ranker.journal import Entry
from server import checks
from server.batcher import Batcher
from server.checks import Checks
from server.faults import ViolationError

_MOST_EVENTS = 1_000
_MOST_ITEMS = 1_000

Writer = Batcher[list[list[Entry]], tuple[int, int]]


class EventService(event_service_pb2_grpc.EventServiceServicer):  # type: ignore[misc]
    """See event_service.proto. Events that wait together share one commit."""

    def __init__(self, writer: Writer, now: Callable[[], float], erase: Callable[[str], int]) -> None:
        """`erase` forgets a user and returns the entries removed."""
        self._writer = writer
        self._now = now
        self._erase = erase

    async def WriteEvents(  # noqa: N802
        self, request: event_service_pb2.WriteEventsRequest, context: grpc.aio.ServicerContext
    ) -> event_service_pb2.WriteEventsResponse:
        """Check all, write all."""
        events = self._events(request)
        written, duplicates = await self._writer.submit(events, checks.deadline(context))
        return event_service_pb2.WriteEventsResponse(written=written, duplicates=duplicates)

    async def EraseUser(  # noqa: N802
        self, request: event_service_pb2.EraseUserRequest, context: grpc.aio.ServicerContext
    ) -> event_service_pb2.EraseUserResponse:
        """Forget a user."""
        faults = Checks()
        user = faults.run(checks.identifier, request.user_id, "user_id", required=True, default="")
        faults.done()
        return event_service_pb2.EraseUserResponse(erased=await asyncio.to_thread(self._erase, user))

    def _events(self, request: event_service_pb2.WriteEventsRequest) -> list[list[Entry]]:
        faults = Checks()
        if not 0 < len(request.events) <= _MOST_EVENTS:
            faults.violations.append(
                ViolationError("events", f"has {len(request.events)} events; 1 to {_MOST_EVENTS} are accepted")
            )
        events = [
            self._entries(event, f"events[{i}]", faults) for i, event in enumerate(request.events[: _MOST_EVENTS + 1])
        ]
        faults.done()
        return events

    def _entries(self, event: event_pb2.Event, path: str, faults: Checks) -> list[Entry]:
        """One entry for each product of an event; faults go to `faults`."""
        names = ("id", "user_id", "session_id", "attribution_token")
        texts = {n: faults.run(checks.identifier, getattr(event, n), f"{path}.{n}", default="") or None for n in names}
        kind = faults.run(_kind, event, path, default="")
        moment = faults.run(self._moment, event, path, default=0.0)
        query = faults.run(_query, event, path, default="")
        if not 0 < len(event.items) <= _MOST_ITEMS:
            faults.violations.append(
                ViolationError(f"{path}.items", f"has {len(event.items)}; 1 to {_MOST_ITEMS} are accepted")
            )
        event_id = texts["id"] or uuid.uuid4().hex
        return [
            Entry(
                event_id=event_id,
                item=number,
                event_time=round(moment * 1e6),
                event_type=kind,
                user_id=texts["user_id"],
                session_id=texts["session_id"],
                request_id=texts["attribution_token"],
                query=query or None,
                product_id=faults.run(
                    checks.identifier,
                    item.product_id,
                    f"{path}.items[{number}].product_id",
                    required=True,
                    default="",
                ),
                position=faults.run(_position, item, f"{path}.items[{number}]", default=None),
                **{
                    name: faults.run(_number, item, name, f"{path}.items[{number}]", default=None)
                    for name in ("quantity", "price", "value")
                },
            )
            for number, item in enumerate(event.items[:_MOST_ITEMS])
        ]

    def _moment(self, event: event_pb2.Event, path: str) -> float:
        now = self._now()
        if not event.HasField("event_time"):
            return now
        return checks.moment(event.event_time, f"{path}.event_time", now)


def _kind(event: event_pb2.Event, path: str) -> str:
    if event.type == event_pb2.Event.TYPE_UNSPECIFIED or event.type not in event_pb2.Event.Type.values():
        raise ViolationError(f"{path}.type", "must be one of the known types")
    if event.type == event_pb2.Event.RATING and not all(item.HasField("value") for item in event.items):
        raise ViolationError(f"{path}.items", "of a RATING need a value each")
    return str(event_pb2.Event.Type.Name(event.type)).lower()


def _query(event: event_pb2.Event, path: str) -> str:
    if "\0" in event.query:
        raise ViolationError(f"{path}.query", "holds a NUL character")
    if len(event.query) > checks.MOST_QUERY_CHARACTERS:
        raise ViolationError(f"{path}.query", f"has over {checks.MOST_QUERY_CHARACTERS} characters")
    return str(event.query)


def _position(item: event_pb2.Event.Item, path: str) -> int | None:
    if not item.HasField("position"):
        return None
    if item.position < 1:
        raise ViolationError(f"{path}.position", "counts from 1")
    return int(item.position)


def _number(item: event_pb2.Event.Item, name: str, path: str) -> float | None:
    if not item.HasField(name):
        return None
    value = float(getattr(item, name))
    if not math.isfinite(value):
        raise ViolationError(f"{path}.{name}", "is not a finite number")
    return value
