"""Suggestions: what others asked, and what the catalogue has, found by how a word of it begins."""

from collections import Counter
from collections.abc import Callable
from threading import Thread
from typing import Any

import grpc
import pyarrow as pa
import pytest
from harness import Running, refusal
from vitrine.v1 import event_pb2, event_service_pb2, search_service_pb2

from ranker.behaviour import ASKERS, Behaviour
from ranker.history import CLICK, Engagement
from server import suggestions as module
from server.suggestions import Suggestions, Value

PRODUCTS = pa.table(
    {
        "brand": pa.chunked_array([["Red Oak", "oakley", None], ["Red Oak", "斯凯奇", " "]]),
        "category": pa.array(["登山鞋", "shoes", "shoes", "shoes", "登山鞋", None]),
    }
)


def asked(counts: dict[str, int], behaviour: Behaviour | None = None) -> Behaviour:
    """So many users asked each query, and clicked on something."""
    made = behaviour or Behaviour(6)
    for query, users in counts.items():
        made.apply_all(Engagement(f"user {i}", 0, CLICK, float(i), query) for i in range(users))
    return made


def queries(typed: str, behaviour: Behaviour, most: int = 10) -> list[str]:
    return Suggestions(PRODUCTS, []).find(typed, most, behaviour).queries


@pytest.mark.parametrize("typed", ["boo", "BOO", "  boo", "boots", "red boo", "Red  Boo"])
def test_found_by_the_beginning_of_a_word(typed: str) -> None:
    assert queries(typed, asked({"big red boots": 3, "taboo": 9})) == ["big red boots"]


@pytest.mark.parametrize("typed", ["oots", "rot boats", "boots red", "%", "bzo"])
def test_not_found_by_anything_else(typed: str) -> None:
    assert queries(typed, asked({"big red boots": 3})) == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("botos", ["red boots"]),  # swapped
        ("bots", ["red boots"]),  # missing
        ("red bootss", ["red boots"]),  # too many
        ("red biots", ["red boots"]),  # wrong
        ("leahter bo", ["leather boot"]),
        ("laether bots", ["leather boot"]),  # two of twelve letters
        ("laehter bots", []),
        ("ots", []),  # so short a word is what it says
        ("xoots", []),  # the first letter is right
    ],
)
def test_what_begins_nearly_so_where_nothing_begins_so(typed: str, meant: list[str]) -> None:
    assert queries(typed, asked({"red boots": 3, "leather boot": 3, "belt": 3})) == meant


def test_what_is_nearest_comes_alone() -> None:
    behaviour = asked({"silver lamp": 3, "sliver of oak": 9})
    assert queries("silvre", behaviour) == ["silver lamp"]
    assert queries("silv", behaviour) == ["silver lamp"]
    assert queries("", behaviour) == ["sliver of oak", "silver lamp"]


def test_what_is_far_too_short_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(module, "extract", lambda _, texts, **__: looked_at.extend(texts) or [])
    behaviour = asked({"boots": 3, "boots of brown leather": 3})
    assert queries("boots that somebody pasted", behaviour) == queries("b" * 1_000, behaviour) == []
    assert {len(text) for text in looked_at} == {20, 21, 22}


def test_values_are_found_by_nearly_their_beginning() -> None:
    found = Suggestions(PRODUCTS, ["brand", "category"]).find("oakely", 10, Behaviour(6))
    assert found == ([], [Value("brand", "oakley", 1)])
    # Where a query begins so, values that begin nearly so are not told.
    assert Suggestions(PRODUCTS, ["brand"]).find("oakel", 10, asked({"oakel shelf": 3})).values == []


def test_a_space_ends_the_word() -> None:
    behaviour = asked({"red boots": 3, "reddish hat": 3})
    assert queries("red", behaviour) == ["red boots", "reddish hat"]
    assert queries("red ", behaviour) == ["red boots"]


def test_a_hyphenated_word_begins_twice() -> None:
    behaviour = asked({"t-light holder": 3})
    assert queries("li", behaviour) == queries("t-l", behaviour) == ["t-light holder"]


def test_a_sign_at_the_beginning_is_typed_first() -> None:
    behaviour = asked({"#10 screw": 3, "hook #10": 3})
    assert queries("#1", behaviour) == ["#10 screw"]
    assert queries("10", behaviour) == ["#10 screw", "hook #10"]


def test_chinese_is_found_anywhere() -> None:
    assert queries("山鞋", asked({"登山鞋 男": 3, "跑鞋": 3})) == ["登山鞋 男"]


def test_the_most_successful_come_first_and_no_more_than_asked_for() -> None:
    behaviour = asked({"boots": 3, "boot laces": 5, "boot polish": 4, "boats": 3})
    assert queries("bo", behaviour, 3) == ["boot laces", "boot polish", "boats"]
    assert queries("", behaviour, 1) == queries("  ", behaviour, 1) == ["boot laces"]


def test_what_few_asked_is_not_told() -> None:
    suggestions, behaviour = Suggestions(PRODUCTS, []), asked({"boots for ann": ASKERS - 1, "boots": ASKERS})
    assert suggestions.find("boots", 10, behaviour).queries == ["boots"]
    asked({"boots for ann": ASKERS}, behaviour)
    assert suggestions.find("boots", 10, behaviour).queries == ["boots for ann", "boots"]


def test_values_of_the_catalogue_with_their_column() -> None:
    suggestions = Suggestions(PRODUCTS, ["brand", "category"])
    oaks = [Value("brand", "Red Oak", 2), Value("brand", "oakley", 1)]
    assert suggestions.find("oak", 10, Behaviour(6)).values == oaks
    assert suggestions.find("red", 10, Behaviour(6)).values == oaks[:1]
    assert suggestions.find("山", 10, Behaviour(6)).values == [Value("category", "登山鞋", 2)]
    every = suggestions.find("", 10, Behaviour(6)).values
    assert [value.value for value in every] == ["shoes", "Red Oak", "登山鞋", "oakley", "斯凯奇"]


def test_a_catalogue_without_products_has_nothing_to_suggest() -> None:
    assert Suggestions(PRODUCTS.slice(0, 0), ["brand"]).find("", 10, Behaviour(0)) == ([], [])


@pytest.mark.parametrize("many", [1, 10_000])
def test_what_comes_in_many_steps_is_what_comes_at_once(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MANY", many)
    names = [f"{word} {number}" for word in ("red boot", "boot", "hat", "blue hat") for number in range(40)]
    step_by_step, behaviour = Suggestions(PRODUCTS, []), Behaviour(6)
    for name in names:
        asked({name: 3}, behaviour)
        step_by_step.find("", 1, behaviour)
    at_once = Suggestions(PRODUCTS, [])
    for typed in ("", "b", "boot 1", "red", "ha", "4"):
        assert step_by_step.find(typed, 100, behaviour) == at_once.find(typed, 100, behaviour), typed


def test_a_broad_answer_is_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BROAD", 3)
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    suggestions, behaviour = Suggestions(PRODUCTS, []), asked({"boots": 5, "boats": 4, "bolts": 3, "hats": 3})
    assert suggestions.find("bo", 2, behaviour).queries == ["boots", "boats"]
    assert suggestions.find("h", 2, behaviour).queries == ["hats"]
    asked({"bolts": 9, "heels": 9}, behaviour)
    assert suggestions.find("h", 2, behaviour).queries == ["heels", "hats"]
    assert suggestions.find("bo", 2, behaviour).queries == ["boots", "boats"]
    assert suggestions.find("bo", 3, behaviour).queries == ["bolts", "boots", "boats"]
    clock[0] += module._KEPT
    assert suggestions.find("bo", 2, behaviour).queries == ["bolts", "boots"]


def test_while_it_is_asked_others_may_be_folding(monkeypatch: pytest.MonkeyPatch) -> None:
    suggestions, behaviour = Suggestions(PRODUCTS, []), Behaviour(6)
    names = [f"boot {number}" for number in range(2_000)]
    writer = Thread(target=asked, args=(dict.fromkeys(names, 3), behaviour))
    writer.start()
    monkeypatch.setattr(module, "_KEPT", 0.0)
    while writer.is_alive():
        found = suggestions.find("boot", 5_000, behaviour).queries
        assert len(found) == len(set(found))
    writer.join()
    assert sorted(suggestions.find("boot", 5_000, behaviour).queries) == sorted(names)


def suggest(server: Running, typed: str = "", size: int = 0) -> Any:
    return server.suggest(search_service_pb2.SuggestRequest(query=typed, max_suggestions=size))


def test_the_log_and_the_catalogue_are_suggested(server: Running) -> None:
    state = server.live.state
    told = suggest(server, size=100)
    assert [query.text for query in told.queries] == sorted(
        state.behaviour.shared, key=lambda query: (-state.behaviour.shared[query], query)
    )[:100]
    assert len(told.queries) > 0
    products = state.snapshot.products
    for value in told.values:
        assert Counter(products[value.column].to_pylist())[value.value] == value.products
    assert {value.column for value in told.values} == {"brand", "category"}
    assert len(suggest(server).queries) <= 10 == len(suggest(server).values)
    assert len(suggest(server, size=2).values) == 2


def test_an_event_changes_what_is_suggested(start: Callable[..., Running]) -> None:
    server = start()
    product = server.live.state.snapshot.ids[0]

    def click(user: str) -> None:
        event = event_pb2.Event(
            type=event_pb2.Event.CLICK,
            user_id=user,
            query="Zebra  Boots",
            items=[event_pb2.Event.Item(product_id=product)],
        )
        server.write(event_service_pb2.WriteEventsRequest(events=[event]))

    for user in ("ann", "ann", "bob"):
        click(user)
    assert not suggest(server, "zeb").queries
    click("cat")
    assert [query.text for query in suggest(server, "zeb").queries] == ["zebra boots"]


def test_what_cannot_be_typed_is_refused(server: Running) -> None:
    told = refusal(suggest, server, "x" * 1_001, -1)
    assert told.code == grpc.StatusCode.INVALID_ARGUMENT
    assert set(told.fields) == {"query", "max_suggestions"}
