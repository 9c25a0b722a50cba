"""What every call goes through: bad bytes, faults and overload become clear statuses; the rest is logged, not told."""

import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from ranker.journal import JournalError
from server.batcher import ExpiredError, OverloadedError
from server.faults import (
    NotFoundError,
    ViolationError,
    abort,
    abort_invalid,
    abort_missing,
    abort_overloaded,
    abort_unavailable,
)
from server.permissions import ForbiddenError, guarded

if TYPE_CHECKING:
    from server.metrics import Metrics

logger = logging.getLogger(__name__)

Handle = Callable[[Any, Any], Awaitable[Any]]


class _Undecodable:
    """Stands for a request whose bytes are no message of its type."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Rpcs:
    """Stands in for a server where generated code registers a service: its unary rpcs are registered wrapped.

    An interceptor would do the same anew at each call, which costs a tenth of a millisecond. An rpc may answer with its
    response already serialised. With `metrics`, each call is timed and counted; with `writers`, only callers of these
    names may write.
    """

    def __init__(self, server: grpc.aio.Server, metrics: "Metrics | None" = None, writers: Sequence[str] = ()) -> None:
        self._server = server
        self._metrics = metrics
        self._writers = writers

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, grpc.RpcMethodHandler]) -> None:
        """Register a service's rpcs."""
        wrapped = {name: self._wrapped(handler, f"/{service}/{name}") for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Nothing: generated code hands in the same rpcs a second time, for servers that know no other way."""

    def _wrapped(self, handler: grpc.RpcMethodHandler, method: str) -> grpc.RpcMethodHandler:
        if handler.unary_unary is None:
            return handler
        mapped = _mapped(guarded(handler.unary_unary, method, self._writers), method)
        return grpc.unary_unary_rpc_method_handler(
            self._metrics.counted(mapped, method) if self._metrics else mapped,
            request_deserializer=functools.partial(_read, handler.request_deserializer),
            response_serializer=functools.partial(_write, handler.response_serializer),
        )


def _read(deserialise: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return deserialise(data)
    except (DecodeError, UnicodeDecodeError) as error:
        return _Undecodable(str(error))


def _write(serialise: Callable[[Any], bytes], response: Any) -> bytes:
    return response if isinstance(response, bytes) else serialise(response)


def _mapped(handle: Handle, method: str) -> Handle:
    async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
        if isinstance(request, _Undecodable):
            await abort_invalid(
                context, [ViolationError("request", f"is not a valid message: {request.reason}; text must be UTF-8")]
            )
        try:
            return await handle(request, context)
        except ExceptionGroup as group:
            await abort_invalid(context, [e for e in group.exceptions if isinstance(e, ViolationError)])
        except ForbiddenError as error:
            await abort(context, grpc.StatusCode.PERMISSION_DENIED, str(error))
        except NotFoundError as error:
            await abort_missing(context, error)
        except OverloadedError as error:
            await abort_overloaded(context, str(error))
        except JournalError as error:
            # Where the database is, and under which name it is used, is for the log.
            logger.warning("%s failed: %s", method, error)
            await abort_unavailable(context, "the journal cannot be used now")
        except ExpiredError as error:
            await abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, str(error))
        except grpc.aio.AbortError:
            raise
        except Exception:
            logger.exception("%s failed", method)
            await abort(context, grpc.StatusCode.INTERNAL, "the server failed on this request; its log says why")

    return call
