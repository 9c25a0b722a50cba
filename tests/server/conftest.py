"""Fixtures of the server's tests: a shop that is built, trained, released and promoted once, and a server over it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parent))

from harness import Loop, Running, Trained, copied, hash_encoder, make_trained
from shops import Shop, with_catalogue

from indexer import tuned
from indexer.canonical import Dump
from indexer.sample.shop import make_shop
from server.live import EncoderFor, Live


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """As the server and the training run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A shop of 600 products and 1,500 sessions with its live release. Nothing may write into its store."""
    return make_trained(make_shop(600, sessions=1_500, seed=0), tmp_path_factory.mktemp("shop"), hash_encoder())


@pytest.fixture(scope="session")
def unlogged(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A shop of 200 products that nobody has visited yet, with its live release. Nothing may write into its store."""
    dump = Dump(make_shop(200, sessions=1, seed=0).products)
    return make_trained(dump, tmp_path_factory.mktemp("unlogged"), hash_encoder(), events=None)


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    """The one event loop all servers of a session run in."""
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def server(trained: Trained, loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that only ask."""
    with Running(copied(trained, tmp_path_factory.mktemp("served")), loop) as running:
        yield running


@pytest.fixture
def start(trained: Trained, loop: Loop, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts servers over a store of the test's own; keywords are settings of the server."""
    running: list[Running] = []

    def begin(made: Trained | None = None, encoder_for: EncoderFor | None = None, **settings: Any) -> Running:
        running.append(Running(made or copied(trained, tmp_path, **settings), loop, encoder_for))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


@pytest.fixture
def shop(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop of the test's own whose catalogue is a file."""
    monkeypatch.setattr(tuned, "load_encoder", lambda *_: trained.encoder)
    return with_catalogue(copied(trained, tmp_path), tmp_path)


@pytest.fixture
def second(shop: Shop, server: Running) -> Iterator[Live]:
    """The live side of another process over the same store."""
    made = Live(shop.made.store, shop.made.settings, lambda _: shop.made.encoder, shop.made.release)
    yield made
    made.journal.close()
