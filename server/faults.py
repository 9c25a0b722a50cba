"""What a caller did wrong, as the standard gRPC error model: a code, a message, and details by field."""

from collections.abc import Sequence
from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

_DETAILS = "grpc-status-details-bin"
# Clients refuse trailing metadata of over 8 KiB, and would see that instead of the faults. The message is in it twice,
# once in percent where it is not ASCII, and the details are in base 64. All numbers but the first are of bytes.
_MOST_TOLD = 20
_MOST_MESSAGE, _MOST_DETAILS, _MOST_DESCRIPTION = 600, 2_800, 1_500


class ViolationError(Exception):
    """One field that cannot be accepted."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


class NotFoundError(Exception):
    """A resource that the caller names does not exist."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name!r}")
        self.kind = kind
        self.name = name


async def abort(context: grpc.aio.ServicerContext, code: grpc.StatusCode, message: str, *details: object) -> NoReturn:
    """End the call with google.rpc.Status details."""
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message, details=packed)
    await context.abort(code, message, trailing_metadata=((_DETAILS, status.SerializeToString()),))
    raise AssertionError("context.abort raises")


async def abort_invalid(context: grpc.aio.ServicerContext, violations: Sequence[ViolationError]) -> NoReturn:
    """INVALID_ARGUMENT with a BadRequest that names every field."""
    fields: list[error_details_pb2.BadRequest.FieldViolation] = []
    room = _MOST_DETAILS
    for violation in violations[:_MOST_TOLD]:
        description = _cut(violation.description, _MOST_DESCRIPTION)
        field = error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=description)
        room -= field.ByteSize()
        if room < 0:
            break
        fields.append(field)
    if len(violations) > len(fields):
        rest = f"{len(violations) - len(fields)} more fields cannot be accepted"
        fields.append(error_details_pb2.BadRequest.FieldViolation(field="request", description=rest))
    message = _cut("; ".join(str(violation) for violation in violations[:5]), _MOST_MESSAGE)
    await abort(
        context, grpc.StatusCode.INVALID_ARGUMENT, message, error_details_pb2.BadRequest(field_violations=fields)
    )


def _cut(text: str, most: int) -> str:
    """A text of at most so many bytes, and a mark where there was more."""
    data = text.encode()
    return text if len(data) <= most else f"{data[:most].decode(errors='ignore')} …"


async def abort_overloaded(context: grpc.aio.ServicerContext, message: str) -> NoReturn:
    """RESOURCE_EXHAUSTED with a RetryInfo."""
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(nanos=100_000_000))
    await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, f"overloaded: {message}; retry with back-off", retry)


async def abort_unavailable(context: grpc.aio.ServicerContext, message: str) -> NoReturn:
    """UNAVAILABLE with a RetryInfo."""
    retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1))
    await abort(context, grpc.StatusCode.UNAVAILABLE, f"{message}; retry with back-off", retry)


async def abort_missing(context: grpc.aio.ServicerContext, error: NotFoundError) -> NoReturn:
    """NOT_FOUND with a ResourceInfo."""
    info = error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=error.name[:128])
    await abort(context, grpc.StatusCode.NOT_FOUND, str(error), info)
