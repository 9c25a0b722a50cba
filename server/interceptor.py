"""What every call goes through: bad bytes, faults and overload become clear statuses; the rest is logged, not told."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from server.batcher import ExpiredError, OverloadedError
from server.faults import NotFoundError, ViolationError, abort, abort_invalid, abort_missing, abort_overloaded

logger = logging.getLogger(__name__)


class _Undecodable:
    """Stands for a request whose bytes are no message of its type."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class FaultInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Wraps every unary rpc."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        """The handler, with a tolerant deserialiser and its exceptions mapped."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        return grpc.unary_unary_rpc_method_handler(
            _mapped(handler.unary_unary, details.method),
            request_deserializer=_tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )


def _tolerant(deserialise: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return deserialise(data)
        except (DecodeError, UnicodeDecodeError) as error:
            return _Undecodable(str(error))

    return read


def _mapped(handle: Callable[[Any, Any], Awaitable[Any]], method: str) -> Callable[[Any, Any], Awaitable[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
        if isinstance(request, _Undecodable):
            await abort_invalid(
                context, [ViolationError("request", f"is not a valid message: {request.reason}; text must be UTF-8")]
            )
        try:
            return await handle(request, context)
        except ExceptionGroup as group:
            await abort_invalid(context, [e for e in group.exceptions if isinstance(e, ViolationError)])
        except NotFoundError as error:
            await abort_missing(context, error)
        except OverloadedError as error:
            await abort_overloaded(context, str(error))
        except ExpiredError as error:
            await abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, str(error))
        except grpc.aio.AbortError:
            raise
        except Exception:
            logger.exception("%s failed", method)
            await abort(context, grpc.StatusCode.INTERNAL, "the server failed on this request; its log says why")

    return call
