"""The server put together: when it says it serves, what it tells of itself, and how it ends."""

import gc
import json
import logging
import shutil
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from harness import Loop, Running, SearchRequest, Trained, copied, ids, refusal, wait_until

from indexer.errors import SnapshotError, VitrineError
from indexer.store import Store, replace_text, write_json
from ranker import exposure
from server import app, hits, pipeline
from server.app import App
from server.live import Live
from server.release import Releases

Health = health_pb2.HealthCheckResponse
SERVICES = {f"vitrine.v1.{name}Service" for name in ("Search", "Recommend", "Event", "Catalog", "Admin")}


def test_reflection_lists_the_services(server: Running) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([ask]))
    names = {service.name for service in answer.list_services_response.service}
    assert names == SERVICES | {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


def test_it_serves_only_when_warm(
    trained: Trained, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, gate, began = copied(trained, tmp_path), threading.Event(), threading.Event()
    real = app.warm_up
    ports: list[int] = []
    warmed: list[int] = []

    def held(state: Any) -> None:
        began.set()
        assert gate.wait(20)
        before = state.encoder.warmed
        real(state)
        warmed.append(state.encoder.warmed - before)

    def noted(self: App, status: int) -> Any:
        ports.append(self.port)
        return said(self, status)

    said = App._say
    monkeypatch.setattr(app, "warm_up", held)
    monkeypatch.setattr(App, "_say", noted)
    running: list[Running] = []
    thread = threading.Thread(target=lambda: running.append(Running(made, loop)))
    thread.start()
    assert began.wait(10)
    with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert check(health_pb2.HealthCheckRequest(), timeout=10).status == Health.NOT_SERVING
        gate.set()
        thread.join()
        assert check(health_pb2.HealthCheckRequest(), timeout=10).status == Health.SERVING
    running[0].stop()
    assert warmed == [1]


@pytest.mark.parametrize(("module", "name"), [(hits, "_written"), (exposure, "_keys"), (exposure, "_put")])
def test_what_is_compiled_at_its_first_call_is_called_before_the_first_customer_comes(
    server: Running, monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str
) -> None:
    """Pages are written by the one, and impressions folded in by the others; not by way of the shop's own counts."""
    calls: list[Any] = []
    real, state = getattr(module, name), server.live.state
    before = state.behaviour.exposure.columns("boots", np.arange(len(state.snapshot)))

    def noted(*arguments: Any) -> Any:
        calls.append(real(*arguments))
        return calls[-1]

    monkeypatch.setattr(module, name, noted)
    app.warm_up(state)
    assert len(calls) == 1
    np.testing.assert_equal(state.behaviour.exposure.columns("boots", np.arange(len(state.snapshot))), before)


def test_stopping_finishes_what_is_in_flight(
    trained: Trained, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, real = Running(copied(trained, tmp_path), loop), pipeline.search
    began, gate = threading.Event(), threading.Event()

    def held(state: Any, asks: Any) -> Any:
        began.set()
        assert gate.wait(20)
        return real(state, asks)

    monkeypatch.setattr(pipeline, "search", held)
    calls = [server.search.future(SearchRequest(query="boots"), timeout=30)]
    assert began.wait(10)
    calls += [server.search.future(SearchRequest(query="boots"), timeout=30) for _ in range(2)]
    wait_until(lambda: server.app._desk.waiting == 2)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    # The drain waits for as long as they take.
    stopping.join(0.3)
    assert stopping.is_alive()
    gate.set()
    assert all(len(call.result().hits) == 24 for call in calls)
    stopping.join(20)
    assert not stopping.is_alive()


def test_a_port_in_use_is_told(trained: Trained, loop: Loop, server: Running, tmp_path: Path) -> None:
    made = copied(trained, tmp_path, port=server.app.port)
    live = Live(made.store, made.settings, lambda _: made.encoder, made.release)

    async def begin() -> None:
        second = App(made.settings, live)
        try:
            await second.start()
        finally:
            await second.stop()

    with pytest.raises(VitrineError, match=r"cannot be listened on: .* Is it in use?"):
        loop.run(begin())


def test_a_release_promoted_while_it_runs_is_followed_and_a_broken_one_is_not(
    start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    made, store = server.trained, server.trained.store
    releases = Releases(store)
    second = releases.create(made.release.index, made.release.model, "", made.settings.indexer)
    broken = store.path("models", "broken")
    shutil.copytree(store.path("models", made.release.model), broken)
    write_json(broken / "manifest.json", json.loads((broken / "manifest.json").read_text()) | {"encoder": "another"})
    third = json.loads((store.root / "releases" / f"{second.number:06d}.json").read_text())
    write_json(store.root / "releases" / "000003.json", third | {"number": 3, "model": "broken"})
    with caplog.at_level(logging.ERROR):
        releases.promote(3)
        wait_until(lambda: "cannot be loaded" in caplog.text)
        assert "release 1 stays live" in caplog.text
        # It is not tried again and again.
        time.sleep(0.3)
        assert caplog.text.count("cannot be loaded") == 1
    assert server.search(SearchRequest(query="boots")).info.versions.release == "1"
    releases.promote(2)
    wait_until(lambda: server.live.state.release.number == 2)
    releases.rollback()
    wait_until(lambda: server.live.state.release.number == 1)
    assert ids(server.search(SearchRequest(query="boots")))


def test_a_release_that_was_swapped_out_is_freed(start: Callable[..., Running]) -> None:
    server = start()
    made = server.trained
    app.settle()
    # Counting references alone never frees what refers to itself.
    snapshot = server.live.state.snapshot
    snapshot.__dict__["itself"] = snapshot
    old = weakref.ref(snapshot)
    del snapshot
    releases = Releases(made.store)
    second = releases.create(made.release.index, made.release.model, "", made.settings.indexer)
    releases.promote(second.number)
    wait_until(lambda: server.live.state.release.number == second.number)
    # A worker lets go of what it answered last when the next request comes.
    assert ids(server.search(SearchRequest(query="boots")))
    wait_until(lambda: old() is None)
    gc.unfreeze()


def test_a_damaged_current_leaves_the_live_release(
    start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    for content in ("", "x", "99"):
        replace_text(server.trained.store.root / "CURRENT", content)
        caplog.clear()
        wait_until(lambda: "release 1 stays live" in caplog.text)
        assert len(ids(server.search(SearchRequest(query="boots")))) == 24
    with pytest.raises(SnapshotError, match="there are: 1"):
        Releases(server.trained.store).current()
    replace_text(server.trained.store.root / "CURRENT", "x")
    with pytest.raises(SnapshotError, match="CURRENT holds no release number"):
        Releases(server.trained.store).current()


def test_nothing_promoted_says_what_to_do(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"has no live release\. Make one with `vitrine rebuild`"):
        app.open_live(trained.settings.model_copy(update={"store": Store(tmp_path / "empty").root}))


def test_after_the_end_nobody_answers(trained: Trained, loop: Loop, tmp_path: Path) -> None:
    server = Running(copied(trained, tmp_path), loop)
    server.stop()
    with grpc.insecure_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        refused = refusal(lambda: check(health_pb2.HealthCheckRequest(), timeout=5))
    assert refused.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
