"""WriteEvents: on disk and in the next answer before it returns, once, or refused as a whole."""

import math
import time
from typing import Any

import grpc
import pytest
from harness import Fallback, RecommendRequest, Running, channels, content, ids, refusal
from vitrine.v1 import event_pb2, event_service_pb2

from server.state import State

Event = event_pb2.Event
Item = Event.Item
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def request(*events: Event) -> Any:
    return event_service_pb2.WriteEventsRequest(events=events)


def purchase(user: str, *products: str, **fields: Any) -> Event:
    return Event(type=Event.PURCHASE, user_id=user, items=[Item(product_id=p) for p in products], **fields)


@pytest.fixture
def live(start: Any) -> Running:
    """A server of this test's own: these tests write."""
    running: Running = start()
    return running


def test_a_purchase_counts_in_the_next_answer_of_its_user_and_no_other(live: Running) -> None:
    state = live.live.state
    product = next(
        p for p in state.snapshot.ids if not math.isfinite(state.behaviour.counts[-1, state.snapshot.row_of[p]])
    )
    assert live.recommend(RecommendRequest(user_id="new")).fallback == Fallback.POPULAR
    other = live.recommend(RecommendRequest(user_id="other", page_size=100))
    answered = live.write(request(purchase("new", product)))
    assert (answered.written, answered.duplicates) == (1, 0)
    mine = live.recommend(RecommendRequest(user_id="new", page_size=100))
    assert mine.fallback == Fallback.NONE
    (hit,) = (hit for hit in mine.hits if hit.product.id == product)
    assert "HISTORY" in channels(hit)
    after = live.recommend(RecommendRequest(user_id="other", page_size=100))
    assert after.fallback == Fallback.POPULAR
    assert all("HISTORY" not in channels(hit) for hit in after.hits)
    assert set(ids(other)) - set(ids(after)) <= set(ids(other))


def test_a_return_takes_the_purchase_out(live: Running) -> None:
    product = live.live.state.snapshot.ids[3]
    live.write(request(purchase("u1", product)))
    back = Event(type=Event.RETURN, user_id="u1", items=[Item(product_id=product)])
    live.write(request(back))
    assert live.recommend(RecommendRequest(user_id="u1")).fallback == Fallback.POPULAR


def test_an_id_is_written_once(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    now = live.live.state.now()
    monkeypatch.setattr(State, "now", lambda _: now)
    products = live.live.state.snapshot.ids
    event = purchase("u1", products[0], products[1], id="e1")
    answered = live.write(request(event, event))
    assert (answered.written, answered.duplicates) == (1, 1)
    before = live.recommend(RecommendRequest(user_id="u1"))
    answered = live.write(request(event, purchase("u1", products[5], id="e1")))
    assert (answered.written, answered.duplicates) == (0, 2)
    assert content(live.recommend(RecommendRequest(user_id="u1"))) == content(before)
    assert live.live.journal.sequence() == 2


def test_every_field_is_kept(live: Running) -> None:
    event = Event(
        id="e1",
        type=Event.RATING,
        user_id="u1",
        session_id="s1",
        attribution_token="1.abc",
        query="red 靴",
        items=[
            Item(product_id="p1", position=3, quantity=2.5, price=9.99, value=4.5),
            Item(product_id="not in the catalogue", value=1.0),
        ],
    )
    event.event_time.FromMicroseconds(1_700_000_000_123_456)
    live.write(request(event))
    first, second = live.live.journal.read().rows(named=True)
    assert first["event_time"].timestamp() == 1_700_000_000.123456
    told = {name: value for name, value in first.items() if name != "event_time"}
    assert told == {
        "event_id": "e1",
        "event_type": "rating",
        "user_id": "u1",
        "session_id": "s1",
        "request_id": "1.abc",
        "query": "red 靴",
        "product_id": "p1",
        "position": 3,
        "quantity": 2.5,
        "price": 9.99,
        "value": 4.5,
    }
    assert (second["product_id"], second["position"], second["value"]) == ("not in the catalogue", None, 1.0)


def test_without_time_and_id_the_server_makes_them(live: Running) -> None:
    event = purchase("u1", "p1")
    assert live.write(request(event, event)).written == 2
    rows = live.live.journal.read()
    assert rows["event_id"].n_unique() == 2
    assert all(abs(t.timestamp() - time.time()) < 60 for t in rows["event_time"])


def test_the_answer_survives_a_restart(live: Running, start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = live.live.state.now()
    monkeypatch.setattr(State, "now", lambda _: now)
    products = live.live.state.snapshot.ids
    user = next(iter(live.live.state.behaviour.users))
    for i in range(30):
        live.write(request(purchase(user if i % 2 else "new", products[i * 7 % 600], products[i], id=f"e{i}")))
    asks = [RecommendRequest(user_id=name, page_size=100) for name in (user, "new", "nobody")]
    before = [live.recommend(ask) for ask in asks]
    again = start(live.trained)
    for ask, answer in zip(asks, before, strict=True):
        restarted = again.recommend(ask)
        assert content(restarted) == content(answer)
        assert [hit.SerializeToString(True) for hit in restarted.hits] == [
            hit.SerializeToString(True) for hit in answer.hits
        ]


def test_writers_at_once_lose_nothing(live: Running) -> None:
    product = live.live.state.snapshot.ids[0]
    calls = [
        live.write.future(
            request(
                *[purchase(f"u{i}", product, id=f"e{i}-{j}") for j in range(5)], purchase("x", product, id="shared")
            )
        )
        for i in range(40)
    ]
    answers = [call.result(20) for call in calls]
    assert sum(answer.written for answer in answers) == 40 * 5 + 1
    assert sum(answer.duplicates for answer in answers) == 39
    state = live.live.state
    assert [len(state.behaviour.history(f"u{i}").rows) for i in range(40)] == [5] * 40
    assert len(state.behaviour.history("x").rows) == 1


def stamped(seconds: float) -> Event:
    event = purchase("u", "p")
    event.event_time.FromMicroseconds(int(seconds * 1e6))
    return event


@pytest.mark.parametrize(
    ("bad", "field", "says"),
    [
        (request(), "events", "has 0 events; 1 to 1000"),
        (request(*[purchase("u", "p")] * 1_001), "events", "has 1001 events"),
        (request(Event(user_id="u", items=[Item(product_id="p")])), "events[0].type", "known types"),
        (request(Event(type=99, items=[Item(product_id="p")])), "events[0].type", "known types"),
        (request(purchase("u", "p"), purchase("u")), "events[1].items", "has 0; 1 to 1000"),
        (request(purchase("u", *["p"] * 1_001)), "events[0].items", "has 1001"),
        (request(purchase("u", "p", "")), "events[0].items[1].product_id", "must be given"),
        (request(stamped(time.time() + 90_000)), "events[0].event_time", "more than a day ahead"),
        (request(stamped(-1)), "events[0].event_time", "before 1970"),
        (
            request(Event(type=Event.CLICK, items=[Item(product_id="p", position=0)])),
            "events[0].items[0].position",
            "counts from 1",
        ),
        (
            request(Event(type=Event.CLICK, items=[Item(product_id="p", price=math.nan)])),
            "events[0].items[0].price",
            "not a finite number",
        ),
        (
            request(Event(type=Event.CLICK, items=[Item(product_id="p", quantity=math.inf)])),
            "events[0].items[0].quantity",
            "not a finite number",
        ),
        (request(Event(type=Event.RATING, items=[Item(product_id="p")])), "events[0].items", "need a value each"),
        (request(purchase("u", "p", query="x" * 1_001)), "events[0].query", "over 1000 characters"),
        (request(purchase("u", "p", query="a\0b")), "events[0].query", "NUL character"),
        (request(purchase("u\0", "p")), "events[0].user_id", "NUL character"),
        (request(purchase("x" * 1_000_000, "p")), "events[0].user_id", "1000000 bytes"),
        (request(purchase("u", "p", id="x" * 129)), "events[0].id", "129 bytes"),
        (request(purchase("u", "p", session_id="x" * 129)), "events[0].session_id", "129 bytes"),
        (request(purchase("u", "p", attribution_token="x" * 129)), "events[0].attribution_token", "129 bytes"),
        (request(purchase("u", "x" * 1_000_000)), "events[0].items[0].product_id", "1000000 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_is_named_and_nothing_is_written(server: Running, bad: Any, field: str, says: str) -> None:
    refused = refusal(server.write, bad)
    assert (refused.code, list(refused.fields)) == (INVALID, [field])
    assert says in refused.fields[field]
    assert server.live.journal.sequence() == 0


def test_all_faults_are_told_at_once(server: Running) -> None:
    item = Item(product_id="", position=0, price=math.nan, value=math.nan)
    refused = refusal(server.write, request(Event(id="x" * 200, items=[item]), purchase("u")))
    place = "events[0].items[0]"
    assert set(refused.fields) == {
        "events[0].id",
        "events[0].type",
        *(f"{place}.{name}" for name in ("product_id", "position", "price", "value")),
        "events[1].items",
    }


def test_thousands_of_faults_still_reach_the_caller(server: Running) -> None:
    refused = refusal(server.write, request(*[Event(user_id="x" * 200)] * 1_000))
    assert refused.code is INVALID
    assert len(refused.fields) == 21
    assert refused.fields["request"] == "2980 more fields cannot be accepted"


def test_a_day_ahead_is_a_wrong_clock_and_accepted(live: Running) -> None:
    assert live.write(request(stamped(time.time() + 80_000), stamped(0))).written == 2


def erasure(user: str) -> Any:
    return event_service_pb2.EraseUserRequest(user_id=user)


def test_an_erased_user_is_a_stranger_in_the_next_answer(live: Running) -> None:
    products = live.live.state.snapshot.ids
    live.write(request(purchase("u1", *products[:3]), purchase("u2", products[0])))
    assert live.recommend(RecommendRequest(user_id="u1")).fallback == Fallback.NONE
    assert live.erase(erasure("u1")).erased == 3
    assert live.recommend(RecommendRequest(user_id="u1")).fallback == Fallback.POPULAR
    assert live.recommend(RecommendRequest(user_id="u2")).fallback == Fallback.NONE
    assert live.live.journal.read()["user_id"].to_list() == ["u2"]
    # Nothing more is known, and a new event is the first.
    assert live.erase(erasure("u1")).erased == 0
    live.write(request(purchase("u1", products[7])))
    history = live.live.state.behaviour.history("u1")
    assert history.rows == (live.live.state.snapshot.row_of[products[7]],)


def test_a_user_of_the_imported_log_is_erased_too(live: Running) -> None:
    user = next(iter(live.live.state.behaviour.users))
    assert live.recommend(RecommendRequest(user_id=user)).fallback == Fallback.NONE
    assert live.erase(erasure(user)).erased == 0
    assert live.recommend(RecommendRequest(user_id=user)).fallback == Fallback.POPULAR


@pytest.mark.parametrize(("user", "told"), [("", "must be given"), ("x" * 129, "is 129 bytes long")])
def test_a_user_to_erase_is_named(live: Running, user: str, told: str) -> None:
    found = refusal(live.erase, erasure(user))
    assert found.code == INVALID
    assert told in found.fields["user_id"]
