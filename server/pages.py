"""Page tokens: opaque, and good only for the request they were made for."""

import base64
import hashlib
import json
from typing import Any

from google.protobuf.message import Message

from server.faults import ViolationError
from server.pipeline import Answer

# What may change from page to page.
_FREE = ("page_token", "page_size", "request_id", "read_mask", "explain", "facets")


def offset_of(request: Any) -> int:
    """Where the asked page begins. Raises `ViolationError` where the page token is of another request."""
    if not request.page_token:
        return 0
    try:
        token = json.loads(base64.urlsafe_b64decode(request.page_token.encode()))
        offset, made_for = int(token["offset"]), str(token["request"])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        raise ViolationError("page_token", "was not made by this server; leave it empty for the first page") from None
    if made_for != _request_digest(request):
        raise ViolationError(
            "page_token",
            "belongs to another request; only page_size, request_id, read_mask, explain and facets may differ",
        )
    if offset < 0:
        raise ViolationError("page_token", "was not made by this server; leave it empty for the first page")
    return offset


def token_after(request: Any, offset: int, answer: Answer) -> str:
    """The token of the page after `answer`'s; empty where that was the last."""
    after = offset + len(answer.hits)
    if not answer.hits or after >= answer.candidates:
        return ""
    content = json.dumps({"offset": after, "request": _request_digest(request)})
    return base64.urlsafe_b64encode(content.encode()).decode()


def _request_digest(request: Message) -> str:
    """Names everything of a request but its page and its id."""
    bare = type(request)()
    bare.CopyFrom(request)
    for field in _FREE:
        if field in bare.DESCRIPTOR.fields_by_name:
            bare.ClearField(field)
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()[:16]
