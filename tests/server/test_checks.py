"""Bad input over a socket: every fault is named by its field, all at once, and the server goes on answering."""

import math
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from harness import RecommendRequest, Running, SearchRequest, SimilarRequest, equals, ids, refusal
from vitrine.v1 import catalog_service_pb2, search_service_pb2

from server.checks import Checks, identifier, page_size
from server.faults import ViolationError

MEGABYTE = "x" * 1_000_000
INVALID = grpc.StatusCode.INVALID_ARGUMENT
GetProductRequest = catalog_service_pb2.GetProductRequest
Vector = search_service_pb2.QueryVector
NAN = math.nan


@pytest.fixture(autouse=True)
def _still_answers(server: Running) -> Any:
    """Whatever a test sends, the next request is answered."""
    yield
    assert len(ids(server.search(SearchRequest(query="red boots"), timeout=10))) == 24


@pytest.mark.parametrize(
    ("rpc", "request_", "field", "says"),
    [
        ("search", SearchRequest(), "query", "must be given"),
        ("search", SearchRequest(query=""), "query", "is empty"),
        ("search", SearchRequest(query=" \t\n　 "), "query", "is empty"),
        ("search", SearchRequest(query="\x00\x01\x1f"), "query", "is empty"),
        ("search", SearchRequest(query="x" * 100_000), "query", "has 100000 characters; at most 1000"),
        ("search", SearchRequest(query="x" * 1_001), "query", "has 1001 characters"),
        ("search", SearchRequest(query="x", read_mask=FieldMask(paths=["product.id", "x"])), "read_mask", "'x' is no"),
        ("recommend", RecommendRequest(read_mask=FieldMask(paths=["product.colour"])), "read_mask", "product.colour"),
        ("similar", SimilarRequest(product_id="x", read_mask=FieldMask(paths=[""])), "read_mask", "no field"),
        ("search", SearchRequest(query_vector=Vector()), "query_vector", "has 0 values"),
        ("search", SearchRequest(query_vector=Vector(values=[1.0] * 3)), "query_vector", "has 3 values"),
        ("search", SearchRequest(query_vector=Vector(values=[1.0] * 200_000)), "query_vector", "has 200000 values"),
        ("search", SearchRequest(query_vector=Vector(values=[0.0] * 32)), "query_vector", "all zeros"),
        ("search", SearchRequest(query_vector=Vector(values=[NAN] * 32)), "query_vector", "NaN"),
        ("search", SearchRequest(query_vector=Vector(values=[1.0] * 31 + [math.inf])), "query_vector", "infinity"),
        ("recommend", RecommendRequest(user_vector=[1.0] * 3), "user_vector", "has 3 values"),
        ("recommend", RecommendRequest(user_vector=[0.0] * 16), "user_vector", "all zeros"),
        ("recommend", RecommendRequest(user_vector=[NAN] * 16), "user_vector", "NaN"),
        ("search", SearchRequest(query="x", user_id=MEGABYTE), "user_id", "1000000 bytes"),
        ("search", SearchRequest(query="x", request_id=MEGABYTE), "request_id", "1000000 bytes"),
        ("search", SearchRequest(query="x", recent_product_ids=["a", MEGABYTE]), "recent_product_ids[1]", "bytes"),
        ("recommend", RecommendRequest(user_id=MEGABYTE), "user_id", "1000000 bytes"),
        ("recommend", RecommendRequest(request_id=MEGABYTE), "request_id", "1000000 bytes"),
        ("recommend", RecommendRequest(recent_product_ids=[MEGABYTE]), "recent_product_ids[0]", "bytes"),
        ("similar", SimilarRequest(product_id=MEGABYTE), "product_id", "1000000 bytes"),
        ("similar", SimilarRequest(product_id="x", request_id=MEGABYTE), "request_id", "1000000 bytes"),
        ("product", GetProductRequest(product_id=MEGABYTE), "product_id", "1000000 bytes"),
        ("product", GetProductRequest(), "product_id", "must be given"),
        ("similar", SimilarRequest(), "product_id", "must be given"),
        ("search", SearchRequest(query="x", recent_product_ids=["a"] * 51), "recent_product_ids", "has 51 ids"),
        ("recommend", RecommendRequest(recent_product_ids=["a"] * 51), "recent_product_ids", "has 51 ids"),
        ("recommend", RecommendRequest(recent_product_ids=["a", ""]), "recent_product_ids[1]", "must be given"),
        ("search", SearchRequest(query="x", filter=equals("colour?", 1.0)), "filter.equals.column", "there are: brand"),
        ("recommend", RecommendRequest(filter=equals("price", "x")), "filter.equals.value", "number_value"),
        ("similar", SimilarRequest(product_id="x", filter=equals("price", True)), "filter.equals.value", "number"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_a_fault_is_named_by_its_field(server: Running, rpc: str, request_: Any, field: str, says: str) -> None:
    refused = refusal(getattr(server, rpc), request_)
    assert (refused.code, list(refused.fields)) == (INVALID, [field])
    assert says in refused.fields[field]
    assert refused.message.startswith(f"{field}: ")


def test_all_faults_of_a_request_are_told_at_once(server: Running) -> None:
    bad = SearchRequest(
        query=" ",
        user_id=MEGABYTE[:200],
        request_id=MEGABYTE[:200],
        recent_product_ids=[""],
        filter=equals("nothing", 1.0),
        page_size=-1,
        page_token="garbage",
    )
    refused = refusal(server.search, bad)
    fields = {"query", "user_id", "request_id", "recent_product_ids[0]", "filter.equals.column", "page_size"}
    assert (refused.code, set(refused.fields)) == (INVALID, fields | {"page_token"})
    refused = refusal(server.recommend, RecommendRequest(user_vector=[1.0], page_size=-1, page_token="garbage"))
    assert set(refused.fields) == {"user_vector", "page_size", "page_token"}
    refused = refusal(server.similar, SimilarRequest(page_size=-1, filter=equals("price", "x")))
    assert set(refused.fields) == {"product_id", "page_size", "filter.equals.value"}


METHODS = (
    "SearchService/Search",
    "SearchService/Similar",
    "RecommendService/Recommend",
    "EventService/WriteEvents",
    "CatalogService/GetProduct",
)


@pytest.mark.parametrize("method", METHODS)
def test_bytes_that_are_no_message_are_refused(server: Running, method: str) -> None:
    # Field 1 of length 2 with bytes that are not UTF-8; a length beyond the end; a field number 0; random bytes.
    for data in (b"\x0a\x02\xff\xfe", b"\x0a\x7fabc", b"\x00\x01", b"\xff" * 100):
        refused = refusal(server.raw, method, data)
        assert (refused.code, list(refused.fields)) == (INVALID, ["request"])
        assert "text must be UTF-8" in refused.fields["request"]


def test_the_largest_of_everything_is_accepted(server: Running) -> None:
    answer = server.search(
        SearchRequest(
            query="靴" * 1_000,
            user_id="u" * 128,
            request_id="r" * 128,
            recent_product_ids=server.live.state.snapshot.ids[:50],
            page_size=10_000,
        )
    )
    assert len(answer.hits) == 100
    assert answer.info.request_id == "r" * 128


@pytest.mark.parametrize("query", ["\x00boot", "‮", "a" * 1_000, "🥾" * 500, "%s %d {}", "' OR 1=1 --", "ﷺ" * 1_000])
def test_strange_queries_are_answered(server: Running, query: str) -> None:
    assert len(server.search(SearchRequest(query=query)).hits) == 24


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e20, 1e37])
def test_a_vector_is_scaled_to_unit_length(server: Running, scale: float) -> None:
    plain = server.search(SearchRequest(query_vector=Vector(values=[1.0] * 32), page_size=10))
    scaled = server.search(SearchRequest(query_vector=Vector(values=[scale] * 32), page_size=10))
    assert ids(scaled) == ids(plain)


def test_an_rpc_nobody_serves(server: Running) -> None:
    assert refusal(server.raw, "SearchService/Autocorrect", b"").code is grpc.StatusCode.UNIMPLEMENTED


def test_checks_gather_and_go_on() -> None:
    faults = Checks()
    assert faults.run(identifier, "ok", "a", default="") == "ok"
    assert faults.run(identifier, "", "b", required=True, default="none") == "none"
    assert faults.run(page_size, -1, default=7) == 7
    with pytest.raises(ExceptionGroup) as caught:
        faults.done()
    assert [e.field for e in caught.value.exceptions if isinstance(e, ViolationError)] == ["b", "page_size"]
    Checks().done()


def test_an_id_is_measured_in_bytes() -> None:
    check: Callable[..., str] = identifier
    assert check("靴" * 42, "id") == "靴" * 42
    with pytest.raises(ViolationError, match="129 bytes"):
        check("靴" * 43, "id")


def test_an_id_has_no_character_that_no_text_of_a_database_may_have() -> None:
    with pytest.raises(ViolationError, match="holds a NUL character"):
        identifier("a\0b", "id")
