"""Faults as the standard error model, on a context that only notes what it is told."""

from typing import Any, cast
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from server import faults
from server.faults import NotFoundError, ViolationError


class Noted(Exception):  # noqa: N818
    """Stands for the end of the call."""


class Context:
    """Notes how it was aborted."""

    async def abort(self, code: grpc.StatusCode, message: str, trailing_metadata: Any) -> None:
        self.code, self.message = code, message
        ((key, data),) = trailing_metadata
        assert key == "grpc-status-details-bin"
        self.size = len(data)
        self.status = status_pb2.Status.FromString(data)
        raise Noted


async def aborted(work: Any, argument: Any) -> Context:
    context = Context()
    with pytest.raises(Noted):
        await work(cast(Any, context), argument)
    assert context.status.message == context.message
    assert context.status.code == context.code.value[0]
    return context


async def test_violations_become_a_bad_request() -> None:
    told = await aborted(faults.abort_invalid, [ViolationError("a", "is bad"), ViolationError("b[1]", "is worse")])
    bad = error_details_pb2.BadRequest()
    assert told.status.details[0].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [("a", "is bad"), ("b[1]", "is worse")]
    assert (told.code, told.message) == (grpc.StatusCode.INVALID_ARGUMENT, "a: is bad; b[1]: is worse")


async def test_many_violations_stay_within_what_a_client_accepts() -> None:
    told = await aborted(faults.abort_invalid, [ViolationError(f"field[{i}]", "x" * 100) for i in range(3_000)])
    bad = error_details_pb2.BadRequest()
    assert told.status.details[0].Unpack(bad)
    assert len(bad.field_violations) == 21
    assert bad.field_violations[-1].description == "2980 more fields cannot be accepted"
    # 8 KiB hold the message, and the details in base 64.
    assert len(told.message) + told.size * 4 / 3 < 8_192


@pytest.mark.parametrize("count", [1, 25])
@pytest.mark.parametrize("text", ["x" * 250, "列" * 300, f"there are: {'column, ' * 500}"])
async def test_long_violations_stay_within_what_a_client_accepts(text: str, count: int) -> None:
    told = await aborted(faults.abort_invalid, [ViolationError(f"a[{'名' * 64}]", text)] * count)
    bad = error_details_pb2.BadRequest()
    assert told.status.details[0].Unpack(bad)
    shown = [v.description for v in bad.field_violations if v.field != "request"]
    assert all(text.startswith(each.removesuffix(" …")) and len(each) >= 250 for each in shown)
    if count > len(shown):
        assert bad.field_violations[-1].description == f"{count - len(shown)} more fields cannot be accepted"
    # What is not ASCII takes three bytes each in the message.
    assert len(quote(told.message)) + told.size * 4 / 3 < 8_000


async def test_overload_and_a_missing_resource() -> None:
    told = await aborted(faults.abort_overloaded, "9 requests are waiting")
    assert told.message == "overloaded: 9 requests are waiting; retry with back-off"
    told = await aborted(faults.abort_missing, NotFoundError("product", "靴"))
    info = error_details_pb2.ResourceInfo()
    assert told.status.details[0].Unpack(info)
    assert (told.code, info.resource_name) == (grpc.StatusCode.NOT_FOUND, "靴")
