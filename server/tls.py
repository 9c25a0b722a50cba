"""TLS: what a server proves itself with, and what it asks of callers."""

import ipaddress
import ssl
from pathlib import Path

import grpc

from indexer.errors import ConfigError
from server.config import ServerConfig


def server_credentials(config: ServerConfig) -> grpc.ServerCredentials | None:
    """From the files that the configuration names; None without. Raises `ConfigError` where they cannot be used."""
    if config.tls_certificate is None or config.tls_key is None:
        return None
    certificate, key = _read(config.tls_certificate, "tls_certificate"), _read(config.tls_key, "tls_key")
    authority = None if config.tls_client_ca is None else _read(config.tls_client_ca, "tls_client_ca")
    # gRPC would say so of the first connection only, and to nobody who reads it.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password for the key nobody is asked for one.
        context.load_cert_chain(config.tls_certificate, config.tls_key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"server.tls_certificate = {config.tls_certificate} and server.tls_key = {config.tls_key} are not a "
            f"certificate and its unencrypted key, both as PEM: {error}."
        ) from error
    if config.tls_client_ca is not None:
        try:
            context.load_verify_locations(config.tls_client_ca)
        except ssl.SSLError as error:
            raise ConfigError(
                f"server.tls_client_ca = {config.tls_client_ca} holds no certificates as PEM: {error}."
            ) from error
    return grpc.ssl_server_credentials([(key, certificate)], authority, require_client_auth=authority is not None)


def _read(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"server.{name} = {path} cannot be read: {error.strerror}.") from error


def is_open(config: ServerConfig) -> bool:
    """Whether others than this machine's own programs can connect, without proving who they are."""
    try:
        own = ipaddress.ip_address(config.address.strip("[]")).is_loopback
    except ValueError:
        own = config.address == "localhost"
    return not own and config.tls_client_ca is None
