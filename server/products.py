"""The commands that change and show products of a running server: set, delete, upsert and show."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from google.protobuf.json_format import MessageToDict, MessageToJson
from rich.table import Table
from vitrine.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
)

from indexer.errors import ConfigError
from server.client import DEFAULT_ADDRESS, Address, AsJson, Ca, Certificate, Key, Server, ServerError, call, out

product = typer.Typer(help="Live changes to the products of a running server.", no_args_is_help=True)

Product = Annotated[str, typer.Argument(metavar="ID", help="The product id.")]


@product.command("set")
def set_inventory(
    name: Product,
    price: Annotated[float | None, typer.Option(min=0, help="The price from now on.")] = None,
    in_stock: Annotated[bool | None, typer.Option("--in-stock/--out-of-stock", help="Its stock from now on.")] = None,
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Change the price or the stock of a product in the next answer; a newer catalogue file overrules it."""
    if price is None and in_stock is None:
        raise ConfigError("Say what to set: --price, --in-stock or --out-of-stock.")
    item = catalog_service_pb2.SetInventoryRequest.Item(product_id=name, price=price)
    if in_stock is not None:
        item.in_stock = in_stock
    request = catalog_service_pb2.SetInventoryRequest(items=[item])
    response = _ask(Server(address, ca, certificate, key), "SetInventory", request)
    if response.outdated:
        out.print(f"{name} is left as it is: something newer is known of it.", soft_wrap=True)
    elif not response.unknown_product_ids:
        out.print(f"{name} is set.", soft_wrap=True)
    _tell_unknown(response.unknown_product_ids, "It is kept, and counts once a release does.")


@product.command("delete")
def delete(
    names: Annotated[list[str], typer.Argument(metavar="ID...", help="Product ids.")],
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Delist products: they are in no further answer, until a newer catalogue file or an upsert brings them back."""
    request = catalog_service_pb2.DeleteProductsRequest(product_ids=names)
    response = _ask(Server(address, ca, certificate, key), "DeleteProducts", request)
    out.print(f"Products deleted: {response.deleted}; deleted before: {response.already_deleted}.")
    _tell_unknown(response.unknown_product_ids, "A release of an older catalogue will not list it.")


@product.command("upsert")
def upsert(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A catalogue: CSV, JSON Lines, Parquet.")
    ],
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=YOURS", help="A name that differs, such as title=name; may be repeated."),
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Add the products of a file, or replace what is known of them; new and changed ones are found so at once.

    Nothing is sent where a row cannot be used: exit code 3, and standard error has its line and reason.
    """
    # It reads files with polars, which takes a third of a second to import.
    from server import product_file

    columns, server = product_file.renamed(column or []), Server(address, ca, certificate, key)
    products = product_file.read(path, columns)
    status, _ = call(server, admin_service_pb2_grpc.AdminServiceStub, "GetStatus", admin_service_pb2.GetStatusRequest())
    written = outdated = pending = 0
    for request in product_file.requests(products, status.filter_columns):
        response = _sent(server, request, path, written + outdated)
        written += response.written
        outdated += response.outdated
        pending += len(response.pending_product_ids)
    out.print(f"Products written: {written}; outdated: {outdated}; pending: {pending}.")
    if pending:
        out.print(
            "What is pending comes with `vitrine refresh`: so many products are new or changed since the live release "
            "that the rest waits, but for prices and stock.",
            soft_wrap=True,
        )


@product.command("show")
def show(
    name: Product,
    address: Address = DEFAULT_ADDRESS,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Show a product as it is answered now. Exit code 7 where it was deleted, or is not known."""
    request = catalog_service_pb2.GetProductRequest(product_id=name)
    response = _ask(Server(address, ca, certificate, key), "GetProduct", request)
    if as_json:
        print(MessageToJson(response, ensure_ascii=False))
        return
    table = Table("", "", title=name, show_header=False)
    told = MessageToDict(response, preserving_proto_field_name=True)
    attributes = told.pop("attributes", {})
    for field, value in told.items():
        table.add_row(field, str(value))
    for field in sorted(attributes):
        table.add_row(field, str(*attributes[field].values()))
    out.print(table)


def _sent(server: Server, request: Any, path: Path, before: int) -> Any:
    """The response to one request of a file, `before` as many of its products."""
    try:
        return _ask(server, "UpsertProducts", request)
    except ServerError as error:
        if not before:
            raise
        raise ServerError(
            f"{error}\nThe first {before} products of {path} are written, and items[0] is the next one. All may be "
            "sent again."
        ) from None


def _ask(server: Server, method: str, request: Any) -> Any:
    stub: Callable[[grpc.Channel], Any] = catalog_service_pb2_grpc.CatalogServiceStub
    response, _ = call(server, stub, method, request)
    return response


def _tell_unknown(names: list[str], what: str) -> None:
    for name in names:
        out.print(f"The live release does not hold {name!r}. {what}", soft_wrap=True)
