"""Which rules hold for a request, and which of them a release can follow."""

from collections.abc import Set
from typing import Any

import pytest

from server.filters import All, AnyOf, Equals, In, Not, Range
from server.rules import NOTHING, RECOMMEND, SEARCH, SIMILAR, Boost, Rule, Rules

COLUMNS = {"brand": "string", "price": "number", "in_stock": "bool"}


def names(rules: Rules, kind: str = SEARCH, query: str = "", now: float = 0.0) -> list[str]:
    return [rule.name for rule in rules.applied(kind, query, now).rules]


def asked(name: str, queries: Set[str] = frozenset(), words: Set[str] = frozenset(), **does: Any) -> Rule:
    return Rule(name, {SEARCH}, queries, words, **(does or {"pin": ("p",)}))


def test_a_rule_without_a_query_holds_for_its_kinds() -> None:
    rules = Rules([Rule("all", pin=("p",)), Rule("two", {SEARCH, SIMILAR}, pin=("p",))], COLUMNS)
    assert names(rules, SEARCH, "boots") == names(rules, SEARCH) == names(rules, SIMILAR) == ["all", "two"]
    assert names(rules, RECOMMEND) == ["all"]


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("hiking boots", True),
        ("  Hiking\tBOOTS ", True),
        ("ｈｉｋｉｎｇ boots", True),
        ("hiking boot", False),
        ("red hiking boots", False),
        ("", False),
    ],
)
def test_a_query_is_the_whole_query(query: str, holds: bool) -> None:
    assert names(Rules([asked("r", queries={"hiking boots"})], COLUMNS), query=query) == ["r"] * holds


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("Waterproof boots", True),
        ("boot, red and waterproof", True),
        ("waterproof", False),
        ("boots", False),
        ("waterproof bootstrap", False),
        ("", False),
    ],
)
def test_every_word_must_stand_in_the_query(query: str, holds: bool) -> None:
    assert names(Rules([asked("r", words={"boot", "waterproof"})], COLUMNS), query=query) == ["r"] * holds


def test_either_a_query_or_the_words_suffice() -> None:
    rules = Rules([asked("r", queries={"shoes"}, words={"boot"})], COLUMNS)
    assert names(rules, query="shoes") == names(rules, query="red boots") == ["r"]
    assert names(rules, query="boots") == ["r"]
    assert names(rules, query="red shoes") == []
    assert rules.applied(SEARCH, "red shoes", 0.0) is NOTHING


def test_all_that_hold_come_in_the_files_order() -> None:
    rules = Rules(
        [
            asked("words", words={"boot"}),
            Rule("always", pin=("p",)),
            asked("other", words={"mug"}),
            asked("query", queries={"red boots"}),
            asked("same word", words={"boot", "red"}),
        ],
        COLUMNS,
    )
    assert names(rules, query="red boots") == ["words", "always", "query", "same word"]
    assert names(rules, query="boots") == ["words", "always"]


def test_a_rule_holds_from_its_beginning_to_before_its_end() -> None:
    rules = Rules([Rule("r", begins=10.0, ends=20.0, pin=("p",)), Rule("later", begins=20.0, pin=("p",))], COLUMNS)
    held = {now: names(rules, now=now) for now in (9.9, 10.0, 19.9, 20.0)}
    assert held == {9.9: [], 10.0: ["r"], 19.9: ["r"], 20.0: ["later"]}
    assert [rules.in_force(now) for now in (9.9, 10.0, 20.0)] == [0, 1, 1]


def test_several_rules_are_one() -> None:
    nord, acme = Equals("brand", "Nord"), Equals("brand", "Acme")
    rules = [
        asked("a", words={"boot"}, pin=("p1", "p2"), hide=acme, redirect="/a"),
        asked("b", words={"boot"}, pin=("p3", "p1"), only=nord, boosts=[Boost(nord, 2.0)], rewrite="b"),
        asked("c", words={"boot"}, rewrite="c", redirect="/c", boosts=[Boost(acme, 0.5)]),
    ]
    applied = Rules(rules, COLUMNS).applied(SEARCH, "boots", 0.0)
    assert list(applied.pins.items()) == [("p1", "a"), ("p2", "a"), ("p3", "b")]
    assert repr(applied.condition) == repr(All([nord, Not(acme)]))
    assert applied.boosts == [Boost(nord, 2.0), Boost(acme, 0.5)]
    assert applied.rewriting is rules[1]
    assert applied.redirect == "/a"


def test_one_condition_stays_alone() -> None:
    nord = Equals("brand", "Nord")
    assert Rules([Rule("r", only=nord)], COLUMNS).applied(SEARCH, "", 0.0).condition is nord
    assert repr(Rules([Rule("r", hide=nord)], COLUMNS).applied(SEARCH, "", 0.0).condition) == repr(Not(nord))
    assert Rules([Rule("r", pin=("p",))], COLUMNS).applied(SEARCH, "", 0.0).condition is None


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule("r", hide=Equals("shade", "red")), "there is no column 'shade'; there are: brand, in_stock, price"),
        (Rule("r", only=Equals("brand", 3.0)), "column 'brand' is a string, and is compared with a number"),
        (Rule("r", only=Equals("in_stock", "yes")), "column 'in_stock' is a bool, and is compared with a string"),
        (Rule("r", only=In("price", [True])), "column 'price' is a number, and is compared with a bool"),
        (Rule("r", only=Range("brand", 1.0, None)), "column 'brand' is a string, and is compared with a number"),
        (Rule("r", boosts=[Boost(Equals("shade", "red"), 2.0)]), "there is no column 'shade'"),
        (Rule("r", hide=All([Equals("brand", "a"), AnyOf([Not(Equals("shade", "a"))])])), "there is no column 'shade'"),
    ],
)
def test_a_rule_that_a_release_cannot_follow_is_out_of_force_and_told(rule: Rule, why: str) -> None:
    rules = Rules([rule, Rule("other", pin=("p",))], COLUMNS)
    [fault] = rules.faults
    assert fault.startswith(f"r: {why}")
    assert names(rules) == ["other"]
    assert rules.in_force(0.0) == 1


def test_types_that_fit_are_no_fault() -> None:
    parts = [Equals("brand", "a"), In("price", [1.0]), Range("price", None, 3.0), Equals("in_stock", False)]
    assert Rules([Rule("r", only=All(parts))], COLUMNS).faults == []
