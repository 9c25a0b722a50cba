"""How a query's words match a product's: features of the pair, as columns over the candidates."""

from collections.abc import Mapping

import numpy as np

from indexer.arrays import Doubles, Ints
from indexer.lexical import LexicalIndex
from indexer.machine_code import machine_code
from indexer.text import hashes_of, normalise, tokens
from ranker.products import ProductTable

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
    counts, lengths, adjacent, first_match = _matches(hashes, first, rows, *table.tokens)
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
        "adjacent_words": adjacent / max(len(hashes) - 1, 1),
        "number_coverage": found[:, numbers].mean(1) if numbers.any() else float("nan"),
        "number_surplus": table.numbers[rows] - (counts[:, numbers] > 0).sum(1),
        "title_coverage": counts.sum(1) / np.maximum(lengths, 1),
        "first_match": first_match,
        "brand_named": _named(hashes, table.brand, rows, *table.brand_words),
        "category_named": _named(hashes, table.category, rows, *table.category_words),
    }


@machine_code
def _matches(
    hashes: Ints, first: Ints, rows: Ints, tokens: Ints, offsets: Ints
) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """How each title matches the sorted query `hashes`, whose places in the query are `first`.

    How often each query word stands in it [rows, words], how many tokens it has, how many pairs of neighbours in the
    query are neighbours in it, and the place of its first match as a share of its length, NaN without one; all [rows].
    """
    counts = np.zeros((len(rows), len(hashes)))
    lengths, adjacent, first_match = np.zeros(len(rows)), np.zeros(len(rows)), np.full(len(rows), np.nan)
    for i in range(len(rows)):
        start, end = offsets[rows[i]], offsets[rows[i] + 1]
        lengths[i] = end - start
        before = -2
        for place in range(start, end):
            # Queries are short: trying one word after the other is twice as fast as halving.
            word = 0
            while word < len(hashes) and hashes[word] != tokens[place]:
                word += 1
            if word == len(hashes):
                before = -2
                continue
            counts[i, word] += 1
            if first[word] == before + 1:
                adjacent[i] += 1
            before = first[word]
            if np.isnan(first_match[i]):
                first_match[i] = (place - start) / (end - start)
    return counts, lengths, adjacent, first_match


@machine_code
def _named(hashes: Ints, codes: Ints, rows: Ints, words: Ints, offsets: Ints) -> Doubles:
    """The share of the words of each product's brand (or category) that the query names; NaN where it has none."""
    share = np.full(len(rows), np.nan)
    for i in range(len(rows)):
        code = codes[rows[i]]
        if code >= 0 and offsets[code + 1] > offsets[code]:
            named = 0
            for place in range(offsets[code], offsets[code + 1]):
                at = np.searchsorted(hashes, words[place])
                named += at < len(hashes) and hashes[at] == words[place]
            share[i] = named / (offsets[code + 1] - offsets[code])
    return share


def _numeric(query: str) -> Ints:
    """Hashes of the query's tokens that hold a digit: sizes, model codes."""
    return hashes_of([word for word in tokens(normalise(query)) if any(c.isdigit() for c in word)])
