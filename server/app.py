"""The server put together: load, warm up, listen, follow releases, drain."""

import asyncio
import contextlib
import functools
import gc
import logging
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection
from vitrine.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    event_service_pb2,
    event_service_pb2_grpc,
    recommend_service_pb2,
    recommend_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)

from indexer.errors import VitrineError
from indexer.store import Store
from indexer.threads import pin_to_one_thread
from ranker import exposure
from ranker.journal import JournalError
from server import pipeline, replies
from server.admin_service import AdminService
from server.batcher import Batcher
from server.catalog_service import CatalogService, Changer, Upserter
from server.config import ServerConfig, Settings
from server.desk import Desk
from server.encoder import serving_encoder
from server.event_service import EventService, Writer
from server.live import Live
from server.pipeline import Ask
from server.recommend_service import RecommendService
from server.release import Releases
from server.rpcs import Rpcs
from server.search_service import SearchService
from server.state import State
from server.tls import is_open, server_credentials

if TYPE_CHECKING:
    from server.metrics import Metrics

logger = logging.getLogger(__name__)

_SERVICES = (
    search_service_pb2.DESCRIPTOR.services_by_name["SearchService"].full_name,
    recommend_service_pb2.DESCRIPTOR.services_by_name["RecommendService"].full_name,
    event_service_pb2.DESCRIPTOR.services_by_name["EventService"].full_name,
    catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"].full_name,
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
)
# Titles that are asked for before the first customer, and how many of them at once.
_WARM_UP, _TOGETHER = 20, 4


class App:
    """A running server. Make it with `start`, end it with `stop`."""

    def __init__(self, settings: Settings, live: Live) -> None:
        limits = settings.server
        self._settings = settings
        self._live = live
        self._metrics = _metrics(limits)
        self._desk = Desk(live, limits.max_batch, limits.max_waiting, limits.threads, self._metrics)
        # One writer: SQLite has one too, and what waits for it shares the next commit.
        self._writer: Writer = Batcher(live.write, max_batch=256, max_waiting=limits.max_waiting)
        self._changer: Changer = Batcher(live.change, max_batch=256, max_waiting=limits.max_waiting)
        # Of its own: titles are embedded there, and a price should not wait for that.
        self._upserter: Upserter = Batcher(live.upsert, max_batch=8, max_waiting=limits.max_waiting)
        self._health = health.HealthServicer()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", limits.workers > 1)])
        self.port = self.metrics_port = 0
        self._stop_metrics: Callable[[], None] = lambda: None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen, warm up, then say SERVING. Raises `VitrineError` where address or certificate cannot be used."""
        self._register()
        limits = self._settings.server
        credentials, address = server_credentials(limits), f"{limits.address}:{limits.port}"
        if is_open(limits):
            logger.warning(
                "Whoever can reach %s can read and erase what users did, and delete products: set "
                "server.tls_client_ca, or let nobody but the shop's backend reach it.",
                address,
            )
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise VitrineError(f"{address} cannot be listened on: {error}. Is it in use?") from error
        if self._metrics:
            self._metrics.watch(self._desk)
            where = limits.metrics_address, limits.metrics_port or 0
            self.metrics_port, self._stop_metrics = self._metrics.serve(*where)
            logger.info("metrics on http://%s:%d/metrics", limits.metrics_address, self.metrics_port)
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.start()
        await asyncio.to_thread(warm_up, self._live.state)
        await self._say(health_pb2.HealthCheckResponse.SERVING)
        self._watcher = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Refuse new requests, finish those in flight, close the journal."""
        await self._health.enter_graceful_shutdown()
        if self._watcher:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        await self._server.stop(self._settings.server.grace_seconds)
        await self._desk.close()
        await self._writer.close()
        await self._changer.close()
        await self._upserter.close()
        await asyncio.to_thread(self._stop_metrics)
        self._live.journal.close()

    def _register(self) -> None:
        server, live = Rpcs(self._server, self._metrics, self._settings.server.tls_writers), self._live
        search_service_pb2_grpc.add_SearchServiceServicer_to_server(SearchService(self._desk), server)
        recommend_service_pb2_grpc.add_RecommendServiceServicer_to_server(RecommendService(self._desk), server)
        events = EventService(self._writer, lambda: live.state.now(), live.erase)
        event_service_pb2_grpc.add_EventServiceServicer_to_server(events, server)
        catalog = CatalogService(live, self._changer, self._upserter)
        catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(catalog, server)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(AdminService(self._desk), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*_SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def _say(self, status: int) -> None:
        for name in ("", *_SERVICES):
            await self._health.set(name, status)

    async def _follow(self) -> None:
        """Swap to a release that is promoted while the server runs; one that cannot be loaded leaves the live one.

        The file of rules is looked at on the way.
        """
        releases = Releases(Store(self._settings.store))
        refused: set[int] = set()
        swapped = False
        while True:
            # CURRENT is one small file; looking at it works on every file system, network ones included.
            await asyncio.sleep(self._settings.server.reload_seconds)
            await asyncio.to_thread(self._live.reread_rules)
            if swapped:
                # Only now: requests that were in flight when it was swapped have let go of the old state.
                self._live.let_go()
                await asyncio.to_thread(settle)
                swapped = False
            try:
                release = releases.current()
                if release and release.number != self._live.state.release.number and release.number not in refused:
                    refused.add(release.number)
                    await asyncio.to_thread(self._live.swap, release, warm_up)
                    refused.clear()
                    swapped = True
            except JournalError as error:
                # Nothing is wrong with the release: it goes live when the journal can be read again.
                refused.clear()
                logger.warning("the promoted release waits: %s", error)
            except Exception:
                logger.exception(
                    "the promoted release cannot be loaded; release %d stays live", self._live.state.release.number
                )


def _metrics(limits: ServerConfig) -> "Metrics | None":
    if limits.metrics_port is None:
        return None
    # Imported where it is wanted: nothing is counted that nobody reads.
    from server.metrics import Metrics

    return Metrics()


def warm_up(state: State) -> None:
    """Run the request path on real titles, so that the first customers do not wait for lazy initialisation."""
    state.encoder.warm_up()
    titles = state.snapshot.products.column("title").slice(0, _WARM_UP).to_pylist()
    # Queries of several lengths, alone and together: the encoder has a graph for each shape.
    for words in (1, 5, 100):
        queries = [" ".join(title.split()[:words]) for title in titles]
        batches = [*([query] for query in queries[::2]), queries[:_TOGETHER], queries[:3]]
        for batch in batches:
            answers = pipeline.search(state, [Ask(query=query) for query in batch])
        if state.snapshot.query_table is not None:
            # It answered the short ones, and the first query that it does not know should not wait for a graph.
            for batch in batches[-5:]:
                state.encoder.encode(batch)
    pipeline.recommend(state, [Ask(recent=state.snapshot.ids[:3]), Ask()])
    # What writes a page, and what folds an impression in, is compiled where that was never done: it takes seconds.
    exposure.make_ready()
    replies.ranked(search_service_pb2.SearchRequest(), 0, answers[0], search_service_pb2.SearchResponse)
    state.suggested("", 1)


def settle() -> None:
    """Free what is garbage, and take what is left out of the collector's sight.

    A release of 100,000 products holds 300,000 objects that live until the next one: a full collection walks them all,
    and nothing is answered for a tenth of a second.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def open_live(settings: Settings) -> Live:
    """Load the live release. Raises `SnapshotError` where nothing has been promoted."""
    store = Store(settings.store)
    release = Releases(store).live()
    pin_to_one_thread()
    return Live(store, settings, functools.partial(serving_encoder, store, config=settings.indexer), release)


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then drain."""
    # Files that cannot be used are told before the seconds that loading takes.
    server_credentials(settings.server)
    live = await asyncio.to_thread(open_live, settings)
    app = App(settings, live)
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    await app.start()
    settle()
    logger.info("serving release %d on %s:%d", live.state.release.number, settings.server.address, app.port)
    await stopped.wait()
    logger.info("draining")
    await app.stop()
