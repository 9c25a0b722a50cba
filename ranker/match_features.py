"""How a query's words match a product's: features of the pair, as columns over the candidates."""

from collections.abc import Mapping

import numpy as np

from indexer.arrays import Doubles, Ints
from indexer.lexical import LexicalIndex
from indexer.text import hashes_of, normalise, tokens
from ranker.products import ProductTable, Words

# BM25's usual constants (Robertson and Zaragoza 2009).
_K1, _B = 1.2, 0.75

NAMES = (
    "query_tokens",
    "lexical",
    "bm25",
    "query_coverage",
    "query_coverage_idf",
    "rarest_missing",
    "last_word_found",
    "adjacent_words",
    "number_coverage",
    "number_surplus",
    "title_coverage",
    "first_match",
    "brand_named",
    "category_named",
)


def columns(query: str, rows: Ints, table: ProductTable, lexical: LexicalIndex) -> Mapping[str, Doubles | float]:
    """A column for each of NAMES: float64 [rows], or one number for all. NaN where nothing can be matched."""
    words = lexical.expand(query)
    hashes, first = np.unique(words, return_index=True)
    if not len(hashes):
        return dict.fromkeys(NAMES, float("nan")) | {"query_tokens": 0.0}
    numbers = np.isin(hashes, _numeric(query))
    idf = table.inverse_document_frequency(hashes)
    entries = _Entries(hashes, rows, table)
    counts, lengths = entries.counts(len(hashes)), entries.lengths
    found = counts > 0
    norm = _K1 * (1 - _B + _B * lengths / table.mean_tokens)
    return {
        "query_tokens": float(len(hashes)),
        "lexical": lexical.scores(query, rows),
        "bm25": counts * (_K1 + 1) / (counts + norm[:, None]) @ idf,
        "query_coverage": found.mean(1),
        "query_coverage_idf": found @ idf / idf.sum(),
        "rarest_missing": (~found * idf).max(1),
        # What an English query asks for mostly stands last: "black 3 light chandelier".
        "last_word_found": found[:, int(np.argmax(first))].astype(np.float64),
        "adjacent_words": entries.adjacent(first) / max(len(hashes) - 1, 1),
        "number_coverage": found[:, numbers].mean(1) if numbers.any() else float("nan"),
        "number_surplus": table.numbers[rows] - (counts[:, numbers] > 0).sum(1),
        "title_coverage": counts.sum(1) / np.maximum(lengths, 1),
        "first_match": entries.first_match(),
        "brand_named": _named(table.brand_words, table.brand[rows], hashes),
        "category_named": _named(table.category_words, table.category[rows], hashes),
    }


class _Entries:
    """The title words of `rows`, one after the other, and which of the sorted query `hashes` each is (-1 for none)."""

    def __init__(self, hashes: Ints, rows: Ints, table: ProductTable) -> None:
        starts = table.tokens.offsets[rows]
        lengths = table.tokens.offsets[rows + 1] - starts
        self.lengths = lengths.astype(np.float64)
        self.owners = np.repeat(np.arange(len(rows)), lengths)
        self.within = np.arange(len(self.owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        entries = table.tokens.hashes[starts[self.owners] + self.within]
        which = np.searchsorted(hashes, entries).clip(max=len(hashes) - 1)
        self.which = np.where(hashes[which] == entries, which, -1)

    def counts(self, words: int) -> Doubles:
        """How often each query word stands in each title, [rows, words]."""
        matched = self.which >= 0
        cells = self.owners[matched] * words + self.which[matched]
        counts = np.bincount(cells, minlength=len(self.lengths) * words)
        return counts.reshape(len(self.lengths), words).astype(np.float64)

    def adjacent(self, first: Ints) -> Doubles:
        """How many pairs of neighbours in the query are neighbours in each title; `first` are places in the query."""
        both = (self.which[:-1] >= 0) & (self.which[1:] >= 0) & (self.owners[:-1] == self.owners[1:])
        step = first[self.which[1:]] - first[self.which[:-1]]
        return np.bincount(self.owners[:-1], both & (step == 1), minlength=len(self.lengths)).astype(np.float64)

    def first_match(self) -> Doubles:
        """The place of the first matching word as a share of the title's length; NaN where none matches."""
        place = np.full(len(self.lengths), np.inf)
        matched = self.which >= 0
        np.minimum.at(place, self.owners[matched], self.within[matched].astype(np.float64))
        return np.where(np.isfinite(place), place / np.maximum(self.lengths, 1), np.nan)


def _numeric(query: str) -> Ints:
    """Hashes of the query's tokens that hold a digit: sizes, model codes."""
    return hashes_of([word for word in tokens(normalise(query)) if any(c.isdigit() for c in word)])


def _named(words: Words, codes: Ints, hashes: Ints) -> Doubles:
    """The share of the words of each product's brand (or category) that the query names; NaN where it has none."""
    share = np.full(len(codes), np.nan)
    for code in np.unique(codes[codes >= 0]).tolist():
        mine = words.hashes[words.offsets[code] : words.offsets[code + 1]]
        share[codes == code] = np.isin(mine, hashes).mean() if len(mine) else np.nan
    return share
