"""What a query that is being typed may become: queries that several users asked, and values of the catalogue."""

import re
import threading
import time
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence, Set
from heapq import nsmallest
from itertools import chain, repeat
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rapidfuzz.distance import OSA
from rapidfuzz.process import extract

from indexer.arrays import Ints, Mask
from indexer.text import HAN, query_key
from ranker.behaviour import Behaviour

K = TypeVar("K", bound=Hashable)
# A column of the catalogue, and a value that products have in it.
Named = tuple[str, str]

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


class Said(NamedTuple):
    """What was said of products since the release: `rows` int64 [n], rising, of `products`, which has all of them.

    `listed` [rows of products] is None where none is deleted. Of the same state `rows` are the same array.
    """

    products: pa.Table
    rows: Ints
    listed: Mask | None = None

    @property
    def there(self) -> Ints:
        """Those of the rows that are not deleted."""
        return self.rows if self.listed is None else self.rows[self.listed[self.rows]]


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
        # By prefix, whether nearly so, and number asked for: until when a broad answer is good, and what it is.
        self._broad: dict[tuple[str, bool, int], tuple[float, list[K]]] = {}

    def add(self, texts: Iterable[tuple[str, K]]) -> None:
        new = [(text[match.start() :], key) for text, key in texts for match in _BEGINNINGS.finditer(text)]
        if len(new) < _MANY:
            for each in new:
                insort(self._sorted, each)
        else:
            self._sorted = sorted([*self._sorted, *new])

    def otherwise(self, without: Set[K], further: Iterable[tuple[str, K]]) -> "_Beginnings[K]":
        """These without some keys and with further texts, and with no answer kept."""
        made = _Beginnings[K]()
        made._sorted = [each for each in self._sorted if each[1] not in without] if without else self._sorted.copy()
        made.add(further)
        return made

    def first(self, prefix: str, most: int, weights: Mapping[K, float], *, nearly: bool = False) -> list[K]:
        """At most so many that begin so, or nearly so, those of the most weight first.

        Where thousands do, as they were at some time within the last minute.
        """
        now, asked = time.monotonic(), (prefix, nearly, most)
        until, kept = self._broad.get(asked, (0.0, []))
        if now < until:
            return kept
        keys = self._near(prefix) if nearly else self._of(prefix)
        found = nsmallest(most, keys, key=lambda key: (-weights[key], key))
        if len(keys) >= _BROAD:
            self._broad[asked] = now + _KEPT, found
        return found

    def _of(self, prefix: str) -> set[K]:
        return {key for _, key in self._from(prefix)}

    def _near(self, prefix: str) -> set[K]:
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
        return {key for meant, distance, _ in found if distance == least for key in self._of(meant)}

    def _from(self, prefix: str) -> list[tuple[str, K]]:
        first = bisect_left(self._sorted, (prefix,))
        last = bisect_left(self._sorted, (prefix + _LAST,))
        return self._sorted[first:last]


class _Values:
    """Values of the catalogue's columns, with the numbers of products that have them.

    What a release holds counts as it was released, whatever was deleted or changed since. What was said since counts
    on top, as long as it is not deleted.
    """

    def __init__(self, products: pa.Table, columns: Sequence[str]) -> None:
        self._products = products.select(columns)
        self._released = {named: count for column in columns for named, count in _counted(products, column)}
        self.counts: Mapping[Named, int] = self._released
        self.beginnings: _Beginnings[Named] = _Beginnings()
        self.beginnings.add(_texts(self._released))
        # What was followed last: the rows that were said since, those of them that count, and values that the release
        # has not.
        self._rows = self._there = np.empty(0, np.int64)
        self._new: Set[Named] = frozenset()

    def follow(self, said: Said) -> None:
        """Count what was said; nothing is done where that is what was followed last.

        Values that come and go are put in their places, for all to be sorted anew takes milliseconds where there are
        thousands.
        """
        there = said.there
        if said.rows is self._rows and np.array_equal(there, self._there):
            return
        since = self._since(said.products, there)
        new = since.keys() - self._released.keys()
        self.counts = {**self._released, **{named: self._released.get(named, 0) + since[named] for named in since}}
        self.beginnings = self.beginnings.otherwise(self._new - new, _texts(new - self._new))
        self._rows, self._there, self._new = said.rows, there, new

    def _since(self, products: pa.Table, rows: Ints) -> dict[Named, int]:
        """How many products of these rows have a value that is not the release's there."""
        held, found = rows[: np.searchsorted(rows, len(self._products))], dict[Named, int]()
        for column in self._products.column_names:
            now, was = products[column].take(pa.array(rows)), self._products[column].take(pa.array(held))
            pairs = zip(now.to_pylist(), chain(was.to_pylist(), repeat(None)), strict=False)
            counts = Counter(value for value, before in pairs if value != before)
            found.update(((column, value), count) for value, count in counts.items() if _names(value))
        return found


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
        self._values = _Values(products, columns)

    def find(self, typed: str, most: int, behaviour: Behaviour, said: Said | None = None) -> Suggested:
        """At most so many of each kind, one or more, for what was typed so far; for nothing the first of all.

        Where nothing begins so, what begins nearly so. What was `said` of products is known at once.
        """
        prefix = query_key(typed)
        if prefix and typed[-1].isspace():
            # The last word is whole: "red " is not the beginning of "reddish".
            prefix += " "
        with self._lock:
            self._take(behaviour.shared)
            if said is not None:
                self._values.follow(said)
            return self._first(prefix, most, behaviour.shared)

    def _first(self, prefix: str, most: int, shared: Mapping[str, float]) -> Suggested:
        beginnings, counts = self._values.beginnings, self._values.counts
        for nearly in (False, True):
            queries = self._queries.first(prefix, most, shared, nearly=nearly)
            values = beginnings.first(prefix, most, counts, nearly=nearly)
            if queries or values:
                break
        return Suggested(queries, [Value(*named, counts[named]) for named in values])

    def _take(self, shared: Mapping[str, float]) -> None:
        if len(shared) > self._taken:
            # A copy at once: events are folded in meanwhile, and may share another.
            known = list(shared)
            self._queries.add((query, query) for query in known[self._taken :])
            self._taken = len(known)


def _counted(products: pa.Table, column: str) -> list[tuple[Named, int]]:
    """The values of a column, and how many products have each."""
    counts = pc.value_counts(products[column].combine_chunks())
    return [((column, each["values"]), each["counts"]) for each in counts.to_pylist() if _names(each["values"])]


def _names(value: str | None) -> bool:
    """Whether a value can be suggested: there is one, and something to read in it."""
    return bool(value and value.strip())


def _texts(values: Iterable[Named]) -> Iterable[tuple[str, Named]]:
    """Values by what they are found by."""
    return ((query_key(value), (column, value)) for column, value in values)
