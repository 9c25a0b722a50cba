"""vitrine.toml: one file, one table for each folder, every default written once in its field."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from indexer.config import IndexerConfig, Table
from indexer.errors import ConfigError
from ranker.config import RankerConfig


class ServerConfig(Table):
    """Address, batches and limits of the server."""

    address: str = Field("127.0.0.1", description="Where to listen. Anything else opens user data to the network.")
    port: int = Field(50051, ge=0, le=65_535, description="0 takes a free port.")
    tls_certificate: Path | None = Field(
        None, description="PEM: the server's certificate and those up to the root. With it only TLS is spoken."
    )
    tls_key: Path | None = Field(None, description="PEM: the certificate's key, not encrypted.")
    tls_client_ca: Path | None = Field(
        None, description="PEM: authorities. Only callers with a certificate of theirs are then answered."
    )
    tls_writers: tuple[str, ...] = Field(
        (),
        description="Names in callers' certificates that may write, set, upsert, delete and erase. Empty: all callers.",
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65_535,
        description="Where Prometheus reads metrics over HTTP; worker i of several at i - 1 above it. 0: a free port.",
    )
    metrics_address: str = Field("127.0.0.1", description="The address of that port. It tells counts, and of no user.")
    workers: int = Field(
        1, ge=1, description="Server processes on the one port; each new connection goes to one of them."
    )
    threads: int = Field(1, ge=1, description="Worker threads that rank; each takes what waits as one batch.")
    max_batch: int = Field(4, ge=1, description="Most requests in a batch.")
    max_waiting: int = Field(256, ge=1, description="Requests that may wait; beyond it they are refused at once.")
    query_cache: int = Field(
        10_000, ge=0, description="Queries whose vectors are kept, least recently asked out first; 1.5 kB each."
    )
    ranking_budget_ms: float = Field(
        15.0, ge=0, description="A request with less time left than this is answered in recall order, and told so."
    )
    network_budget_ms: float = Field(
        10.0, ge=0, description="A request with only this much more time left is ranked without the DNN, and told so."
    )
    clock: str = Field(
        "wall", pattern="^(wall|log)$", description="log: time goes on from the last event, for a historic data set."
    )
    rules: Path | None = Field(None, description="A merchandiser's rules: a TOML file. None without it.")
    reload_seconds: float = Field(
        1.0, gt=0, description="How often CURRENT is looked at for a new release, and the file of rules for a change."
    )
    grace_seconds: float = Field(10.0, ge=0, description="How long requests in flight may take when the server stops.")

    @field_validator("address")
    @classmethod
    def _bracketed(cls, address: str) -> str:
        # A port is to follow it.
        return f"[{address}]" if ":" in address and not address.startswith("[") else address

    @model_validator(mode="after")
    def _tls(self) -> "ServerConfig":
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls_client_ca is not None and self.tls_key is None:
            raise ValueError(
                "tls_client_ca needs tls_certificate and tls_key: callers prove who they are over TLS only"
            )
        if self.tls_writers and self.tls_client_ca is None:
            raise ValueError("tls_writers needs tls_client_ca: only a certificate tells a caller's name")
        return self


_SERVER_FILES = ("tls_certificate", "tls_key", "tls_client_ca", "rules")


class Settings(Table):
    """The whole file."""

    store: Path = Field(Path("store"), description="Where indexes, models, releases and the journal are kept.")
    journal: SecretStr = Field(
        SecretStr(""),
        description="Empty: the file journal.sqlite of the store. For servers on several machines a PostgreSQL "
        "database: postgresql://user@host/database.",
    )
    indexer: IndexerConfig = Field(default_factory=lambda: IndexerConfig.model_validate({}))
    ranker: RankerConfig = Field(default_factory=lambda: RankerConfig.model_validate({}))
    server: ServerConfig = Field(default_factory=lambda: ServerConfig.model_validate({}))

    @field_validator("journal")
    @classmethod
    def _uri(cls, journal: SecretStr) -> SecretStr:
        scheme, _, rest = journal.get_secret_value().partition("://")
        if journal and scheme not in ("postgresql", "postgres"):
            raise ValueError("must be empty or a connection URI, postgresql://user@host/database")
        # libpq would take a part of such a password for the host, and name that where it does not find it.
        if set(rest.rpartition("@")[0]) & set("/?@"):
            raise ValueError("has one of / ? @ in a name or password; write them as %2F, %3F, %40")
        return journal


def load_settings(path: Path) -> Settings:
    """Read a configuration file; its relative paths are relative to its folder. Raises `ConfigError`."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Give another file with --config.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(
            f"{path} cannot be used:\n" + "\n".join(f"  {_told(e, raw)}" for e in error.errors())
        ) from error
    return _anchored(settings, path.resolve().parent)


def _told(error: Any, raw: dict[str, Any]) -> str:
    """One fault in words; for an unknown key, with the nearest known one."""
    place = ".".join(str(part) for part in error["loc"])
    if place == "journal":
        # It may hold a password.
        return f"{place}: {error['msg']}"
    if error["type"] != "extra_forbidden":
        return f"{place}: {error['msg']} (got {error['input']!r})"
    *tables, key = error["loc"]
    model: Any = Settings
    for table in tables:
        model = model.model_fields[table].annotation
    return f"{place}: {nearest(str(key), list(model.model_fields), ''.join(f'{table}.' for table in tables))}"


def nearest(key: str, known: Sequence[str], within: str = "") -> str:
    """Says that a key is not among the known ones, and which of them is nearest; `within` stands before that."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"unknown key. Did you mean {within}{near[0]}? Known: {', '.join(known)}"


def _anchored(settings: Settings, folder: Path) -> Settings:
    """Every relative path made relative to `folder`."""

    def anchor(path: Path | None) -> Path | None:
        return None if path is None else folder / path

    encoder = settings.indexer.encoder
    local = folder / encoder
    return settings.model_copy(
        update={
            "store": anchor(settings.store),
            "indexer": settings.indexer.model_copy(
                update={
                    "catalogue": anchor(settings.indexer.catalogue),
                    "encoder": str(local) if encoder.startswith(("./", "../")) else encoder,
                }
            ),
            "server": settings.server.model_copy(
                update={name: anchor(getattr(settings.server, name)) for name in _SERVER_FILES}
            ),
            "ranker": settings.ranker.model_copy(
                update={"events": anchor(settings.ranker.events), "judgments": anchor(settings.ranker.judgments)}
            ),
        }
    )
