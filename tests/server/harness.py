"""What the server's tests share: an encoder without a model, a store made once, and a server in a thread of its own."""

import asyncio
import io
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import grpc
import numpy as np
import polars as pl
import pytest
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from vitrine.v1 import (
    admin_service_pb2_grpc,
    catalog_service_pb2_grpc,
    event_service_pb2_grpc,
    filter_pb2,
    recommend_service_pb2,
    recommend_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)

from indexer import tuned
from indexer.canonical import Dump
from indexer.config import IndexerConfig
from indexer.dumps.registry import write
from indexer.encoder import Encoder
from indexer.store import Store
from indexer.text import token_hashes
from ranker import train
from ranker.config import RankerConfig
from ranker.examples import Example, Slice, Stage
from ranker.space import ProductSpace
from ranker.stages import Prepared
from server import rebuild
from server.app import App, warm_up
from server.config import ServerConfig, Settings
from server.live import EncoderFor, Live
from server.release import Release, Releases

DIMENSIONS = 32
SearchRequest = search_service_pb2.SearchRequest
SimilarRequest = search_service_pb2.SimilarRequest
RecommendRequest = recommend_service_pb2.RecommendRequest
Fallback = recommend_service_pb2.RecommendResponse


@cache
def _token_vector(token: int) -> np.ndarray:
    return np.random.default_rng(token).normal(size=DIMENSIONS).astype(np.float32)


class HashTokeniser:
    """Tokens' hashes numbered from 1 as they are first seen."""

    def __init__(self) -> None:
        self.hashes = [0]
        self._number: dict[int, int] = {}

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self._of(int(token)) for token in token_hashes(text)] for text in texts]

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        width = max(map(len, rows))
        padded = np.array([[*row, *[0] * (width - len(row))] for row in rows])
        return padded, (padded > 0).astype(np.int64)

    def _of(self, token: int) -> int:
        if token not in self._number:
            self._number[token] = len(self.hashes)
            self.hashes.append(token)
        return self._number[token]


class HashEncoder:
    """A text is the sum of one random vector for each of its tokens: shared words make texts near."""

    backend = "numpy"
    choice = None

    def __init__(self, name: str, dimensions: int, tuned: Mapping[str, Any] | None) -> None:
        self.name, self.dimensions, self.tuned = name, dimensions, tuned
        self.fingerprint = f"fingerprint-{name}"
        self.warmed = 0
        self.encoded: list[str] = []
        self.tokeniser = HashTokeniser()

    def warm_up(self) -> None:
        self.warmed += 1

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        self.encoded += texts
        return self._sums([token_hashes(text).tolist() for text in texts])

    def forward(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        return self._sums([[self.tokeniser.hashes[i] for i in row if i] for row in input_ids])

    def _sums(self, texts: Sequence[Sequence[int]]) -> np.ndarray:
        sums = [sum(map(_token_vector, text), _token_vector(0) * 1e-3) for text in texts]
        vectors = np.array(sums, np.float32).reshape(len(texts), DIMENSIONS)[:, : self.dimensions]
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def stream(self, texts: Iterable[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        for text in texts:
            yield [text], self.encode([text])


def hash_encoder(name: str = "hash", dimensions: int = DIMENSIONS, tuned: Mapping[str, Any] | None = None) -> Encoder:
    """A `HashEncoder` where an `Encoder` is wanted; its fingerprint follows from its name."""
    return cast(Encoder, HashEncoder(name, dimensions, tuned))


class Trained(NamedTuple):
    """A store with one live release, the tables it was made of, and what its training saw on the way."""

    dump: Dump
    settings: Settings
    encoder: Encoder
    release: Release
    prepared: Prepared
    stages: list[Stage]
    space: ProductSpace
    slices: dict[Slice, list[Example]]
    log: str

    @property
    def store(self) -> Store:
        return Store(self.settings.store)


def make_settings(folder: Path, query_encoder: str = "full", **ranker: Any) -> Settings:
    """Small and quick; `folder` holds the canonical tables and gets the store."""
    small: dict[str, Any] = {
        "device": "cpu",
        "space": 16,
        "tower_epochs": 2,
        "network_epochs": 2,
        "trees": 30,
        "leaves": 7,
        "candidates": 120,
        "events": folder / "events.parquet",
    }
    return Settings(
        store=folder / "store",
        indexer=IndexerConfig(catalogue=folder / "products.parquet", device="cpu", query_encoder=query_encoder),
        ranker=RankerConfig.model_validate({**small, **ranker}),
        server=ServerConfig.model_validate(
            {"port": 0, "ranking_budget_ms": 0, "network_budget_ms": 0, "reload_seconds": 0.05}
        ),
    )


def make_trained(dump: Dump, folder: Path, encoder: Encoder, **ranker: Any) -> Trained:
    """Run the offline job over `dump`, and keep what its training replayed."""
    write(dump, folder)
    settings = make_settings(folder, **ranker)
    seen: list[Any] = []
    real = train.slice_examples

    def noted(*arguments: Any) -> Any:
        seen.extend((arguments, real(*arguments)))
        return seen[1]

    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuned, "load_encoder", lambda *_: encoder)
        patch.setattr(train, "slice_examples", noted)
        release = rebuild.rebuild(settings, rebuild.JobLog(stream), lambda *_: None, lambda _: None, "first")
    (prepared, stages, space, *_), slices = seen
    return Trained(dump, settings, encoder, release, prepared, stages, space, slices, stream.getvalue())


def copied(trained: Trained, folder: Path, **server: Any) -> Trained:
    """The same release in a store of its own, with other settings of the server."""
    shutil.copytree(trained.settings.store, folder / "store")
    limits = trained.settings.server.model_copy(update=server)
    settings = trained.settings.model_copy(update={"store": folder / "store", "server": limits})
    return trained._replace(settings=settings)


def adopted(trained: Trained, other: Trained) -> Release:
    """The index and the model of another store, brought into this one as its next release."""
    for kind, name in (("indexes", other.release.index), ("models", other.release.model)):
        shutil.copytree(other.store.root / kind / name, trained.store.root / kind / name)
    releases = Releases(trained.store)
    return releases.create(other.release.index, other.release.model, "adopted", trained.settings.indexer)


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result(60)

    def close(self) -> None:
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Running:
    """A server on a free port, and stubs that talk to it over a socket."""

    def __init__(self, trained: Trained, loop: Loop, encoder_for: EncoderFor | None = None) -> None:
        self.trained = trained
        self._loop = loop
        current = Releases(trained.store).current()
        assert current is not None
        self.live = Live(trained.store, trained.settings, encoder_for or (lambda _: trained.encoder), current)
        self.app = loop.run(self._start())
        self.address = f"127.0.0.1:{self.app.port}"
        self.channel = grpc.insecure_channel(self.address)
        search = search_service_pb2_grpc.SearchServiceStub(self.channel)
        self.search, self.similar, self.suggest = search.Search, search.Similar, search.Suggest
        self.recommend = recommend_service_pb2_grpc.RecommendServiceStub(self.channel).Recommend
        events = event_service_pb2_grpc.EventServiceStub(self.channel)
        self.write, self.erase = events.WriteEvents, events.EraseUser
        catalogue = catalog_service_pb2_grpc.CatalogServiceStub(self.channel)
        self.product, self.set = catalogue.GetProduct, catalogue.SetInventory
        self.delete, self.upsert = catalogue.DeleteProducts, catalogue.UpsertProducts
        self.status = admin_service_pb2_grpc.AdminServiceStub(self.channel).GetStatus

    async def _start(self) -> App:
        app = App(self.trained.settings, self.live)
        await app.start()
        return app

    def raw(self, method: str, data: bytes) -> bytes:
        """Send `data` as it is."""
        answer: bytes = self.channel.unary_unary(f"/vitrine.v1.{method}")(data, timeout=10)
        return answer

    def swap(self, release: Release) -> None:
        """Make `release` live now, without waiting for the watcher."""
        self.live.swap(release, warm_up)

    def stop(self) -> None:
        """Drain; a second time does nothing."""
        if self.app.port:
            self._loop.run(self.app.stop())
            self.app.port = 0
        self.channel.close()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Refusal(NamedTuple):
    """How a call ended that was not answered: its code, and the descriptions by field."""

    code: grpc.StatusCode
    fields: dict[str, str]
    details: list[Any]
    message: str


def refusal(call: Callable[..., Any], *arguments: Any) -> Refusal:
    """Call, and decode the standard error details."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    error: Any = caught.value
    status = rpc_status.from_call(error)
    fields: dict[str, str] = {}
    details: list[Any] = []
    for packed in status.details if status else []:
        for kind in (error_details_pb2.BadRequest, error_details_pb2.ResourceInfo, error_details_pb2.RetryInfo):
            detail = kind()
            if packed.Unpack(detail):
                details.append(detail)
    for detail in details:
        for violation in getattr(detail, "field_violations", []):
            fields[violation.field] = violation.description
    return Refusal(error.code(), fields, details, error.details())


def ids(response: Any) -> list[str]:
    """The product ids of an answer, best first."""
    return [hit.product.id for hit in response.hits]


def content(response: Any) -> dict[str, Any]:
    """An answer without what differs each time: token, request id, timings."""
    told: dict[str, Any] = MessageToDict(response, preserving_proto_field_name=True)
    for name in ("attribution_token", "request_id", "timings"):
        told["info"].pop(name, None)
    return told


def channels(hit: Any) -> set[str]:
    """The recall channels that proposed a hit."""
    return {type(source).Channel.Name(source.channel) for source in hit.recall_sources}


def equals(column: str, value: str | float | bool) -> filter_pb2.Filter:
    """A condition in the contract."""
    name = {str: "string_value", bool: "bool_value"}.get(type(value), "number_value")
    return filter_pb2.Filter(equals=filter_pb2.Equals(column=column, value=filter_pb2.Value(**{name: value})))


def at_most(column: str, bound: float) -> filter_pb2.Filter:
    """A range without a lower bound."""
    return filter_pb2.Filter(range=filter_pb2.Range(column=column, max=bound))


def last_time(events: pl.DataFrame) -> float:
    """The time of the last event of a log, in Unix seconds."""
    return float(events["event_time"].dt.epoch("us").max() or 0) / 1e6  # type: ignore[arg-type]


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Return as soon as `condition` holds; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
