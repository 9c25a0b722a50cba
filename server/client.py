"""The commands that ask a running server: search, recommend, similar, suggest, status."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import grpc
import typer
from google.protobuf.json_format import MessageToDict, MessageToJson
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from rich.console import Console
from rich.table import Table
from vitrine.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    event_pb2,
    facet_pb2,
    filter_pb2,
    order_pb2,
    recommend_service_pb2,
    recommend_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)

from indexer.errors import ConfigError, VitrineError
from server import answers

Address = Annotated[str, typer.Option(help="host:port of the server.", envvar="VITRINE_ADDRESS")]
Ca = Annotated[
    Path | None,
    typer.Option("--tls-ca", help="PEM: who signed the server's certificate. TLS is spoken.", envvar="VITRINE_TLS_CA"),
]
Certificate = Annotated[
    Path | None, typer.Option("--tls-cert", help="PEM: your own certificate.", envvar="VITRINE_TLS_CERT")
]
Key = Annotated[Path | None, typer.Option("--tls-key", help="PEM: its key.", envvar="VITRINE_TLS_KEY")]
Size = Annotated[int, typer.Option("--size", "-n", help="How many products.")]
Explain = Annotated[bool, typer.Option("--explain", help="Say what each score is made of.")]
WithoutRules = Annotated[bool, typer.Option("--without-rules", help="As if there were no rules of a merchandiser.")]
User = Annotated[str, typer.Option(help="Rank for this user.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the whole response as JSON.")]
MaxPrice = Annotated[float | None, typer.Option(help="Only products up to this price.")]
Category = Annotated[str | None, typer.Option(help="Only products of this category.")]
Facets = Annotated[list[str] | None, typer.Option("--facet", help="Count the values of this column; may be repeated.")]
Exclude = Annotated[
    list[str] | None,
    typer.Option(help="Leave out what the user did this with, such as purchase; may be repeated."),
]
OrderBy = Annotated[str, typer.Option(help="Order the best by this column of numbers, such as price.")]
Descending = Annotated[bool, typer.Option("--descending", help="With --order-by: the greatest first.")]
InStock = Annotated[bool, typer.Option("--in-stock", help="Only products in stock.")]
DEFAULT_ADDRESS = "127.0.0.1:50051"
# A person waits longer than a shop's page does.
_TIMEOUT = 30.0

# Titles and ids are shown as they are: brackets and colons in them are no markup.
out = Console(markup=False, emoji=False)


class ServerError(VitrineError):
    """The server could not be reached, or refused."""

    exit_code = 7


class Server(NamedTuple):
    """Where a server is, and the files for TLS."""

    address: str
    ca: Path | None
    certificate: Path | None
    key: Path | None

    def channel(self) -> grpc.Channel:
        """A channel to it. Raises `ConfigError` where a file cannot be used."""
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("--tls-cert and --tls-key go together.")
        if self.ca is None:
            if self.certificate is not None:
                raise ConfigError("--tls-cert needs --tls-ca: without it TLS is not spoken.")
            return grpc.insecure_channel(self.address)
        files = (self.ca, self.key, self.certificate)
        try:
            read = [None if path is None else path.read_bytes() for path in files]
        except OSError as error:
            raise ConfigError(f"{error.filename} cannot be read: {error.strerror}.") from error
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(*read))


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    user: User = "",
    size: Size = 10,
    explain: Explain = False,
    max_price: MaxPrice = None,
    category: Category = None,
    in_stock: InStock = False,
    facet: Facets = None,
    order_by: OrderBy = "",
    descending: Descending = False,
    without_rules: WithoutRules = False,
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Search a running server."""
    request = search_service_pb2.SearchRequest(
        query=query,
        user_id=user,
        page_size=size,
        filter=_filter(max_price, category, in_stock),
        explain=explain,
        facets=[facet_pb2.FacetSpec(column=column) for column in facet or []],
        without_rules=without_rules,
        order_by=_order(order_by, descending),
    )
    server = Server(address, ca, certificate, key)
    _ask(server, search_service_pb2_grpc.SearchServiceStub, "Search", request, f"search “{query}”", as_json)


def recommend(
    user: Annotated[str, typer.Argument(help="A user id; an unknown one gets what is popular.")],
    recent: Annotated[list[str] | None, typer.Option(help="A product just looked at; may be repeated.")] = None,
    size: Size = 10,
    explain: Explain = False,
    max_price: MaxPrice = None,
    category: Category = None,
    in_stock: InStock = False,
    exclude: Exclude = None,
    order_by: OrderBy = "",
    descending: Descending = False,
    without_rules: WithoutRules = False,
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Recommend products to a user."""
    request = recommend_service_pb2.RecommendRequest(
        user_id=user,
        recent_product_ids=recent or [],
        page_size=size,
        filter=_filter(max_price, category, in_stock),
        explain=explain,
        exclude=[_event_type(name) for name in exclude or []],
        without_rules=without_rules,
        order_by=_order(order_by, descending),
    )
    stub = recommend_service_pb2_grpc.RecommendServiceStub
    _ask(Server(address, ca, certificate, key), stub, "Recommend", request, f"recommend to {user}", as_json)


def similar(
    product: Annotated[str, typer.Argument(help="A product id.")],
    size: Size = 10,
    max_price: MaxPrice = None,
    category: Category = None,
    in_stock: InStock = False,
    without_rules: WithoutRules = False,
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Find products like a product."""
    request = search_service_pb2.SimilarRequest(
        product_id=product,
        page_size=size,
        filter=_filter(max_price, category, in_stock),
        without_rules=without_rules,
    )
    server = Server(address, ca, certificate, key)
    _ask(server, search_service_pb2_grpc.SearchServiceStub, "Similar", request, f"similar to {product}", as_json)


def suggest(
    typed: Annotated[str, typer.Argument(help="What was typed so far; nothing asks for the first of all.")] = "",
    size: Annotated[int, typer.Option("--size", "-n", help="How many queries, and how many values.")] = 10,
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Suggest what a query being typed may become."""
    request = search_service_pb2.SuggestRequest(query=typed, max_suggestions=size)
    server = Server(address, ca, certificate, key)
    stub, title = search_service_pb2_grpc.SearchServiceStub, f"suggestions for “{typed}”"
    _ask(server, stub, "Suggest", request, title, as_json, answers.show_suggestions)


def status(
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until the server is ready to serve.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Show what a running server serves."""
    server = Server(address, ca, certificate, key)
    if wait:
        _until_serving(server, wait)
    request = admin_service_pb2.GetStatusRequest()
    response, _ = call(server, admin_service_pb2_grpc.AdminServiceStub, "GetStatus", request)
    if as_json:
        print(MessageToJson(response, ensure_ascii=False))
        return
    table = Table("", "", title=address, show_header=False)
    for name, value in MessageToDict(response, preserving_proto_field_name=True).items():
        table.add_row(name, str(value))
    out.print(table)


def _until_serving(server: Server, seconds: float) -> None:
    """Wait for the standard health service to say SERVING."""
    deadline = time.monotonic() + seconds
    with server.channel() as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=seconds)
            watch = health_pb2_grpc.HealthStub(channel).Watch
            for answer in watch(health_pb2.HealthCheckRequest(), timeout=max(deadline - time.monotonic(), 0.0)):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
        except (grpc.FutureTimeoutError, grpc.RpcError):
            raise ServerError(
                f"{server.address} did not begin to serve within {seconds:.0f} s. Look at the server's log."
            ) from None


def _filter(max_price: float | None, category: str | None, in_stock: bool) -> filter_pb2.Filter | None:
    parts = []
    if max_price is not None:
        parts.append(filter_pb2.Filter(range=filter_pb2.Range(column="price", max=max_price)))
    if category is not None:
        value = filter_pb2.Value(string_value=category)
        parts.append(filter_pb2.Filter(equals=filter_pb2.Equals(column="category", value=value)))
    if in_stock:
        value = filter_pb2.Value(bool_value=True)
        parts.append(filter_pb2.Filter(equals=filter_pb2.Equals(column="in_stock", value=value)))
    return filter_pb2.Filter(all=filter_pb2.FilterList(filters=parts)) if parts else None


def _order(column: str, descending: bool) -> order_pb2.OrderBy | None:
    if descending and not column:
        raise ConfigError("--descending needs --order-by, which says what is ordered.")
    return order_pb2.OrderBy(column=column, descending=descending) if column else None


def _event_type(name: str) -> Any:
    types = dict(event_pb2.Event.Type.items())
    if name.upper() not in types:
        known = ", ".join(each.lower() for each, number in types.items() if number)
        raise ConfigError(f"--exclude {name}: there is no such event; there are {known}.")
    return types[name.upper()]


def _ask(
    server: Server,
    stub: Callable[[grpc.Channel], Any],
    method: str,
    request: Any,
    title: str,
    as_json: bool,
    show: Callable[[Console, Any, str, float], None] = answers.show,
) -> None:
    response, seconds = call(server, stub, method, request)
    if as_json:
        print(MessageToJson(response, ensure_ascii=False))
        return
    show(out, response, title, seconds)


def call(server: Server, stub: Callable[[grpc.Channel], Any], method: str, request: Any) -> tuple[Any, float]:
    """The response, and the seconds it took on an open connection. Raises `ServerError`."""
    with server.channel() as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=2.0)
        except grpc.FutureTimeoutError:
            raise ServerError(
                f"No server answers at {server.address}. Start one with `vitrine serve`, or give --address. One that "
                "speaks TLS answers with --tls-ca, and one that asks for certificates with --tls-cert and --tls-key."
            ) from None
        start = time.perf_counter()
        try:
            response = getattr(stub(channel), method)(request, timeout=_TIMEOUT)
        except grpc.RpcError as error:
            raise ServerError(_refusal(error)) from None
        return response, time.perf_counter() - start


def _refusal(error: Any) -> str:
    lines = [f"{error.code().name}: {error.details()}"]
    rich_status = rpc_status.from_call(error)
    for detail in rich_status.details if rich_status else []:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            lines += [f"  {violation.field}: {violation.description}" for violation in bad.field_violations]
    return "\n".join(lines)


COMMANDS: dict[str, Callable[..., None]] = {
    "search": search,
    "recommend": recommend,
    "similar": similar,
    "suggest": suggest,
    "status": status,
}
