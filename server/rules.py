"""What a merchandiser lays down: rules, which of them a release can follow, and which hold for a request."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from indexer.text import normalise, query_key, tokens
from server.filters import All, AnyOf, Equals, Filter, In, Not, Range, Scalar

SEARCH, RECOMMEND, SIMILAR = KINDS = ("search", "recommend", "similar")


class Boost(NamedTuple):
    """Products that pass `where` count as if they stood `times` nearer to the first place."""

    where: Filter
    times: float


class Rule(NamedTuple):
    """One rule. With `queries` (keys, see `query_key`) or `words` (tokens) it holds for such queries, else for all
    requests of the kinds in `on`; from `begins` to before `ends`, in Unix seconds.
    """

    name: str
    on: Set[str] = frozenset(KINDS)
    queries: Set[str] = frozenset()
    words: Set[str] = frozenset()
    begins: float = float("-inf")
    ends: float = float("inf")
    pin: Sequence[str] = ()
    hide: Filter | None = None
    only: Filter | None = None
    boosts: Sequence[Boost] = ()
    rewrite: str = ""
    redirect: str = ""

    def is_due(self, now: float) -> bool:
        """Whether its time has come, and is not over."""
        return self.begins <= now < self.ends

    @property
    def only_moves(self) -> bool:
        """Whether it does no more than order products."""
        return self.hide is None and self.only is None and not self.rewrite and not self.redirect

    @property
    def conditions(self) -> list[Filter]:
        """All that it asks of products."""
        found = [*(boost.where for boost in self.boosts), self.hide, self.only]
        return [condition for condition in found if condition is not None]


class Applied(NamedTuple):
    """What the rules that hold for a request do together; what names one value is the first such rule's.

    `pins` tells of each pinned product the rule that does it, in the order of their places.
    """

    rules: Sequence[Rule] = ()
    condition: Filter | None = None
    boosts: Sequence[Boost] = ()
    pins: Mapping[str, str] = {}
    rewriting: Rule | None = None
    redirect: str = ""

    @property
    def unmoved(self) -> "Applied":
        """The same but for what orders products."""
        rules = [rule for rule in self.rules if not rule.only_moves]
        return self._replace(rules=rules, boosts=(), pins={})


NOTHING = Applied()


class Rules:
    """The rules of a file that a release with these columns can follow, found by what they hold for.

    `faults` tells why it cannot follow the others, as "name: why".
    """

    def __init__(self, rules: Sequence[Rule], columns: Mapping[str, str]) -> None:
        told = {rule.name: unfit(rule, columns) for rule in rules}
        self.faults = [f"{name}: {why}" for name, why in told.items() if why]
        self._rules = [rule for rule in rules if not told[rule.name]]
        self._always: dict[str, list[int]] = {}
        self._by_query: dict[str, list[int]] = {}
        # A rule is found by the rarest of its words; then the query is asked for the others.
        self._by_word: dict[str, list[int]] = {}
        common = Counter(word for rule in self._rules for word in rule.words)
        for place, rule in enumerate(self._rules):
            for query in rule.queries:
                self._by_query.setdefault(query, []).append(place)
            if rule.words:
                self._by_word.setdefault(min(rule.words, key=lambda word: common[word]), []).append(place)
            if not rule.queries and not rule.words:
                for kind in rule.on:
                    self._always.setdefault(kind, []).append(place)

    def applied(self, kind: str, query: str, now: float) -> Applied:
        """What holds at a moment, in Unix seconds, for a request of a kind; `query` is empty where it has no words."""
        held = set(self._always.get(kind, ()))
        if query:
            held.update(self._asked(query))
        rules = [rule for place in sorted(held) if (rule := self._rules[place]).is_due(now)]
        return _together(rules) if rules else NOTHING

    def in_force(self, now: float) -> int:
        """How many can be followed and are due."""
        return sum(rule.is_due(now) for rule in self._rules)

    def _asked(self, query: str) -> Iterator[int]:
        """The places of the rules that hold for this query."""
        if self._by_query:
            yield from self._by_query.get(query_key(query), ())
        if self._by_word:
            words = set(tokens(normalise(query)))
            for word in words & self._by_word.keys():
                yield from (place for place in self._by_word[word] if self._rules[place].words <= words)


def unfit(rule: Rule, columns: Mapping[str, str]) -> str:
    """Why a release with these columns, and their types, cannot follow a rule; empty where it can."""
    for condition in rule.conditions:
        for column, kind in typed(condition):
            if column not in columns:
                return f"there is no column {column!r}; there are: {', '.join(sorted(columns))}"
            if columns[column] != kind:
                return f"column {column!r} is a {columns[column]}, and is compared with a {kind}"
    return ""


def typed(condition: Filter) -> Iterator[tuple[str, str]]:
    """The columns that a condition names, each with the type of what it is compared with."""
    match condition:
        case Equals(column, value):
            yield column, type_of(value)
        case In(column, values):
            yield from ((column, type_of(value)) for value in values)
        case Range(column):
            yield column, "number"
        case All(parts) | AnyOf(parts):
            for part in parts:
                yield from typed(part)
        case Not(part):
            yield from typed(part)


def type_of(value: Scalar) -> str:
    """The type of the columns that hold such a value."""
    return {str: "string", bool: "bool"}.get(type(value), "number")


def _together(rules: Sequence[Rule]) -> Applied:
    pins: dict[str, str] = {}
    for rule in rules:
        for product in rule.pin:
            pins.setdefault(product, rule.name)
    kept: list[Filter] = [rule.only for rule in rules if rule.only is not None]
    kept += [Not(rule.hide) for rule in rules if rule.hide is not None]
    return Applied(
        rules=rules,
        condition=both(kept),
        boosts=[boost for rule in rules for boost in rule.boosts],
        pins=pins,
        rewriting=next((rule for rule in rules if rule.rewrite), None),
        redirect=next((rule.redirect for rule in rules if rule.redirect), ""),
    )


def both(conditions: Sequence[Filter]) -> Filter | None:
    """One condition in place of several that must all hold; None for none."""
    return conditions[0] if len(conditions) == 1 else All(conditions) if conditions else None
