"""GetProduct: the product as the catalogue gave it."""

import grpc
import pytest
from google.rpc import error_details_pb2
from harness import Running, refusal
from vitrine.v1 import catalog_service_pb2

Request = catalog_service_pb2.GetProductRequest
FIELDS = ("title", "category", "brand", "price", "in_stock")


def test_every_column_comes_back(server: Running) -> None:
    for row in server.live.state.snapshot.products.slice(0, 50).to_pylist():
        product = server.product(Request(product_id=row["product_id"]))
        assert product.id == row["product_id"]
        for name in FIELDS:
            value = row.pop(name)
            assert (getattr(product, name) if product.HasField(name) else None) == value if name != "title" else value
        del row["product_id"]
        assert set(product.attributes) == {name for name, value in row.items() if value is not None}
        for name, value in product.attributes.items():
            assert getattr(value, value.WhichOneof("kind")) == row[name]


@pytest.mark.parametrize("name", ["no such", "靴" * 40, "a\nb", "[/b]"])
def test_an_unknown_product_is_not_found(server: Running, name: str) -> None:
    refused = refusal(server.product, Request(product_id=name))
    assert refused.code is grpc.StatusCode.NOT_FOUND
    (info,) = refused.details
    assert isinstance(info, error_details_pb2.ResourceInfo)
    assert (info.resource_type, info.resource_name) == ("product", name)
