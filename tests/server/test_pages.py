"""Page tokens: the next page of the same request, and of no other."""

import base64
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from harness import (
    RecommendRequest,
    Running,
    SearchRequest,
    SimilarRequest,
    at_most,
    equals,
    ids,
    refusal,
)
from vitrine.v1 import filter_pb2, hit_pb2, product_pb2

from server.faults import ViolationError
from server.pages import offset_of
from server.state import State

QUERY = "boots"
TOKEN = "belongs to another request"
GARBAGE = "was not made by this server"


@pytest.fixture
def asks(server: Running, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Callable[..., Any], Any]]:
    """A rankable request of each kind, at one moment: the clock moves scores."""
    now = server.live.state.now()
    monkeypatch.setattr(State, "now", lambda _: now)
    user = next(iter(server.live.state.behaviour.users))
    product = server.live.state.snapshot.ids[0]
    return {
        "search": (server.search, SearchRequest(query=QUERY, user_id=user)),
        "recommend": (server.recommend, RecommendRequest(user_id=user)),
        "similar": (server.similar, SimilarRequest(product_id=product)),
        "filtered": (server.search, SearchRequest(query=QUERY, filter=equals("in_stock", True))),
    }


def page(call: Callable[..., Any], request: Any, size: int, token: str = "") -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    copy.page_size, copy.page_token = size, token
    return call(copy)


@pytest.mark.parametrize("kind", ["search", "recommend", "similar", "filtered"])
def test_two_pages_are_one_larger_page(asks: dict[str, Any], kind: str) -> None:
    call, request = asks[kind]
    first = page(call, request, 7)
    second = page(call, request, 7, first.next_page_token)
    larger = page(call, request, 14)
    assert ids(first) + ids(second) == ids(larger)
    assert len(set(ids(larger))) == 14
    assert [hit.rank for hit in (*first.hits, *second.hits)] == list(range(1, 15))
    assert [hit.score for hit in (*first.hits, *second.hits)] == [hit.score for hit in larger.hits]


@pytest.mark.parametrize("kind", ["search", "recommend", "similar"])
def test_the_pages_end(asks: dict[str, Any], kind: str) -> None:
    call, request = asks[kind]
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        answer = page(call, request, 50, token)
        assert len(answer.hits) == 50 or not answer.next_page_token
        seen += ids(answer)
        token, pages = answer.next_page_token, pages + 1
    assert len(seen) == len(set(seen)) == answer.info.candidates
    assert pages == -(-answer.info.candidates // 50)


@pytest.mark.parametrize(("asked", "given"), [(0, 24), (1, 1), (24, 24), (100, 100), (101, 100), (10_000, 100)])
def test_a_page_size_is_coerced(server: Running, asked: int, given: int) -> None:
    assert len(server.search(SearchRequest(query=QUERY, page_size=asked)).hits) == given


@pytest.mark.parametrize("asked", [-1, -(2**31), 10_001, 1_000_000])
def test_a_page_size_that_is_a_mistake_is_refused(server: Running, asked: int) -> None:
    for call, request in (
        (server.search, SearchRequest(query=QUERY, page_size=asked)),
        (server.recommend, RecommendRequest(page_size=asked)),
        (server.similar, SimilarRequest(product_id=server.live.state.snapshot.ids[0], page_size=asked)),
    ):
        refused = refusal(call, request)
        assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_size"])


def test_a_token_is_good_for_its_request_only(server: Running) -> None:
    token = server.search(SearchRequest(query=QUERY, page_size=5)).next_page_token
    others = (
        (server.search, SearchRequest(query="dress", page_token=token)),
        (server.search, SearchRequest(query=QUERY, user_id="u", page_token=token)),
        (server.search, SearchRequest(query=QUERY, recent_product_ids=["x"], page_token=token)),
        (server.search, SearchRequest(query=QUERY, filter=at_most("price", 5), page_token=token)),
        (server.recommend, RecommendRequest(page_token=token)),
        (server.similar, SimilarRequest(product_id=server.live.state.snapshot.ids[0], page_token=token)),
    )
    for call, request in others:
        refused = refusal(call, request)
        assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])
        assert TOKEN in refused.fields["page_token"]


def test_a_token_does_not_bind_the_request_id_and_the_read_mask(server: Running) -> None:
    token = server.search(SearchRequest(query=QUERY, page_size=5, request_id="a")).next_page_token
    mask = FieldMask(paths=["rank", "product.id"])
    answer = server.search(SearchRequest(query=QUERY, page_size=5, request_id="b", page_token=token, read_mask=mask))
    assert answer.hits[0] == hit_pb2.Hit(rank=6, product=product_pb2.Product(id=answer.hits[0].product.id))
    assert answer.hits[0].product.id


def encoded(**content: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        "=",
        "靴",
        "AAAA",
        "x" * 1_000_000,
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
        base64.urlsafe_b64encode(b"[1, 2]").decode(),
        base64.urlsafe_b64encode(b"3").decode(),
        base64.urlsafe_b64encode(b'{"offset": Infinity, "request": ""}').decode(),
        base64.urlsafe_b64encode(b'{"offset": NaN, "request": ""}').decode(),
        base64.urlsafe_b64encode(b'{"offset": ' + b"9" * 5_000 + b', "request": ""}').decode(),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        encoded(offset=None, request=""),
        encoded(offset=[], request=""),
        encoded(request=""),
        encoded(offset=5),
    ],
    ids=lambda token: token[:20],
)
def test_garbage_is_refused(server: Running, token: str) -> None:
    refused = refusal(server.search, SearchRequest(query=QUERY, page_token=token))
    assert (refused.code, list(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])
    assert GARBAGE in refused.fields["page_token"]


def test_a_token_that_was_tampered_with_is_refused(server: Running) -> None:
    token = server.search(SearchRequest(query=QUERY, page_size=5)).next_page_token
    content = json.loads(base64.urlsafe_b64decode(token))
    for changes in ({"offset": -5}, {"request": content["request"][::-1]}, {"offset": "x"}):
        refused = refusal(server.search, SearchRequest(query=QUERY, page_token=encoded(**{**content, **changes})))
        assert list(refused.fields) == ["page_token"]


def test_a_page_beyond_the_end_is_empty(server: Running) -> None:
    token = server.search(SearchRequest(query=QUERY, page_size=5)).next_page_token
    content = json.loads(base64.urlsafe_b64decode(token))
    for offset in (10_000, 2**31, 10**30):
        answer = server.search(SearchRequest(query=QUERY, page_token=encoded(**{**content, "offset": offset})))
        assert (ids(answer), answer.next_page_token) == ([], "")


def test_an_unset_filter_and_an_empty_one_are_not_the_same_request() -> None:
    bare = SearchRequest(query=QUERY)
    token = encoded(offset=5, request="no digest")
    with pytest.raises(ViolationError, match=TOKEN):
        offset_of(SearchRequest(query=QUERY, filter=filter_pb2.Filter(), page_token=token))
    assert offset_of(bare) == 0
