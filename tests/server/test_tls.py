"""TLS: who can talk to a server that has a certificate, and to one that asks for one."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import trustme
from google.protobuf import descriptor_pool
from harness import RecommendRequest, Running
from pydantic import ValidationError
from typer.testing import CliRunner, Result
from vitrine.v1 import catalog_service_pb2, event_pb2, event_service_pb2, product_pb2, recommend_service_pb2_grpc

from indexer.errors import ConfigError
from server.cli import app
from server.client import ServerError
from server.config import ServerConfig, load_settings
from server.permissions import WRITING
from server.tls import is_open, server_credentials


class Files(NamedTuple):
    """An authority, and a certificate of it with its key."""

    ca: Path
    certificate: Path
    key: Path


def made(folder: Path, *names: str) -> Files:
    folder.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert(*names)
    files = Files(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(files.ca)
    files.certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(files.key)
    return files


@pytest.fixture
def ours(tmp_path: Path) -> Files:
    return made(tmp_path / "ours", "127.0.0.1")


@pytest.fixture
def backend(tmp_path: Path) -> Files:
    return made(tmp_path / "backend", "backend@shop.example")


@pytest.fixture
def stranger(tmp_path: Path) -> Files:
    return made(tmp_path / "stranger", "stranger@shop.example")


Start = Callable[..., Running]


def recommended(server: Running, ca: Files, mine: Files | None = None) -> int:
    """How many products a caller gets who trusts `ca` and shows `mine`."""
    own = (None, None) if mine is None else (mine.key.read_bytes(), mine.certificate.read_bytes())
    credentials = grpc.ssl_channel_credentials(ca.ca.read_bytes(), *own)
    with grpc.secure_channel(server.address, credentials) as channel:
        stub = recommend_service_pb2_grpc.RecommendServiceStub(channel)
        return len(stub.Recommend(RecommendRequest(user_id="u", page_size=3), timeout=10).hits)


def refused(server: Running, *files: Files) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        recommended(server, *files)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]


def test_with_a_certificate_only_tls_is_spoken(start: Start, ours: Files, stranger: Files) -> None:
    server = start(tls_certificate=ours.certificate, tls_key=ours.key)
    assert recommended(server, ours) == 3
    # The server is not whom this caller trusts.
    refused(server, stranger)
    with pytest.raises(grpc.RpcError):
        server.recommend(RecommendRequest(user_id="u"), timeout=5)


def test_callers_prove_who_they_are_where_that_is_asked(
    start: Start, ours: Files, backend: Files, stranger: Files
) -> None:
    server = start(tls_certificate=ours.certificate, tls_key=ours.key, tls_client_ca=backend.ca)
    assert recommended(server, ours, backend) == 3
    refused(server, ours)
    refused(server, ours, stranger)


def run(server: Running, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--address", server.address], catch_exceptions=False)


def test_the_commands_speak_tls(start: Start, ours: Files, backend: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start(tls_certificate=ours.certificate, tls_key=ours.key, tls_client_ca=backend.ca)
    words = ("--tls-ca", str(ours.ca), "--tls-cert", str(backend.certificate), "--tls-key", str(backend.key))
    product = server.live.state.snapshot.ids[0]
    for command in (("search", "boots"), ("recommend", "u"), ("similar", product), ("status", "--wait", "10")):
        assert run(server, *command, *words).exit_code == 0
    for name, path in zip(("CA", "CERT", "KEY"), (ours.ca, backend.certificate, backend.key), strict=True):
        monkeypatch.setenv(f"VITRINE_TLS_{name}", str(path))
    assert run(server, "status").exit_code == 0


def test_a_command_without_the_files_says_what_may_be_missing(start: Start, ours: Files, tmp_path: Path) -> None:
    server = start(tls_certificate=ours.certificate, tls_key=ours.key)
    with pytest.raises(ServerError, match="One that speaks TLS answers with --tls-ca"):
        run(server, "search", "boots")
    for words, told in (
        (("--tls-cert", "x"), "--tls-cert and --tls-key go together"),
        (("--tls-cert", "x", "--tls-key", "y"), "--tls-cert needs --tls-ca"),
        (("--tls-ca", str(tmp_path / "none.pem")), r"none\.pem cannot be read: No such file"),
    ):
        with pytest.raises(ConfigError, match=told):
            run(server, "search", "boots", *words)


def config(**files: Any) -> ServerConfig:
    return ServerConfig.model_validate(files)


def test_files_that_cannot_be_used_are_named(ours: Files, stranger: Files, tmp_path: Path) -> None:
    assert server_credentials(config()) is None
    assert server_credentials(config(tls_certificate=ours.certificate, tls_key=ours.key)) is not None
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigError, match=r"server\.tls_key = .*missing\.pem cannot be read: No such file"):
        server_credentials(config(tls_certificate=ours.certificate, tls_key=missing))
    for key in (stranger.key, ours.certificate):
        with pytest.raises(ConfigError, match="are not a certificate and its unencrypted key"):
            server_credentials(config(tls_certificate=ours.certificate, tls_key=key))
    (empty := tmp_path / "empty.pem").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"server\.tls_client_ca = .*empty\.pem holds no certificates"):
        server_credentials(config(tls_certificate=ours.certificate, tls_key=ours.key, tls_client_ca=empty))


WRITES: dict[str, Any] = {
    "EventService/WriteEvents": event_service_pb2.WriteEventsRequest(
        events=[event_pb2.Event(type=event_pb2.Event.CLICK, items=[event_pb2.Event.Item(product_id="p")])]
    ),
    "EventService/EraseUser": event_service_pb2.EraseUserRequest(user_id="u"),
    "CatalogService/SetInventory": catalog_service_pb2.SetInventoryRequest(
        items=[catalog_service_pb2.SetInventoryRequest.Item(product_id="p", price=1.0)]
    ),
    "CatalogService/DeleteProducts": catalog_service_pb2.DeleteProductsRequest(product_ids=["p"]),
    "CatalogService/UpsertProducts": catalog_service_pb2.UpsertProductsRequest(
        items=[catalog_service_pb2.UpsertProductsRequest.Item(product=product_pb2.Product(id="p", title="boot"))]
    ),
}


def called(server: Running, ca: Files, mine: Files, method: str, request: Any) -> bytes:
    credentials = grpc.ssl_channel_credentials(ca.ca.read_bytes(), mine.key.read_bytes(), mine.certificate.read_bytes())
    with grpc.secure_channel(server.address, credentials) as channel:
        answer: bytes = channel.unary_unary(f"/vitrine.v1.{method}")(request.SerializeToString(), timeout=10)
    return answer


def test_only_the_writers_write(start: Start, ours: Files, backend: Files) -> None:
    files = {"tls_certificate": ours.certificate, "tls_key": ours.key, "tls_client_ca": backend.ca}
    reads = start(**files, tls_writers=("prices@shop.example",))
    assert recommended(reads, ours, backend) == 3
    for method, request in WRITES.items():
        with pytest.raises(grpc.RpcError) as caught:
            called(reads, ours, backend, method, request)
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]
        assert "this one's certificate bears backend@shop.example" in caught.value.details()  # type: ignore[attr-defined]
    assert reads.live.journal.position() == (0, 0, 0, 0)


@pytest.mark.parametrize("writers", [(), ("prices@shop.example", "backend@shop.example")])
def test_writers_write_and_without_any_all_do(
    start: Start, ours: Files, backend: Files, writers: tuple[str, ...]
) -> None:
    files = {"tls_certificate": ours.certificate, "tls_key": ours.key, "tls_client_ca": backend.ca}
    server = start(**files, tls_writers=writers)
    for method, request in WRITES.items():
        called(server, ours, backend, method, request)
    assert min(server.live.journal.position()) > 0


def test_the_rpcs_that_write_are_rpcs_of_the_contract() -> None:
    """A name that is mistyped would leave an rpc open."""
    assert {f"/vitrine.v1.{method}" for method in WRITES} == WRITING
    for method in WRITING:
        service, name = method.removeprefix("/").split("/")
        pool = descriptor_pool.Default()
        assert name in pool.FindServiceByName(service).methods_by_name


def test_writers_without_certificates_of_callers_are_refused() -> None:
    with pytest.raises(ValidationError, match="tls_writers needs tls_client_ca"):
        config(tls_certificate="c", tls_key="k", tls_writers=["backend"])


@pytest.mark.parametrize("name", ["tls_certificate", "tls_key", "tls_client_ca"])
def test_one_file_alone_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="tls_certificate"):
        config(**{name: "x.pem"})


def test_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "vitrine.toml"
    path.write_text('[server]\ntls_certificate = "tls/c.pem"\ntls_key = "tls/k.pem"\n', encoding="utf-8")
    found = load_settings(path).server
    assert (found.tls_certificate, found.tls_key) == (tmp_path / "tls/c.pem", tmp_path / "tls/k.pem")
    assert found.tls_client_ca is None


@pytest.mark.parametrize(
    ("address", "open_to_others"),
    [("127.0.0.1", False), ("localhost", False), ("[::1]", False), ("0.0.0.0", True), ("[::]", True), ("shop", True)],
)
def test_an_address_that_others_reach_is_known(address: str, open_to_others: bool) -> None:
    assert is_open(config(address=address)) == open_to_others
    files = {"tls_certificate": "c", "tls_key": "k"}
    # Encryption alone keeps nobody out.
    assert is_open(config(address=address, **files)) == open_to_others
    assert not is_open(config(address=address, **files, tls_client_ca="a"))


@pytest.mark.parametrize(("address", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_listening_to_others_is_told(
    start: Start, address: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "server.app"):
        start(address=address)
    assert ("can read and erase what users did" in caplog.text) == warned
