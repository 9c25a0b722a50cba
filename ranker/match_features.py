"""How a query's words match a product's: features of the pair, as columns over the candidates."""

from collections.abc import Mapping

import numpy as np

from indexer.arrays import Doubles, Ints, Mask
from indexer.lexical import LexicalIndex
from indexer.machine_code import machine_code
from ranker.products import ProductTable

# BM25's usual constants (Robertson and Zaragoza 2009).
_K1, _B = 1.2, 0.75

# What `_matches` makes, in its order.
_MATCHED = (
    "bm25",
    "query_coverage",
    "query_coverage_idf",
    "rarest_missing",
    # What an English query asks for mostly stands last: "black 3 light chandelier".
    "last_word_found",
    "adjacent_words",
    "number_coverage",
    "number_surplus",
    "title_coverage",
    "first_match",
)
NAMES = ("query_tokens", "lexical", *_MATCHED, "brand_named", "category_named")


def columns(query: str, rows: Ints, table: ProductTable, lexical: LexicalIndex) -> Mapping[str, Doubles | float]:
    """A column for each of NAMES: float64 [rows], or one number for all. NaN where nothing can be matched."""
    _, hashes, numeric = lexical.terms(query)
    if not len(hashes):
        return dict.fromkeys(NAMES, float("nan")) | {"query_tokens": 0.0}
    idf = table.inverse_document_frequency(hashes)
    found = dict(zip(_MATCHED, _matches(hashes, idf, numeric, rows, *table.tokens, table.mean_tokens), strict=True))
    return {
        "query_tokens": float(len(hashes)),
        "lexical": lexical.scores(query, rows),
        **found,
        "number_surplus": table.numbers[rows] - found["number_surplus"],
        "brand_named": _named(hashes, table.brand, rows, *table.brand_words),
        "category_named": _named(hashes, table.category, rows, *table.category_words),
    }


@machine_code
def _matches(
    hashes: Ints,
    idf: Doubles,
    numeric: Mask,
    rows: Ints,
    tokens: Ints,
    offsets: Ints,
    mean_tokens: float,
) -> Doubles:
    """How each title matches the query: a row for each of _MATCHED, [columns, rows].

    `hashes` are the query's words, in its order, `numeric` marks those that hold a digit. For "number_surplus" only
    what is to be taken off is told: the query's numbers that stand in the title.
    """
    out = np.zeros((len(_MATCHED), len(rows)))
    bm25, coverage, covered, missing, last, adjacent, number, numbers, title, place = out
    counts = np.empty(len(hashes))
    for i in range(len(rows)):
        start, end = offsets[rows[i]], offsets[rows[i] + 1]
        length = end - start
        counts[:] = 0.0
        place[i] = np.nan
        before = -2
        for at in range(start, end):
            # Queries are short: trying one word after the other is twice as fast as halving.
            word = 0
            while word < len(hashes) and hashes[word] != tokens[at]:
                word += 1
            if word == len(hashes):
                before = -2
                continue
            counts[word] += 1.0
            title[i] += 1.0 / length
            adjacent[i] += word == before + 1
            before = word
            if np.isnan(place[i]):
                place[i] = (at - start) / length
        norm = _K1 * (1 - _B + _B * length / mean_tokens)
        for word in range(len(hashes)):
            bm25[i] += idf[word] * counts[word] * (_K1 + 1) / (counts[word] + norm)
            if counts[word] > 0:
                coverage[i] += 1.0
                covered[i] += idf[word]
                numbers[i] += numeric[word]
            else:
                missing[i] = max(missing[i], idf[word])
        last[i] = counts[-1] > 0
    coverage /= len(hashes)
    covered /= idf.sum()
    adjacent /= max(len(hashes) - 1, 1)
    # NaN where the query has no number.
    number[:] = numbers / numeric.sum()
    return out


@machine_code
def _named(hashes: Ints, codes: Ints, rows: Ints, words: Ints, offsets: Ints) -> Doubles:
    """The share of the words of each product's brand (or category) that the query names; NaN where it has none."""
    share = np.full(len(rows), np.nan)
    for i in range(len(rows)):
        code = codes[rows[i]]
        if code >= 0 and offsets[code + 1] > offsets[code]:
            named = 0
            for place in range(offsets[code], offsets[code + 1]):
                word = 0
                while word < len(hashes) and hashes[word] != words[place]:
                    word += 1
                named += word < len(hashes)
            share[i] = named / (offsets[code + 1] - offsets[code])
    return share
