"""Who may change what a server holds: callers whose certificate bears one of the configured names."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc

Handle = Callable[[Any, Any], Awaitable[Any]]

# The rpcs that write, delete or erase; all others only tell.
WRITING = frozenset(
    {
        "/vitrine.v1.EventService/WriteEvents",
        "/vitrine.v1.EventService/EraseUser",
        "/vitrine.v1.CatalogService/SetInventory",
        "/vitrine.v1.CatalogService/DeleteProducts",
        "/vitrine.v1.CatalogService/UpsertProducts",
    }
)
# Where gRPC keeps what the certificate of a caller says.
_NAMES = ("x509_common_name", "x509_subject_alternative_name")


class ForbiddenError(Exception):
    """The caller may not do this."""


def guarded(handle: Handle, method: str, writers: Sequence[str]) -> Handle:
    """`handle`, for callers of one of the names `writers` where the rpc `method` writes; for everybody without any.

    Others get a `ForbiddenError`.
    """
    if not writers or method not in WRITING:
        return handle
    allowed = frozenset(writers)

    async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
        names = _names(context.auth_context())
        if not allowed & names:
            told = ", ".join(sorted(names)) or "no name"
            raise ForbiddenError(
                f"{method} is for the callers that server.tls_writers names; this one's certificate bears {told}"
            )
        return await handle(request, context)

    return call


def _names(context: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    # A certificate without a common name bears an empty one.
    return frozenset(value.decode() for name in _NAMES for value in context.get(name, ()) if value)
