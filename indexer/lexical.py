"""BM25 over the products' words: recall by what a title says, beside recall by what it means."""

import copy
import threading
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import bm25s
import numpy as np

from indexer.amended import AmendedRows
from indexer.arrays import Array, Doubles, Floats, Ints, Mask, sealed
from indexer.errors import SnapshotError
from indexer.machine_code import machine_code
from indexer.spelling import Speller
from indexer.text import hashes_of, normalise, tokens

# Recall of judged products moves by 0.005 over k1 0.6 to 1.5 and b 0.25 to 0.75: see decision 9.
_K1 = 1.2
_B = 0.5
# Rows of a word for each row asked for up to which they are all looked at; beyond, each row is looked for among them. A
# step of the first takes 2 ns, a search 60.
_WALKED = 32


class Terms(NamedTuple):
    """The words that a query is searched by: its tokens, misspelt ones mended, each once, in their order.

    `hashes` are int64 [words]; `numeric` [words] marks those that were typed with a digit in them: sizes, model codes.
    """

    words: Sequence[str]
    hashes: Ints
    numeric: Mask


class Matches(NamedTuple):
    """The rows that share a word with a query, best first, ties by row; both [found], scores above 0."""

    rows: Ints
    scores: Doubles


class _Numbers:
    """Lists of numbers as slices of one array, a fraction of the memory of lists; int32 [all], int64 [lists + 1]."""

    def __init__(self, numbers: Array, offsets: Ints) -> None:
        self._numbers, self._offsets = numbers, offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[list[int]]:
        return (self._numbers[start:stop].tolist() for start, stop in pairwise(self._offsets.tolist()))


class _Tokenised(NamedTuple):
    """Texts as bm25s takes them: the numbers of each one's words, and the number of every word."""

    ids: _Numbers
    vocab: dict[str, int]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "_Tokenised":
        vocabulary: dict[str, int] = {}
        numbers, offsets = array("i"), array("q", [0])
        for text in texts:
            numbers.extend(vocabulary.setdefault(word, len(vocabulary)) for word in tokens(normalise(text)))
            offsets.append(len(numbers))
        return cls(_Numbers(np.frombuffer(numbers, np.int32), np.frombuffer(offsets, np.int64)), vocabulary)


class _Postings(NamedTuple):
    """Word i of `numbers` stands in `rows[offsets[i]:offsets[i + 1]]`, which rise, and adds `scores` there."""

    numbers: Mapping[str, int]
    offsets: Array
    rows: Array
    scores: Array

    def known(self, words: Sequence[str]) -> Ints:
        """The numbers of those of `words` that stand in any text."""
        return np.array([self.numbers[word] for word in words if word in self.numbers], np.int64)


class _Workspace(NamedTuple):
    """Room for one search, [all rows] each: sums and places are all zero between two of them."""

    sums: Floats
    touched: Ints
    places: Array


class LexicalIndex:
    """Every token's rows with what it adds to their BM25 (Robertson and Zaragoza 2009), computed at build time.

    The idf is Lucene's, log(1 + (N - n + 0.5) / (n + 0.5)), which is never negative. Row i is the i-th text.
    """

    def __init__(self, bm25: bm25s.BM25) -> None:
        self._bm25 = bm25
        arrays = (np.asarray(bm25.scores[name]) for name in ("indptr", "indices", "data"))
        self._parts = [_Postings(bm25.vocab_dict, *arrays)]
        # Rows whose texts the first part no longer knows [all rows].
        self._stale: Mask | None = None
        rows_of_token = np.diff(self._parts[0].offsets).tolist()
        self._spell_by(Speller(dict(zip(bm25.vocab_dict, rows_of_token, strict=True))))
        self._room_for(int(bm25.scores["num_docs"]))

    def _spell_by(self, speller: Speller) -> None:
        self._speller = speller
        # A request asks for the words of its query three times: to recall, for the features and for the scores. Not a
        # method of this index: it would refer to itself and, once dropped, hold its postings until a collection.
        self._terms = lru_cache(256)(partial(_terms, speller))

    def _room_for(self, rows: int) -> None:
        self._rows, self._local = rows, threading.local()

    def amended(self, rows: AmendedRows, texts: Sequence[str]) -> "LexicalIndex":
        """This index with `texts` in those rows; only to be searched.

        Their scores are as if the texts were too few to change how frequent a word is and how long a text, which is
        told in distinct words here. To be called on an index as it was built.
        """
        postings = self._postings_of(rows.rows, list(map(_counted, texts)))
        frequencies = np.diff(postings.offsets).tolist()
        made = copy.copy(self)
        made._parts = [*self._parts, postings]
        made._stale = rows.mask if rows.replaced else None
        gone = self._only_in(rows) - postings.numbers.keys() if rows.replaced else frozenset()
        made._spell_by(self._speller.knowing(dict(zip(postings.numbers, frequencies, strict=True)), gone))
        made._room_for(rows.total)
        return made

    def _only_in(self, rows: AmendedRows) -> Set[str]:
        """The words that no text has but those of these rows, as they were built."""
        built = self._parts[0]
        places = np.flatnonzero(rows.mask[built.rows])
        numbers, counts = np.unique(np.searchsorted(built.offsets, places, side="right") - 1, return_counts=True)
        every = list(built.numbers)
        return {every[number] for number in numbers[counts == np.diff(built.offsets)[numbers]].tolist()}

    def _postings_of(self, of: Ints, counted: Sequence[Counter[str]]) -> _Postings:
        """Of the texts of some rows, given as how often each word stands in them."""
        built, rows = self._parts[0], len(self)
        found: dict[str, list[tuple[int, int]]] = {}
        for place, counts in enumerate(counted):
            for word, count in counts.items():
                found.setdefault(word, []).append((place, count))
        offsets = np.cumsum([0, *map(len, found.values())], dtype=np.int64)
        there, times = np.array([pair for pairs in found.values() for pair in pairs], np.int64).reshape(-1, 2).T
        standing = [int(built.offsets[place + 1] - built.offsets[place]) for place in built.known(list(found))]
        known = dict(zip((word for word in found if word in built.numbers), standing, strict=True))
        frequency = np.repeat([known.get(word, len(pairs)) for word, pairs in found.items()], np.diff(offsets))
        length = np.array([len(counts) for counts in counted], np.float64)[there]
        mean = len(built.rows) / max(rows, 1) or 1.0
        idf = np.log1p((rows - frequency + 0.5).clip(0.5) / (frequency + 0.5))
        scores = idf * times / (times + _K1 * (1 - _B + _B * length / mean))
        numbers = {word: number for number, word in enumerate(found)}
        there = of[there].astype(np.int32)
        return _Postings(numbers, sealed(offsets), sealed(there), sealed(scores.astype(np.float32)))

    @classmethod
    def build(cls, texts: Iterable[str]) -> "LexicalIndex":
        """Index the tokens of `texts`."""
        bm25 = bm25s.BM25(method="lucene", k1=_K1, b=_B, backend="numpy")
        # Texts without any word have a mean length of 0.
        with np.errstate(invalid="ignore"):
            bm25.index(_Tokenised.of(texts), create_empty_token=False, show_progress=False)
        return cls(bm25)

    @classmethod
    def load(cls, folder: Path) -> "LexicalIndex":
        """Open what `save` wrote, the arrays memory-mapped. Raises `SnapshotError` where it is missing or damaged."""
        try:
            bm25 = bm25s.BM25.load(folder, mmap=True, show_progress=False)
            if not bm25.scores["indptr"][-1] == len(bm25.scores["data"]) == len(bm25.scores["indices"]):
                raise ValueError("its arrays do not fit each other")
            rows, count = bm25.scores["indices"], bm25.scores["num_docs"]
            # Compiled loops follow these numbers without looking at their bounds.
            if (np.diff(bm25.scores["indptr"]) < 0).any() or (len(rows) and not 0 <= rows.min() <= rows.max() < count):
                raise ValueError("its arrays name rows that are not there")
            return cls(bm25)
        except FileNotFoundError as error:
            raise SnapshotError(
                f"{error.filename} is missing: the index is damaged, or of a version without a lexical index. "
                "Build the index again."
            ) from error
        except (OSError, EOFError, ValueError, TypeError, AttributeError) as error:
            raise SnapshotError(f"{folder} is damaged: {error}. Build the index again.") from error

    def save(self, folder: Path) -> None:
        """Write the arrays and the vocabulary into `folder`, which is made."""
        self._bm25.save(folder, show_progress=False)

    def __len__(self) -> int:
        return self._rows

    def search(self, query: str, k: int, mask: Mask | None = None) -> Matches:
        """The `k` best rows among those where `mask` [rows] is true; fewer where fewer share a word with `query`."""
        words, room = self._terms(query).words, self._workspace()
        found = [_matching(part.known(words), *part[1:], room.sums, room.touched) for part in self._parts]
        if self._stale is not None:
            kept = ~self._stale[found[0][0]]
            found[0] = found[0][0][kept], found[0][1][kept]
        rows, scores = found[0] if len(found) == 1 else map(np.concatenate, zip(*found, strict=True))
        if mask is not None:
            kept = mask[rows]
            rows, scores = rows[kept], scores[kept]
        if 0 < k < len(rows):
            # All that tie with the k-th, so that the row decides between them.
            kept = scores >= np.partition(scores, -k)[-k]
            rows, scores = rows[kept], scores[kept]
        best = np.lexsort((rows, -scores))[:k]
        return Matches(rows[best], scores[best].astype(np.float64))

    def scores(self, query: str, rows: Ints) -> Doubles:
        """BM25 of `rows`, [rows]; 0 where nothing matches."""
        words, places = self._terms(query).words, self._workspace().places
        first, *further = (_scores_of(part.known(words), *part[1:], rows, places) for part in self._parts)
        if self._stale is not None:
            first[self._stale[rows]] = 0.0
        return np.asarray(sum(further, first), np.float64)

    def terms(self, query: str) -> Terms:
        """What `query` is searched by."""
        return self._terms(query)

    def mended(self, query: str) -> str:
        """`query`, normalised, as the encoder should read it: misspelt words as the products write them."""
        return self._speller.mended(normalise(query))

    def _workspace(self) -> _Workspace:
        """That of this thread."""
        if not hasattr(self._local, "room"):
            rows = len(self)
            self._local.room = _Workspace(
                np.zeros(rows, np.float32), np.empty(rows, np.int64), np.zeros(rows, np.int32)
            )
        room: _Workspace = self._local.room
        return room


def _terms(speller: Speller, query: str) -> Terms:
    typed = tokens(normalise(query))
    words = speller.corrected(typed)
    numeric = [word in typed and any(map(str.isdigit, word)) for word in words]
    return Terms(words, hashes_of(words), np.array(numeric, bool))


# With each further text those before it are amended anew.
@lru_cache(4_096)
def _counted(text: str) -> Counter[str]:
    """How often each word stands in a text; not to be changed."""
    return Counter(tokens(normalise(text)))


@machine_code
def _matching(
    words: Ints, offsets: Ints, rows: Array, scores: Floats, sums: Floats, touched: Ints
) -> tuple[Ints, Floats]:
    """The rows that hold one of `words`, and their summed scores; word i stands in `rows[offsets[i]:offsets[i + 1]]`.

    Only what is touched costs anything: most words stand in few rows.
    """
    count = 0
    for word in words:
        for place in range(offsets[word], offsets[word + 1]):
            row = rows[place]
            if sums[row] == 0:
                touched[count] = row
                count += 1
            sums[row] += scores[place]
    found = touched[:count].copy()
    total = np.empty(count, np.float32)
    for i in range(count):
        total[i] = sums[found[i]]
        sums[found[i]] = 0
    return found, total


@machine_code
def _scores_of(words: Ints, offsets: Ints, rows: Array, scores: Floats, wanted: Ints, places: Array) -> Floats:
    """The same sum for each of `wanted`; a word's rows rise.

    Most words stand in few rows, and to look which of them are wanted, by their `places`, is quicker than to look for
    each that is.
    """
    sums = np.zeros(len(wanted), np.float32)
    for i in range(len(wanted)):
        places[wanted[i]] = i + 1
    for word in words:
        start, stop = np.uint64(offsets[word]), np.uint64(offsets[word + 1])
        if stop - start <= np.uint64(_WALKED * len(wanted)):
            for at in range(start, stop):
                place = places[rows[at]]
                if place:
                    sums[place - 1] += scores[at]
            continue
        for i in range(len(wanted)):
            found, left = start, stop - start
            while left > np.uint64(1):
                half = left >> np.uint64(1)
                if rows[found + half] <= wanted[i]:
                    found += half
                left -= half
            # Of a row that is wanted twice one place holds the sum.
            if rows[found] == wanted[i] and places[wanted[i]] == i + 1:
                sums[i] += scores[found]
    total = np.empty(len(wanted), np.float32)
    for i in range(len(wanted)):
        total[i] = sums[places[wanted[i]] - 1]
    for row in wanted:
        places[row] = 0
    return total
