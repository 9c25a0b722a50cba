"""The live side: events in the state exactly once, whatever else happens, and swaps that nobody notices."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from harness import (
    RecommendRequest,
    Running,
    SearchRequest,
    SimilarRequest,
    Trained,
    adopted,
    copied,
    equals,
    hash_encoder,
    ids,
    make_trained,
    wait_until,
)
from vitrine.v1 import hit_pb2, search_service_pb2

from indexer.canonical import Dump
from indexer.encoder import Encoder
from indexer.errors import SnapshotError
from indexer.store import write_json
from ranker.changes import Change
from ranker.history import LONGEST
from ranker.journal import Entry, JournalError
from ranker.sqlite_journal import FILE, SqliteJournal
from ranker.upserts import Upsert
from server import live as live_module
from server import pipeline
from server.live import Live
from server.release import Releases

QueryVector, DENSE = search_service_pb2.QueryVector, hit_pb2.RecallSource.DENSE


def click(event_id: str, user: str, product: str) -> list[Entry]:
    return [Entry(event_id, 0, int(time.time() * 1e6), "click", user, None, None, None, product)]


@pytest.fixture
def mine(trained: Trained, tmp_path: Path) -> Trained:
    """The live release twice over, as numbers 1 and 2; 1 is live."""
    made = copied(trained, tmp_path)
    Releases(made.store).create(trained.release.index, trained.release.model, "again", made.settings.indexer)
    return made


@pytest.fixture
def live(mine: Trained) -> Any:
    made = Live(mine.store, mine.settings, lambda _: mine.encoder, mine.release)
    yield made
    made.journal.close()


def clicks(live: Live, user: str) -> list[str]:
    return [live.state.snapshot.ids[row] for row in live.state.behaviour.history(user).rows]


def warm(_: Any) -> None:
    """Nothing to warm."""


def test_each_request_is_told_of_its_own_events(live: Live) -> None:
    p = live.state.snapshot.ids[0]
    first = [click("e1", "u", p), click("e2", "u", p)]
    assert live.write([first, [click("e1", "u", p)], [click("e3", "v", p), click("e2", "u", p)]]) == [
        (2, 0),
        (0, 1),
        (1, 1),
    ]
    assert (clicks(live, "u"), clicks(live, "v")) == ([p, p], [p])


def test_a_failing_fold_does_not_lose_the_event(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    p, q = live.state.snapshot.ids[:2]
    with monkeypatch.context() as patch:
        patch.setattr(live_module.State, "fold", lambda *_: (_ for _ in ()).throw(ValueError("broken")))
        with pytest.raises(ValueError, match="broken"):
            live.write([[click("e1", "u", p)]])
    live.write([[click("e2", "u", q)]])
    assert clicks(live, "u") == [p, q]


def test_what_another_process_wrote_is_folded_once(mine: Trained, live: Live) -> None:
    p, q, r = live.state.snapshot.ids[:3]
    live.write([[click("e1", "u", p)]])
    with closing(SqliteJournal(mine.store.root / FILE)) as other:
        other.append([click("e2", "u", q)])
    live.write([[click("e3", "u", r)]])
    assert sorted(clicks(live, "u")) == sorted([p, q, r])
    live.swap(Releases(mine.store).get(2), warm)
    assert sorted(clicks(live, "u")) == sorted([p, q, r])


def test_an_event_between_replay_and_swap_is_there_once(
    mine: Trained, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    products = live.state.snapshot.ids
    live.write([[click("before", "u", products[0])]])
    real = live_module.load_state

    def load_while_writing(*arguments: Any) -> Any:
        live.write([[click("during", "u", products[1])]])
        return real(*arguments)

    monkeypatch.setattr(live_module, "load_state", load_while_writing)
    live.swap(Releases(mine.store).get(2), lambda _: live.write([[click("warming", "u", products[2])]]) and None)
    assert live.state.release.number == 2
    live.write([[click("after", "u", products[3])]])
    assert clicks(live, "u") == products[:4]


def test_a_request_that_was_checked_before_a_swap_is_answered_with_what_was_known_then(
    mine: Trained, live: Live
) -> None:
    checked = live.state
    p, q = checked.snapshot.ids[:2]
    with closing(SqliteJournal(mine.store.root / FILE)) as other:
        other.append([click("e1", "u", p)])
        now = int(time.time() * 1e6)
        other.upsert([Upsert("new", now, {"title": "zephyrix lamp"})])
        other.change([Change(q, price=4_321.0, price_time=now)])
    assert live.newest(checked) is checked
    live.swap(Releases(mine.store).get(2), warm)
    found = live.newest(checked)
    assert (found.release, live.state.release.number) == (checked.release, 2)
    assert found.behaviour.history("u").rows == (found.row_of[p],)
    assert "new" in found.row_of
    assert found.assortment.offer.rendered.product(found.row_of[q]).price == 4_321.0
    assert live.newest(live.state.first) is live.state
    # After a while nobody asks for it any more.
    live.let_go()
    assert live.newest(checked) is checked


def test_what_is_acknowledged_elsewhere_during_a_swap_is_in_answers_to_requests_checked_before(
    mine: Trained, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = live.state
    p, real = checked.snapshot.ids[0], Live._catch_up

    def caught_up(self: Live, state: Any, folded: Any) -> Any:
        made = real(self, state, folded)
        if state.release.number == 2 and live.state is checked:
            with closing(SqliteJournal(mine.store.root / FILE)) as other:
                other.append([click("e1", "u", p)])
        return made

    monkeypatch.setattr(Live, "_catch_up", caught_up)
    live.swap(Releases(mine.store).get(2), warm)
    assert live.newest(checked).behaviour.history("u").rows == (checked.row_of[p],)


def test_writers_and_swaps_at_once(mine: Trained, live: Live) -> None:
    products, releases = live.state.snapshot.ids, Releases(mine.store)
    done = threading.Event()

    def write(thread: int) -> int:
        count = 0
        while not done.is_set() or count < 20:
            live.write([[click(f"{thread}-{count}", f"u{thread}", products[count % 600])]])
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        counts = [pool.submit(write, thread) for thread in range(3)]
        for number in (2, 1, 2):
            live.swap(releases.get(number), warm)
        done.set()
    for thread, count in enumerate(counts):
        expected = [products[i % 600] for i in range(count.result())]
        assert clicks(live, f"u{thread}") == expected[-LONGEST:]


def test_a_release_that_cannot_be_loaded_leaves_the_live_one(mine: Trained, live: Live) -> None:
    store, before = mine.store, live.state
    broken = store.path("models", mine.release.model)
    shutil.copytree(broken, store.path("models", "broken"))
    manifest = json.loads((broken / "manifest.json").read_text())
    write_json(store.path("models", "broken") / "manifest.json", {**manifest, "id": "broken", "encoder": "another"})
    release = mine.release.__class__(**{**mine.release.__dict__, "number": 9, "model": "broken"})
    with pytest.raises(SnapshotError, match=rf"encoder another.*{hash_encoder().fingerprint}"):
        live.swap(release, warm)
    with pytest.raises(RuntimeError, match="cold"):
        live.swap(Releases(store).get(2), lambda _: (_ for _ in ()).throw(RuntimeError("cold")))
    assert live.state is before
    assert live.write([[click("e1", "u", before.snapshot.ids[0])]]) == [(1, 0)]


def test_every_request_is_answered_while_releases_are_swapped(start: Callable[..., Running], mine: Trained) -> None:
    server, releases = start(mine), Releases(mine.store)
    product = server.live.state.snapshot.ids[0]
    asks = [
        lambda: server.search(SearchRequest(query="boots"), timeout=20),
        lambda: server.recommend(RecommendRequest(recent_product_ids=[product]), timeout=20),
        lambda: server.similar(SimilarRequest(product_id=product), timeout=20),
    ]
    done = threading.Event()

    def ask(number: int) -> list[Any]:
        answers = []
        while not done.is_set():
            answers.append(asks[number % 3]())
        return answers

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(ask, number) for number in range(4)]
        for number in (2, 1, 2):
            # The running server follows by itself.
            releases.promote(number)
            wait_until(lambda n=number: server.live.state.release.number == n)  # type: ignore[misc]
            time.sleep(0.05)
        done.set()
    answers = [answer for each in running for answer in each.result()]
    assert {answer.info.versions.release for answer in answers} == {"1", "2"}
    assert all(len(answer.hits) == 24 for answer in answers)


def test_a_request_finishes_on_the_release_it_was_checked_against(
    trained: Trained, start: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next release lacks a product, a column and half of the space: what waits must not notice."""
    products = trained.dump.products
    gone = products["product_id"][0]
    kept = products.filter(pl.col("product_id") != gone).select(products.columns[:6])
    fewer = Dump(kept, trained.dump.events, trained.dump.judgments)
    extra = [name for name in products.columns[6:] if products.schema[name] == pl.String]
    server = start()
    other = make_trained(fewer, tmp_path / "other", hash_encoder(), space=8, tower_epochs=1, network_epochs=1, trees=5)
    release = adopted(server.trained, other)
    began, gate, real = threading.Event(), threading.Event(), pipeline.search

    def held(state: Any, asks: Any) -> Any:
        began.set()
        assert gate.wait(20)
        return real(state, asks)

    monkeypatch.setattr(pipeline, "search", held)
    first = server.search.future(SearchRequest(query="boots"), timeout=30)
    assert began.wait(10)
    waiting = [
        server.similar.future(SimilarRequest(product_id=gone), timeout=30),
        server.recommend.future(RecommendRequest(user_vector=[1.0] * 16), timeout=30),
        server.search.future(SearchRequest(query="x", filter=equals(extra[0], "x")), timeout=30),
    ]
    wait_until(lambda: server.app._desk.waiting == 3)
    monkeypatch.setattr(pipeline, "search", real)
    server.live.swap(release, warm)
    gate.set()
    assert {call.result().info.versions.release for call in (first, *waiting)} == {"1"}
    assert ids(server.search(SearchRequest(query="boots")))
    assert server.search(SearchRequest(query="boots")).info.versions.release == "2"


class Loader:
    """Gives the encoder that an index names, and notes which were asked for."""

    def __init__(self, *encoders: Encoder) -> None:
        self._encoders = {encoder.fingerprint: encoder for encoder in encoders}
        self.asked: list[str] = []

    def __call__(self, index: Mapping[str, Any]) -> Encoder:
        self.asked.append(index["encoder"]["name"])
        return self._encoders[index["encoder"]["fingerprint"]]


def test_a_release_with_another_encoder_goes_live_without_a_restart(
    trained: Trained, start: Callable[..., Running], mine: Trained, tmp_path: Path
) -> None:
    encoders = (trained.encoder, hash_encoder("other", 16))
    few: dict[str, Any] = {"tower_epochs": 1, "network_epochs": 1, "trees": 5}
    other = make_trained(trained.dump, tmp_path / "other", encoders[1], **few)
    load, releases = Loader(*encoders), Releases(mine.store)
    server = start(mine, load)
    number = adopted(mine, other).number
    for promoted, encoder in ((number, encoders[1]), (1, encoders[0])):
        releases.promote(promoted)
        wait_until(lambda n=promoted: server.live.state.release.number == n)  # type: ignore[misc]
        answer = server.search(SearchRequest(query="boots"))
        assert answer.info.versions.encoder == encoder.fingerprint
        (vector,) = encoder.encode(["boots"])
        by_vector = server.search(SearchRequest(query_vector=QueryVector(values=vector)))
        assert len(answer.hits) == len(by_vector.hits) == 24
        # The query was embedded by the encoder of its titles.
        titles = encoder.encode([hit.product.title for hit in answer.hits])
        for hit, cosine in zip(answer.hits, titles @ vector, strict=True):
            assert [s.score for s in hit.recall_sources if s.channel == DENSE] in (
                [],
                [pytest.approx(cosine, abs=1e-5)],
            )
        assert any(s.channel == DENSE for hit in answer.hits for s in hit.recall_sources)
    assert load.asked == ["hash", "other", "hash"]


def test_an_encoder_is_loaded_once_for_all_releases_that_have_it(mine: Trained) -> None:
    load = Loader(mine.encoder)
    live = Live(mine.store, mine.settings, load, mine.release)
    before = live.state
    assert live.swap(Releases(mine.store).get(2), warm) is not before
    live.journal.close()
    assert live.state.encoder is before.encoder
    assert load.asked == ["hash"]


def test_an_event_that_another_process_took_is_in_the_next_answer(mine: Trained, live: Live) -> None:
    p = live.state.snapshot.ids[0]
    with closing(SqliteJournal(mine.store.root / FILE)) as other:
        other.append([click("e1", "u", p)])
        assert clicks(live, "u") == []
        live.refresh()
        assert clicks(live, "u") == [p]
        # Its own events are in the state at once, and no event twice.
        live.write([[click("e2", "u", p)]])
        other.append([click("e3", "u", p), click("e2", "u", p)])
        live.refresh()
        live.refresh()
    assert clicks(live, "u") == [p, p, p]


def test_a_user_whom_another_process_erased_is_unknown_in_the_next_answer(mine: Trained, live: Live) -> None:
    p, q = live.state.snapshot.ids[:2]
    live.write([[click("e1", "u", p), click("e2", "v", p)]])
    with closing(SqliteJournal(mine.store.root / FILE)) as other:
        assert other.erase("u") == 1
        other.append([click("e3", "u", q)])
    live.refresh()
    # What came after the erasure counts.
    assert (clicks(live, "u"), clicks(live, "v")) == ([q], [p])


def test_an_erased_user_stays_unknown_to_the_next_release(mine: Trained, live: Live) -> None:
    """Its log still has the user's events."""
    user = next(iter(live.state.behaviour.users))
    before = len(live.state.behaviour.users)
    assert live.erase(user) == 0
    assert clicks(live, user) == []
    live.swap(Releases(mine.store).get(2), warm)
    assert clicks(live, user) == []
    assert len(live.state.behaviour.users) == before - 1


def test_an_erasure_while_a_release_is_loaded_reaches_it(
    mine: Trained, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = live.state.snapshot.ids[0]
    live.write([[click("before", "u", product)]])
    real = live_module.load_state

    def load_while_erasing(*arguments: Any) -> Any:
        live.erase("u")
        live.write([[click("after", "u", product)]])
        return real(*arguments)

    monkeypatch.setattr(live_module, "load_state", load_while_erasing)
    live.swap(Releases(mine.store).get(2), warm)
    assert clicks(live, "u") == [product]


def test_a_journal_that_cannot_be_read_is_no_reason_not_to_answer(
    live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> bool:
        raise JournalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(live.journal, "changed", broken)
        for _ in range(3):
            live.refresh()
    assert caplog.text.count("the journal cannot be read (disk I/O error)") == 1
    # Read again, and broken again: that is told again.
    live.refresh()
    monkeypatch.setattr(live.journal, "changed", broken)
    live.refresh()
    assert caplog.text.count("the journal cannot be read (disk I/O error)") == 2
