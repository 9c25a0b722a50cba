"""The whole path as a shop walks it: the real encoder, the command, a server in its own process, a socket."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import polars as pl
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from vitrine.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    event_pb2,
    event_service_pb2,
    event_service_pb2_grpc,
    hit_pb2,
    recommend_service_pb2,
    recommend_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)

from server.config import Settings

pytestmark = pytest.mark.slow

CONFIG = """
[indexer]
device = "cpu"
[ranker]
events = "data/events.parquet"
judgments = "data/judgments.parquet"
space = 16
tower_epochs = 1
network_epochs = 1
encoder_epochs = 1
trees = 20
device = "cpu"
[server]
ranking_budget_ms = 0
"""
SearchRequest = search_service_pb2.SearchRequest
RecommendRequest = recommend_service_pb2.RecommendRequest


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "server", *words]


def vitrine(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    told = subprocess.run(command(*words), cwd=folder, capture_output=True, text=True, timeout=240)
    assert told.returncode == 0, told.stderr
    return told


class Server:
    """`vitrine serve` in a process, and what it has logged so far."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            command("serve", "--port", "0", *options),
            cwd=folder,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.log: list[str] = []
        self.port = 0
        self._found = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._found.wait(60), "".join(self.log)
        assert self.port, "".join(self.log)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"serving release (\d+) on [\d.]+:(\d+)", line):
                self.port = int(found[2])
                self._found.set()
        self._found.set()

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample shop, built, trained and promoted by the command."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "vitrine.toml").write_text(CONFIG)
    vitrine(folder, "sample", "--products", "300", "--sessions", "1500")
    told = vitrine(folder, "rebuild", "--quiet")
    steps = [json.loads(line) for line in told.stderr.splitlines()]
    assert steps[-1]["step"] == "rebuild"
    return folder


@pytest.fixture
def server(shop: Path) -> Iterator[Server]:
    running = Server(shop)
    yield running
    if running.process.poll() is None:
        running.end()


@pytest.fixture
def two_workers(shop: Path) -> Iterator[Server]:
    running = Server(shop, "--workers", "2")
    yield running
    if running.process.poll() is None:
        running.end()


def channels(hits: Iterable[hit_pb2.Hit]) -> set[int]:
    """The recall channels that proposed any of the hits."""
    return {source.channel for hit in hits for source in hit.recall_sources}


def test_the_whole_path(server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        _check_standard_services(channel)
        search = search_service_pb2_grpc.SearchServiceStub(channel)
        recommend = recommend_service_pb2_grpc.RecommendServiceStub(channel).Recommend
        found = search.Search(SearchRequest(query="red boots"), timeout=10)
        assert len(found.hits) == 24
        assert {hit_pb2.RecallSource.DENSE, hit_pb2.RecallSource.LEXICAL} <= channels(found.hits)
        assert found.info.versions.release == "1"
        product = found.hits[0].product
        alike = search.Similar(search_service_pb2.SimilarRequest(product_id=product.id), timeout=10)
        assert product.id not in [hit.product.id for hit in alike.hits]
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(channel)
        assert catalog.GetProduct(catalog_service_pb2.GetProductRequest(product_id=product.id), timeout=10) == product
        popular = recommend_service_pb2.RecommendResponse.POPULAR
        assert recommend(RecommendRequest(user_id="me"), timeout=10).fallback == popular
        event = event_pb2.Event(
            type=event_pb2.Event.PURCHASE,
            user_id="me",
            attribution_token=found.info.attribution_token,
            items=[event_pb2.Event.Item(product_id=product.id, position=1)],
        )
        events = event_service_pb2_grpc.EventServiceStub(channel)
        assert events.WriteEvents(event_service_pb2.WriteEventsRequest(events=[event]), timeout=10).written == 1
        mine = recommend(RecommendRequest(user_id="me"), timeout=10)
        assert mine.fallback != popular
        assert hit_pb2.RecallSource.USER in channels(mine.hits)
        assert len(mine.hits) == 24
        told = admin_service_pb2_grpc.AdminServiceStub(channel).GetStatus(
            admin_service_pb2.GetStatusRequest(), timeout=10
        )
        assert (told.products, told.journal_sequence, told.vector_dimensions) == (300, 1, 384)
    mapped = Path(f"/proc/{server.process.pid}/maps")
    if mapped.exists():
        # By now it has done all that a server does.
        assert set(re.findall(r"libtorch|lib_lightgbm", mapped.read_text())) == set()
    assert server.end() == 0
    assert "draining" in "".join(server.log)
    assert "Traceback" not in "".join(server.log)


def _check_standard_services(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    told = health.Check(health_pb2.HealthCheckRequest(service="vitrine.v1.SearchService"), timeout=10)
    assert told.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection.ServerReflectionInfo(iter([ask]), timeout=10)
    names = {service.name for service in answer.list_services_response.service}
    assert {f"vitrine.v1.{n}Service" for n in ("Search", "Recommend", "Event", "Catalog", "Admin")} <= names


def test_a_signal_lets_what_is_in_flight_finish(server: Server) -> None:
    """Several callers ask without a pause; whoever was let in gets an answer."""
    stopped = threading.Event()

    def ask(number: int) -> tuple[int, list[grpc.StatusCode]]:
        answered, refused = 0, []
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            search = search_service_pb2_grpc.SearchServiceStub(channel).Search
            while not stopped.is_set() and not refused:
                try:
                    answered += len(search(SearchRequest(query=f"red boots {number}"), timeout=10).hits) == 24
                except grpc.RpcError as error:
                    refused.append(error.code())
        return answered, refused

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        stopped.wait(1.0)
        signalled = time.monotonic()
        code = server.end()
        # Whoever was let in is cut off only when the grace has passed.
        assert time.monotonic() - signalled < Settings().server.grace_seconds
        stopped.set()
    assert code == 0
    for each in asking:
        answered, refused = each.result()
        assert answered > 3
        # What came after the signal never got in. gRPC's core cancels a call that it had read and not yet handed out
        # (grpc/grpc issue 41785).
        assert set(refused) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def test_a_tuned_encoder_goes_live_in_a_running_server_and_back(shop: Path, server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        search = search_service_pb2_grpc.SearchServiceStub(channel).Search

        def answer_of(release: str) -> search_service_pb2.SearchResponse:
            """The first answer of a release; the server looks for a new one every second."""
            end = time.monotonic() + 60
            while (found := search(SearchRequest(query="red boots"), timeout=10)).info.versions.release != release:
                assert time.monotonic() < end, "".join(server.log)
                time.sleep(0.1)
            return found

        before = answer_of("1")
        vitrine(shop, "rebuild", "--quiet", "--tune")
        after = answer_of("2")
        assert after.info.versions.encoder != before.info.versions.encoder
        assert len(after.hits) == 24
        assert "tuned" in vitrine(shop, "index", "list").stdout
        vitrine(shop, "release", "rollback")
        assert answer_of("1").info.versions.encoder == before.info.versions.encoder
    assert server.end() == 0
    assert "Traceback" not in "".join(server.log)


def test_what_one_worker_is_told_all_know(two_workers: Server) -> None:
    with contextlib.ExitStack() as opened:
        callers: dict[int, grpc.Channel] = {}
        end = time.monotonic() + 60
        while len(callers) < 2:
            assert time.monotonic() < end, "".join(two_workers.log)
            # Else all connections to one address are the same one.
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = opened.enter_context(grpc.insecure_channel(f"127.0.0.1:{two_workers.port}", options=options))
            admin = admin_service_pb2_grpc.AdminServiceStub(channel)
            started = admin.GetStatus(admin_service_pb2.GetStatusRequest(), timeout=10).start_time
            callers.setdefault(started.ToMicroseconds(), channel)
        one, other = callers.values()
        product = recommend_service_pb2_grpc.RecommendServiceStub(one).Recommend(RecommendRequest(), timeout=10).hits[0]
        event = event_pb2.Event(
            type=event_pb2.Event.CLICK,
            user_id="she",
            items=[event_pb2.Event.Item(product_id=product.product.id)],
        )
        events = event_service_pb2_grpc.EventServiceStub(one)
        assert events.WriteEvents(event_service_pb2.WriteEventsRequest(events=[event]), timeout=10).written == 1
        answer = recommend_service_pb2_grpc.RecommendServiceStub(other).Recommend(
            RecommendRequest(user_id="she", page_size=100), timeout=10
        )
        assert hit_pb2.RecallSource.HISTORY in channels(answer.hits)
    assert two_workers.end() == 0
    assert "Traceback" not in "".join(two_workers.log)


def test_the_catalogue_goes_on_between_two_rebuilds(shop: Path, server: Server) -> None:
    address = f"127.0.0.1:{server.port}"
    with grpc.insecure_channel(address) as channel:
        search = search_service_pb2_grpc.SearchServiceStub(channel).Search

        def found(query: str) -> list[str]:
            return [hit.product.id for hit in search(SearchRequest(query=query), timeout=10).hits]

        gone = found("red boots")[0]
        vitrine(shop, "product", "delete", gone, "--address", address)
        assert gone not in found("red boots")
        catalogue = shop / "data" / "products.parquet"
        products = pl.read_parquet(catalogue)
        new = products[:1].with_columns(product_id=pl.lit("new"), title=pl.lit("zirconium teapot"))
        pl.concat([products, new]).write_parquet(shop / "data" / "next.parquet")
        (shop / "data" / "next.parquet").replace(catalogue)
        before = search(SearchRequest(query="red boots"), timeout=10).info.versions
        told = vitrine(shop, "refresh")
        assert "1 products are new, 0 gone, 0 changed" in told.stdout
        end = time.monotonic() + 60
        while found("zirconium teapot")[0] != "new":
            assert time.monotonic() < end, "".join(server.log)
            time.sleep(0.1)
        after = search(SearchRequest(query="red boots"), timeout=10)
        assert after.info.versions.model != before.model
        assert not after.info.degraded
        # The newer file holds what was deleted.
        assert gone in found("red boots")
        assert "no product has changed" in vitrine(shop, "refresh").stdout
    assert server.end() == 0
    assert "Traceback" not in "".join(server.log)
