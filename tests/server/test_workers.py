"""Several processes on one port: who may have it, what becomes of the others when one ends, and who holds the card."""

import contextlib
import multiprocessing
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness import (
    Loop,
    RecommendRequest,
    Running,
    SearchRequest,
    SimilarRequest,
    Trained,
    at_most,
    copied,
    ids,
    wait_until,
)
from vitrine.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    product_pb2,
    recommend_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)
from words import word_encoder

from indexer.errors import VitrineError
from server import workers
from server.config import Settings


def settings(folder: Path, count: int = 2) -> Settings:
    return Settings.model_validate({"store": folder / "store", "server": {"workers": count, "port": 0}})


def listen(port: int, *options: int) -> socket.socket:
    made = socket.socket()
    for option in options:
        made.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        made.bind(("127.0.0.1", port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def test_a_reserved_port_is_for_those_who_share_it() -> None:
    with workers._reserved("127.0.0.1", 0) as port:
        with listen(port, socket.SO_REUSEPORT), listen(port, socket.SO_REUSEPORT):
            pass
        with pytest.raises(OSError, match="in use"):
            listen(port)


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEPORT,)])
def test_a_port_that_somebody_listens_on_is_refused(options: tuple[int, ...]) -> None:
    """Also one that could be shared: half of the callers would reach the other server."""
    with listen(0, *options) as taken:
        port = taken.getsockname()[1]
        refused = pytest.raises(VitrineError, match=f"127.0.0.1:{port} cannot be listened on.*in use")
        with refused, workers._reserved("127.0.0.1", port):
            pass


def test_where_one_process_ends_by_itself_all_end(tmp_path: Path) -> None:
    # There is no release to serve.
    with pytest.raises(VitrineError, match=r"worker-\d ended by itself with code 4; the others were stopped") as ended:
        workers.run(settings(tmp_path))
    # As one worker alone would have ended.
    assert ended.value.exit_code == 4
    assert multiprocessing.active_children() == []


SCRIPT = """
import os, sys, time
from server import workers
from server.config import Settings


def idle(*_):
    # One write: what `print` writes in two, others may come between.
    os.write(1, b"idle\\n")
    time.sleep(60)


if __name__ == "__main__":
    workers._work = idle
    workers.run(Settings.model_validate({"store": sys.argv[1], "server": {"workers": 3, "port": 0}}))
"""


def test_a_signal_ends_all_and_is_no_fault(tmp_path: Path) -> None:
    """In a process of its own, as a supervisor ends it."""
    (tmp_path / "serve.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "serve.py"), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ["idle\n"] * 3
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=30)
    assert (process.returncode, told) == (0, ("", ""))


def configured(folder: Path, device: str) -> Settings:
    return Settings.model_validate({"store": folder / "store", "indexer": {"device": device}})


def test_without_a_card_or_a_driver_no_process_holds_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_hold", None)
    context = multiprocessing.get_context("spawn")
    monkeypatch.setattr(workers, "has_driver", lambda: True)
    with workers._card(context, configured(tmp_path, "cpu"), None) as card:
        assert card is None
    monkeypatch.setattr(workers, "has_driver", lambda: False)
    with workers._card(context, configured(tmp_path, "auto"), None) as card:
        assert card is None


def test_where_pytorch_sees_no_card_its_process_says_so_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "has_driver", lambda: True)
    context = multiprocessing.get_context("spawn")
    with workers._card(context, configured(tmp_path, "auto"), None) as card:
        assert card is None
        assert multiprocessing.active_children() == []


def test_a_card_that_is_asked_for_and_not_there_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "has_driver", lambda: True)
    with pytest.raises(VitrineError, match=r"^card ended by itself with code 2; the others were stopped"):
        workers.run(settings(tmp_path).model_copy(update={"indexer": configured(tmp_path, "cuda:7").indexer}))
    assert multiprocessing.active_children() == []


ORDER = """
import os, signal, sys, threading
from indexer.remote import CardError, CardProcess
from server import workers
from server.config import Settings


def drain(_, address):
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    card = CardProcess(address)
    os.write(1, b"up\\n")
    stopped.wait()
    try:
        card.open("index", "/nowhere/at/all/vectors.npy")
    except CardError as error:
        os.write(1, f"{error}\\n".encode())


if __name__ == "__main__":
    workers._work = drain
    workers.run(Settings.model_validate({"store": sys.argv[1], "server": {"workers": 2, "port": 0}}), device="cpu")
"""


def test_workers_that_drain_still_have_the_card(tmp_path: Path) -> None:
    """The signal is sent to every process, as some supervisors do."""
    (tmp_path / "serve.py").write_text(ORDER)
    command = [sys.executable, str(tmp_path / "serve.py"), str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["up\n"] * 2
        os.killpg(process.pid, signal.SIGTERM)
        told, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    # It is there to say that it did not find the file.
    assert told.count("No such file or directory: '/nowhere/at/all/vectors.npy'") == 2


SHARED = """
import os, sys
from functools import partial
from pathlib import Path

from words import word_encoder

from indexer import tuned
from indexer.errors import VitrineError
from server import card_process, workers
from server.config import Settings

hold = card_process.hold


def noted(*given):
    os.write(1, f"{os.getpid()}\\n".encode())
    hold(*given)


tuned.load_encoder = lambda *_: word_encoder()
card_process.hold = noted
card_process.placed = partial(card_process.placed, memory=lambda _: (2**40, 2**40))
if __name__ == "__main__":
    try:
        workers.run(Settings.model_validate_json(Path(sys.argv[1]).read_text()), device="cpu")
    except VitrineError as error:
        sys.exit(str(error))
"""


class Sharing:
    """Two workers and the process that holds the CPU in place of a card for them."""

    def __init__(self, trained: Trained, folder: Path) -> None:
        self.rules = folder / "rules.toml"
        self.rules.write_text("")
        ours = {"workers": 2, "rules": self.rules, "reload_seconds": 0.1}
        limits = trained.settings.server.model_copy(update=ours)
        (folder / "settings.json").write_text(trained.settings.model_copy(update={"server": limits}).model_dump_json())
        (folder / "serve.py").write_text(SHARED)
        self.log: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, str(folder / "serve.py"), str(folder / "settings.json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"},
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.card = self.port = 0

    def wait(self) -> None:
        """Until both workers serve."""
        assert self.process.stdout is not None
        self.card = int(self.process.stdout.readline())
        for _ in range(2):
            self.port = self._served()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            self._lines.put(line)

    def _served(self) -> int:
        """The port of the next worker that says that it serves."""
        while True:
            if found := re.search(r"serving release \d+ on [^ ]+:(\d+)$", self._lines.get(timeout=120)):
                return int(found[1])

    def end(self) -> int:
        """Its exit code, once it has ended by itself; killed if it does not."""
        try:
            code = self.process.wait(60)
        finally:
            self.process.kill()
        self._reading.join(10)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.end()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def sharing(trained: Trained, tmp_path: Path) -> Iterator[Sharing]:
    (tmp_path / "shared").mkdir()
    with contextlib.closing(Sharing(copied(trained, tmp_path / "shared"), tmp_path)) as made:
        made.wait()
        yield made


def callers(port: int, count: int) -> Iterator[grpc.Channel]:
    """A connection to each of so many workers."""
    seen: set[int] = set()
    for _ in range(100):
        # Else all connections to one address are the same one.
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            status = admin_service_pb2_grpc.AdminServiceStub(channel).GetStatus
            started = status(admin_service_pb2.GetStatusRequest(), timeout=30).start_time.ToMicroseconds()
            if started not in seen:
                seen.add(started)
                yield channel
        if len(seen) == count:
            return
    pytest.fail(f"a hundred connections reached {len(seen)} workers")


def answers(channel: Any) -> list[list[str]]:
    """What is found for requests of every kind."""
    searching = search_service_pb2_grpc.SearchServiceStub(channel)
    recommend = recommend_service_pb2_grpc.RecommendServiceStub(channel).Recommend
    queries = ("red boots", "a", "oak table", "防水登山靴", "usb charger 65w")
    asked = [searching.Search(SearchRequest(query=query), timeout=30) for query in queries]
    asked += [
        searching.Search(SearchRequest(query=query, filter=at_most("price", 40)), timeout=30) for query in queries
    ]
    first = ids(asked[0])
    asked += [searching.Similar(SimilarRequest(product_id=product), timeout=30) for product in first[:3]]
    asked.append(recommend(RecommendRequest(recent_product_ids=first[:4]), timeout=30))
    return [ids(each) for each in asked]


def check_that_a_new_product_reaches_all(sharing: Sharing) -> None:
    """Found beside the shared index, whichever worker took it."""
    each = callers(sharing.port, 2)
    upsert = catalog_service_pb2_grpc.CatalogServiceStub(next(each)).UpsertProducts
    item = catalog_service_pb2.UpsertProductsRequest.Item(
        product=product_pb2.Product(id="new", title="zephyrix lamp", brand="Zephyr")
    )
    told = upsert(catalog_service_pb2.UpsertProductsRequest(items=[item]), timeout=30)
    assert (told.written, list(told.pending_product_ids)) == (1, [])
    for channel in callers(sharing.port, 2):
        search = search_service_pb2_grpc.SearchServiceStub(channel)
        assert ids(search.Search(SearchRequest(query="zephyrix lamp"), timeout=30))[0] == "new"
        assert "new" not in ids(search.Similar(SimilarRequest(product_id="new"), timeout=30))
        told = search.Suggest(search_service_pb2.SuggestRequest(query="zep"), timeout=30)
        assert [value.value for value in told.values] == ["Zephyr"]


def check_that_rules_reach_all(sharing: Sharing) -> None:
    """Each worker looks at the file itself."""
    sharing.rules.write_text('[[rule]]\nname = "first"\nqueries = ["oak table"]\npin = ["new"]\n')
    for channel in callers(sharing.port, 2):
        search = search_service_pb2_grpc.SearchServiceStub(channel).Search
        wait_until(partial(_comes_first, search, "new"))
    sharing.rules.unlink()
    sharing.rules.touch()
    for channel in callers(sharing.port, 2):
        search = search_service_pb2_grpc.SearchServiceStub(channel).Search
        wait_until(lambda search=search: not _comes_first(search, "new"))  # type: ignore[misc]


def _comes_first(search: Any, product: str) -> bool:
    return ids(search(SearchRequest(query="oak table"), timeout=30))[0] == product


def check_that_a_deletion_reaches_all(sharing: Sharing, products: list[str]) -> None:
    """Acknowledged by one worker, it is in the next answer of each."""
    each = callers(sharing.port, 2)
    catalogue = catalog_service_pb2_grpc.CatalogServiceStub(next(each))
    request = catalog_service_pb2.DeleteProductsRequest(product_ids=products)
    assert catalogue.DeleteProducts(request, timeout=30).deleted == len(products)
    for channel in callers(sharing.port, 2):
        found = answers(channel)
        assert all(found)
        assert not set(products) & {product for answer in found for product in answer}


def test_workers_that_share_a_card_answer_as_one_process_does(
    trained: Trained, sharing: Sharing, loop: Loop, tmp_path: Path
) -> None:
    (tmp_path / "plain").mkdir()
    plain = copied(trained, tmp_path / "plain")._replace(encoder=word_encoder())
    with Running(plain, loop) as alone:
        expected = answers(alone.channel)
    assert all(expected)
    for channel in callers(sharing.port, 2):
        assert answers(channel) == expected
        status = admin_service_pb2_grpc.AdminServiceStub(channel).GetStatus(admin_service_pb2.GetStatusRequest())
        assert status.index_kind == "exact on cpu (float32), shared"
        assert status.encoder_backend == "words"
    check_that_a_new_product_reaches_all(sharing)
    check_that_rules_reach_all(sharing)
    check_that_a_deletion_reaches_all(sharing, expected[0][:3])
    # Nothing was done by a worker itself, and what is open is open once: titles, products and the encoder.
    told = "".join(sharing.log)
    assert "in place of the card" not in told
    assert [told.count(f"shelf {what} ") for what in ("index", "encoder")] == [2, 1]
    os.kill(sharing.card, signal.SIGKILL)
    assert sharing.end() == 1
    assert sharing.log[-1] == "card ended by itself with code -9; the others were stopped.\n"
    assert "Traceback" not in "".join(sharing.log)
