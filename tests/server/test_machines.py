"""Servers on two machines: each has a copy of the store of its own, and both have one journal in PostgreSQL."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from databases import Postgres
from google.rpc import error_details_pb2
from harness import (
    RecommendRequest,
    Running,
    SearchRequest,
    SimilarRequest,
    Trained,
    copied,
    ids,
    refusal,
    wait_until,
)
from pydantic import SecretStr
from vitrine.v1 import admin_service_pb2, catalog_service_pb2, event_pb2, event_service_pb2, product_pb2

from indexer.readers import Catalogue
from ranker.journals import read_log
from server.rebuild import amendment, read_sources
from server.release import Releases

Item = catalog_service_pb2.UpsertProductsRequest.Item
Inventory = catalog_service_pb2.SetInventoryRequest.Item


def machine(trained: Trained, folder: Path, database: str) -> Trained:
    """A copy of the store, as another machine has it."""
    folder.mkdir()
    made = copied(trained, folder)
    return made._replace(settings=made.settings.model_copy(update={"journal": SecretStr(database)}))


@pytest.fixture
def machines(trained: Trained, start: Callable[..., Running], tmp_path: Path, database: str) -> tuple[Running, Running]:
    first, second = (start(machine(trained, tmp_path / name, database)) for name in ("one", "two"))
    return first, second


@pytest.fixture
def lent(postgres: Postgres) -> Iterator[Postgres]:
    """The database's server, for a test that stops it: it runs again afterwards."""
    yield postgres
    postgres.start()


def clicked(user: str, product: str, name: str = "") -> event_service_pb2.WriteEventsRequest:
    item = event_pb2.Event.Item(product_id=product)
    event = event_pb2.Event(id=name, type=event_pb2.Event.CLICK, user_id=user, items=[item])
    return event_service_pb2.WriteEventsRequest(events=[event])


def visited(server: Running, user: str) -> list[str]:
    """The products of a user's history, in order, as an answer counts them: it comes first."""
    server.recommend(RecommendRequest(user_id=user))
    state = server.live.state
    return [state.snapshot.ids[row] for row in state.behaviour.history(user).rows]


def price(server: Running, product: str) -> float:
    return float(server.product(catalog_service_pb2.GetProductRequest(product_id=product)).price)


def test_what_one_takes_counts_in_the_answers_of_the_other(machines: tuple[Running, Running]) -> None:
    one, two = machines
    p, q, r = one.live.state.snapshot.ids[:3]
    assert one.write(clicked("ann", p)).written == 1
    assert visited(one, "ann") == [p]
    wait_until(lambda: visited(two, "ann") == [p])
    assert two.write(clicked("ann", q)).written == 1
    wait_until(lambda: visited(one, "ann") == [p, q])
    one.set(catalog_service_pb2.SetInventoryRequest(items=[Inventory(product_id=p, price=4_321.0)]))
    two.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=[r]))
    wait_until(lambda: price(two, p) == 4_321.0)
    wait_until(lambda: one.status(admin_service_pb2.GetStatusRequest()).products_deleted == 1)
    lamp = product_pb2.Product(id="new", title="zephyrix lamp")
    assert one.upsert(catalog_service_pb2.UpsertProductsRequest(items=[Item(product=lamp)])).written == 1
    wait_until(lambda: ids(two.search(SearchRequest(query="zephyrix lamp")))[0] == "new")
    assert two.erase(event_service_pb2.EraseUserRequest(user_id="ann")).erased == 2
    wait_until(lambda: visited(one, "ann") == [])
    told = [server.status(admin_service_pb2.GetStatusRequest()) for server in machines]
    assert [each.journal_sequence for each in told] == [2, 2]
    assert [each.users for each in told] == [len(one.live.state.behaviour.users)] * 2


def test_an_event_that_both_take_counts_once(machines: tuple[Running, Running]) -> None:
    p = machines[0].live.state.snapshot.ids[0]
    calls = [server.write.future(clicked("ann", p, f"e{n}")) for n in range(20) for server in machines]
    answers = [call.result(10) for call in calls]
    assert sum(answer.written for answer in answers) == sum(answer.duplicates for answer in answers) == 20
    for server in machines:
        wait_until(lambda server=server: visited(server, "ann") == [p] * 20)  # type: ignore[misc]


def test_who_starts_later_knows_all(
    machines: tuple[Running, Running], start: Callable[..., Running], trained: Trained, tmp_path: Path, database: str
) -> None:
    one, two = machines
    p, q = one.live.state.snapshot.ids[:2]
    known = next(iter(one.live.state.behaviour.users))
    one.write(clicked("ann", p))
    two.write(clicked("bob", q))
    two.erase(event_service_pb2.EraseUserRequest(user_id=known))
    one.set(catalog_service_pb2.SetInventoryRequest(items=[Inventory(product_id=p, price=4_321.0)]))
    lamp = product_pb2.Product(id="new", title="zephyrix lamp")
    two.upsert(catalog_service_pb2.UpsertProductsRequest(items=[Item(product=lamp)]))
    one.stop()
    third = start(one.trained)
    fourth = start(machine(trained, tmp_path / "three", database))
    for server in (third, fourth):
        assert (visited(server, "ann"), visited(server, "bob"), visited(server, known)) == ([p], [q], [])
        assert price(server, p) == 4_321.0
        assert ids(server.search(SearchRequest(query="zephyrix lamp")))[0] == "new"
    # So does the offline job, on either machine.
    settings = two.trained.settings
    log = read_log(None, settings.store, settings.journal)
    assert log is not None
    assert log["user_id"].to_list() == ["ann", "bob"]
    sources = read_sources(settings).events
    assert sources is not None
    assert {"ann", "bob"} < {*sources["user_id"]}
    assert known not in {*sources["user_id"]}
    amended = amendment(settings)(Catalogue(trained.dump.products, []), None)
    assert amended.products["product_id"][-1] == "new"
    assert not list(tmp_path.rglob("journal.sqlite*"))


def test_while_the_database_is_away_answers_go_on_and_writes_are_refused(
    trained: Trained, machines: tuple[Running, Running], lent: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = machines
    p, q = one.live.state.snapshot.ids[:2]
    one.write(clicked("ann", p))
    wait_until(lambda: visited(two, "ann") == [p])
    lent.stop()
    wait_until(lambda: bool(one.live.journal._listener.away()) and bool(two.live.journal._listener.away()))
    lamp = product_pb2.Product(id="new", title="zephyrix lamp")
    for server in machines:
        for _ in range(3):
            assert len(ids(server.search(SearchRequest(query="boots"), timeout=5))) == 24
            assert ids(server.similar(SimilarRequest(product_id=p), timeout=5))
        assert visited(server, "ann") == [p]
        assert server.status(admin_service_pb2.GetStatusRequest()).journal_sequence == 1
        for call, request in (
            (server.write, clicked("ann", q)),
            (server.set, catalog_service_pb2.SetInventoryRequest(items=[Inventory(product_id=p, price=1.0)])),
            (server.delete, catalog_service_pb2.DeleteProductsRequest(product_ids=[p])),
            (server.upsert, catalog_service_pb2.UpsertProductsRequest(items=[Item(product=lamp)])),
            (server.erase, event_service_pb2.EraseUserRequest(user_id="ann")),
        ):
            refused = refusal(call, request)
            assert (refused.code, refused.message) == (
                grpc.StatusCode.UNAVAILABLE,
                "the journal cannot be used now; retry with back-off",
            )
            (retry,) = refused.details
            assert isinstance(retry, error_details_pb2.RetryInfo)
            assert retry.retry_delay.ToMilliseconds() == 1_000
    again = Releases(two.trained.store).create(
        trained.release.index, trained.release.model, "again", two.trained.settings.indexer
    )
    Releases(two.trained.store).promote(again.number)
    wait_until(lambda: "the promoted release waits" in caplog.text)
    assert caplog.text.count("answers go on without what is newest in it") == 2
    lent.start()
    # A caller that asks again gets it written once, and whoever missed it learns of it.
    wait_until(lambda: not one.live.journal._listener.away())
    assert one.write(clicked("ann", q, "again")).written == 1
    assert one.write(clicked("ann", q, "again")).duplicates == 1
    for server in machines:
        wait_until(lambda server=server: visited(server, "ann") == [p, q])  # type: ignore[misc]
    wait_until(lambda: two.live.state.release.number == again.number)
    assert visited(two, "ann") == [p, q]


def test_a_server_does_not_start_without_its_journal(trained: Trained, tmp_path: Path) -> None:
    """It would forget who was erased."""
    made = copied(trained, tmp_path)
    config = tmp_path / "vitrine.toml"
    config.write_text(f'store = "{made.store.root}"\njournal = "postgresql://ann:sesame@127.0.0.1:1/shop"\n')
    command = [sys.executable, "-m", "server", "serve", "--config", str(config), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 8
    assert "vitrine: the journal in PostgreSQL (127.0.0.1 1 shop) cannot be used now: " in done.stderr
    assert "Connection refused" in done.stderr
    assert "sesame" not in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
