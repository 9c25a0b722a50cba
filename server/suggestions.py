"""What a query that is being typed may become: queries that several users asked, and values of the catalogue."""

import re
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable, Mapping, Sequence
from heapq import nsmallest
from typing import Generic, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

from indexer.text import HAN, query_key
from ranker.behaviour import Behaviour

K = TypeVar("K", bound=Hashable)

# Where what is typed may begin: at the beginning ("#10"), at a word, and anywhere in Chinese, which has no spaces.
_BEGINNINGS = re.compile(rf"\A.|(?<!\w)\w|[{HAN}]")
# Sorts after everything that begins alike.
_LAST = "\U0010ffff"
# To find the first of so many takes milliseconds: what they were is kept for so many seconds.
_BROAD, _KEPT = 2_000, 60.0
# Of so many letters typed one may be wrong.
_A_WRONG = 4
# From so many new texts on, sorting all of them is faster than finding a place for each.
_MANY = 500


class Value(NamedTuple):
    """A value of a column of the catalogue, and how many products have it."""

    column: str
    value: str
    products: int


class Suggested(NamedTuple):
    """Queries, the most successful first, and values, those of the most products first."""

    queries: list[str]
    values: list[Value]


class _Beginnings(Generic[K]):
    """Keys of texts, found by the beginning of the text or of what follows a word of it; sorted, not a tree of letters.

    The words before stay: "red boo" finds "big red boots" at its second word.
    """

    def __init__(self) -> None:
        self._sorted: list[tuple[str, K]] = []

    def add(self, texts: Iterable[tuple[str, K]]) -> None:
        new = [(text[match.start() :], key) for text, key in texts for match in _BEGINNINGS.finditer(text)]
        if len(new) < _MANY:
            for each in new:
                insort(self._sorted, each)
        else:
            self._sorted = sorted([*self._sorted, *new])

    def of(self, prefix: str) -> set[K]:
        return {key for _, key in self._from(prefix)}

    def near(self, prefix: str) -> set[K]:
        """Those that begin with what `prefix` was meant to be: the fewest letters wrong, swapped, missing or too many.

        Its first letter is taken to be right, and one letter in _A_WRONG may be wrong.
        """
        most = len(prefix) // _A_WRONG
        if not most:
            return set()
        lengths = range(len(prefix) - most, len(prefix) + most + 1)
        # A shorter text is further off. All are, where somebody pastes a page into the search box.
        long = (text for text, _ in self._from(prefix[0]) if len(text) >= lengths[0])
        beginnings = {text[:length] for text in long for length in lengths}
        found = extract(prefix, beginnings, scorer=OSA.distance, score_cutoff=most, limit=None)
        least = min((distance for _, distance, _ in found), default=0)
        return {key for meant, distance, _ in found if distance == least for key in self.of(meant)}

    def _from(self, prefix: str) -> list[tuple[str, K]]:
        first = bisect_left(self._sorted, (prefix,))
        last = bisect_left(self._sorted, (prefix + _LAST,))
        return self._sorted[first:last]


class Suggestions:
    """Suggestions for one release. Safe to call from several threads.

    A query is suggested when `ranker.behaviour.ASKERS` users were led to a product by it: from the next call on, or
    within a minute where thousands begin so.
    """

    def __init__(self, products: pa.Table, columns: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._queries: _Beginnings[str] = _Beginnings()
        # Shared queries taken in so far; they only become more.
        self._taken = 0
        # By prefix and number asked for: until when a broad answer is good, and what it is.
        self._broad: dict[tuple[str, int], tuple[float, Suggested]] = {}
        self._values: _Beginnings[Value] = _Beginnings()
        self._values.add((query_key(value.value), value) for column in columns for value in _values(products, column))

    def find(self, typed: str, most: int, behaviour: Behaviour) -> Suggested:
        """At most so many of each kind for what was typed so far; for nothing the first of all.

        Where nothing begins so, what begins nearly so.
        """
        prefix = query_key(typed)
        if prefix and typed[-1].isspace():
            # The last word is whole: "red " is not the beginning of "reddish".
            prefix += " "
        now = time.monotonic()
        with self._lock:
            until, kept = self._broad.get((prefix, most), (0.0, Suggested([], [])))
            if now < until:
                return kept
            self._take(behaviour.shared)
            queries, values = self._queries.of(prefix), self._values.of(prefix)
            if not queries and not values:
                queries, values = self._queries.near(prefix), self._values.near(prefix)
            found = Suggested(
                nsmallest(most, queries, key=lambda query: (-behaviour.shared[query], query)),
                nsmallest(most, values, key=lambda value: (-value.products, value)),
            )
            if len(queries) + len(values) >= _BROAD:
                self._broad[prefix, most] = now + _KEPT, found
        return found

    def _take(self, shared: Mapping[str, float]) -> None:
        if len(shared) > self._taken:
            # A copy at once: events are folded in meanwhile, and may share another.
            known = list(shared)
            self._queries.add((query, query) for query in known[self._taken :])
            self._taken = len(known)


def _values(products: pa.Table, column: str) -> list[Value]:
    counts = pc.value_counts(products[column].combine_chunks().drop_null())
    return [Value(column, each["values"], each["counts"]) for each in counts.to_pylist() if each["values"].strip()]
