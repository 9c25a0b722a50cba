"""BM25 over the products' words: recall by what a title says, beside recall by what it means."""

import threading
from array import array
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import bm25s
import numpy as np

from indexer.arrays import Array, Doubles, Floats, Ints, Mask
from indexer.errors import SnapshotError
from indexer.machine_code import machine_code
from indexer.spelling import Speller
from indexer.text import hashes_of, normalise, tokens

# Recall of judged products moves by 0.005 over k1 0.6 to 1.5 and b 0.25 to 0.75: see decision 9.
_K1 = 1.2
_B = 0.5


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


class LexicalIndex:
    """Every token's rows with what it adds to their BM25 (Robertson and Zaragoza 2009), computed at build time.

    The idf is Lucene's, log(1 + (N - n + 0.5) / (n + 0.5)), which is never negative. Row i is the i-th text.
    """

    def __init__(self, bm25: bm25s.BM25) -> None:
        self._bm25 = bm25
        scores = bm25.scores
        self._postings = np.asarray(scores["indptr"]), np.asarray(scores["indices"]), np.asarray(scores["data"])
        self._local = threading.local()
        rows_of_token = np.diff(self._postings[0]).tolist()
        self._speller = speller = Speller(dict(zip(bm25.vocab_dict, rows_of_token, strict=True)))
        # A request asks for the words of its query three times: to recall, for the features and for the scores. Not a
        # method of this index: it would refer to itself and, once dropped, hold its postings until a collection.
        self._words = lru_cache(256)(lambda query: speller.corrected(tokens(normalise(query))))

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
        return int(self._bm25.scores["num_docs"])

    def search(self, query: str, k: int, mask: Mask | None = None) -> Matches:
        """The `k` best rows among those where `mask` [rows] is true; fewer where fewer share a word with `query`."""
        rows, scores = _matching(self._known(query), *self._postings, *self._workspace())
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
        return _scores_of(self._known(query), *self._postings, rows).astype(np.float64)

    def expand(self, query: str) -> Ints:
        """Hashes of the words that `query` is searched by: its tokens, misspelt ones mended. int64, without repeats."""
        return hashes_of(self._words(query))

    def mended(self, query: str) -> str:
        """`query`, normalised, as the encoder should read it: misspelt words as the products write them."""
        return self._speller.mended(normalise(query))

    def _known(self, query: str) -> Ints:
        """The numbers of the words of a query that stand in any text."""
        vocabulary = self._bm25.vocab_dict
        return np.array([vocabulary[word] for word in self._words(query) if word in vocabulary], np.int64)

    def _workspace(self) -> tuple[Floats, Ints]:
        """Room for the sums of one search, all zero between two of them, and for the rows it touched; by thread."""
        if not hasattr(self._local, "sums"):
            self._local.sums, self._local.rows = np.zeros(len(self), np.float32), np.empty(len(self), np.int64)
        return self._local.sums, self._local.rows


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
def _scores_of(words: Ints, offsets: Ints, rows: Array, scores: Floats, wanted: Ints) -> Floats:
    """The same sum for each of `wanted`; a word's rows rise."""
    total = np.zeros(len(wanted), np.float32)
    for word in words:
        mine = rows[offsets[word] : offsets[word + 1]]
        for i in range(len(wanted)):
            place = np.searchsorted(mine, wanted[i])
            if place < len(mine) and mine[place] == wanted[i]:
                total[i] += scores[offsets[word] + place]
    return total
