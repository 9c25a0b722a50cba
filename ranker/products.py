"""The catalogue as arrays by row: what a feature can know of a product."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.amended import Amended, AmendedRows, Vectors
from indexer.arrays import Array, Doubles, Floats, Ints, sealed
from indexer.rendered import Inventory
from indexer.snapshot import IndexSnapshot, TokenLists
from indexer.text import token_hashes

# Prices fall into so many bands of equal size.
_BANDS = 10

# The words of a brand or category: of code i, `hashes[offsets[i]:offsets[i + 1]]`.
Words = TokenLists


class ProductTable(NamedTuple):
    """Arrays by product row; NaN or -1 where the catalogue says nothing. `numbers` counts a title's numbers.

    `band_edges` are the logarithms of prices between which the bands lie.
    """

    vectors: Vectors
    log_price: Doubles
    price_band: Ints
    band_edges: Doubles
    in_stock: Doubles
    brand: Ints
    brand_words: Words
    category: Ints
    category_words: Words
    numbers: Doubles
    tokens: TokenLists
    vocabulary: Ints
    idf: Doubles
    mean_tokens: float

    def __len__(self) -> int:
        return len(self.log_price)

    def stocked(self, inventory: Inventory) -> "ProductTable":
        """This table with the live prices and stock; the bands are those that the model was trained with."""
        rows = np.flatnonzero(inventory.priced)
        log_price, price_band = self.log_price.copy(), self.price_band.copy()
        log_price[rows] = np.log1p(inventory.price[rows])
        price_band[rows] = _bands(log_price[rows], self.band_edges)
        return self._with({"log_price": log_price, "price_band": price_band, "in_stock": inventory.in_stock})

    def amended(self, rows: AmendedRows, products: pa.Table, vectors: Floats, before: pa.Table) -> "ProductTable":
        """This table, of the products `before`, with `products` in those rows; `vectors` are of their titles.

        Frequencies of words and edges of price bands stay what the model was trained with. To be called on the table
        of an index.
        """
        log_price = np.log1p(numbers(products, "price"))
        brand, brand_words = _more_codes(before, products, "brand", self.brand_words)
        category, category_words = _more_codes(before, products, "category", self.category_words)
        titles = list(map(_hashes_again, products.column("title").to_pylist()))
        more = {
            "log_price": log_price,
            "price_band": _bands(log_price, self.band_edges),
            "in_stock": numbers(products, "in_stock"),
            "brand": brand,
            "category": category,
            "numbers": _count_numbers(products),
        }
        longer = {
            "vectors": Amended(np.asarray(self.vectors), rows, vectors),
            "tokens": _amended_lists(self.tokens, rows, titles),
            "brand_words": brand_words,
            "category_words": category_words,
        }
        return self._with(longer | {name: rows.into(getattr(self, name), more[name]) for name in more})

    def _with(self, parts: dict[str, Any]) -> "ProductTable":
        # Not `_replace`, which takes its length for the number of its fields.
        return ProductTable(**self._asdict() | parts)

    def inverse_document_frequency(self, hashes: Ints) -> Doubles:
        """log(1 + (N - n + 0.5) / (n + 0.5)) of each token hash (Robertson and Zaragoza 2009); n = 0 if unknown."""
        unknown = np.log(2.0 * len(self) + 2.0)
        if not len(self.vocabulary):
            return np.full(len(hashes), unknown)
        places = np.searchsorted(self.vocabulary, hashes).clip(max=len(self.vocabulary) - 1)
        return np.asarray(np.where(self.vocabulary[places] == hashes, self.idf[places], unknown), np.float64)


def product_table(snapshot: IndexSnapshot) -> ProductTable:
    """The table of an index."""
    products, tokens = snapshot.products, snapshot.tokens
    vocabulary, idf = _idf(tokens, len(snapshot))
    brand, brand_words = _codes(products, "brand")
    category, category_words = _codes(products, "category")
    log_price = np.log1p(numbers(products, "price"))
    edges = _edges(log_price)
    return ProductTable(
        vectors=snapshot.vectors,
        log_price=log_price,
        price_band=_bands(log_price, edges),
        band_edges=edges,
        in_stock=numbers(products, "in_stock"),
        brand=brand,
        brand_words=brand_words,
        category=category,
        category_words=category_words,
        numbers=_count_numbers(products),
        tokens=tokens,
        vocabulary=vocabulary,
        idf=idf,
        mean_tokens=max(len(tokens.hashes), 1) / max(len(snapshot), 1),
    )


def _idf(tokens: TokenLists, rows: int) -> tuple[Ints, Doubles]:
    owners = np.repeat(np.arange(rows), np.diff(tokens.offsets))
    vocabulary, codes = np.unique(tokens.hashes, return_inverse=True)
    # Sorted by hand: NumPy's own `unique` takes ten times as long.
    pairs = np.sort(codes * rows + owners)
    titles = np.bincount(pairs[np.diff(pairs, prepend=-1) != 0] // max(rows, 1), minlength=len(vocabulary))
    return vocabulary, np.log(1.0 + (rows - titles + 0.5) / (titles + 0.5))


def numbers(products: pa.Table, column: str) -> Doubles:
    """A column of numbers or truth values; NaN where there is none."""
    values = pc.fill_null(pc.cast(products.column(column), pa.float64()), float("nan"))
    return np.asarray(values.to_numpy())


def _count_numbers(products: pa.Table) -> Doubles:
    counts = pc.count_substring_regex(products.column("title"), r"\d+(?:[./]\d+)*")
    return np.asarray(counts.to_numpy(), np.float64)


def _edges(log_price: Doubles) -> Doubles:
    """Between the price bands: quantiles of the known prices, none where there is no price."""
    known = log_price[np.isfinite(log_price)]
    return np.quantile(known, np.arange(1, _BANDS) / _BANDS) if len(known) else np.empty(0)


def _bands(log_price: Doubles, edges: Doubles) -> Ints:
    """The price band of each price; -1 where there is no price."""
    return np.where(np.isfinite(log_price), np.searchsorted(edges, log_price, side="right"), -1)


def _codes(products: pa.Table, column: str) -> tuple[Ints, Words]:
    """A number for each distinct text, -1 for none, and the words of each text."""
    encoded: Any = products.column(column).combine_chunks().dictionary_encode()
    indices: Sequence[int] = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    nothing = Words(np.empty(0, np.int64), np.zeros(1, np.int64))
    words = _more_lists(nothing, [token_hashes(text) for text in encoded.dictionary.to_pylist()])
    return np.asarray(indices, np.int64), words


def _more_codes(before: pa.Table, products: pa.Table, column: str, words: Words) -> tuple[Ints, Words]:
    """The codes of further products, and the words with those of texts that have no code yet behind them."""
    known: Any = before.column(column).combine_chunks().dictionary_encode().dictionary
    texts = products.column(column).combine_chunks()
    new = texts.filter(pc.invert(pc.is_in(texts, known))).drop_null().unique()
    codes = pc.index_in(texts, pa.concat_arrays([known, new.cast(known.type)]))
    return (
        np.asarray(pc.fill_null(codes, -1).to_numpy(zero_copy_only=False), np.int64),
        _more_lists(words, [token_hashes(text) for text in new.to_pylist()]),
    )


# With each further product those before it are amended anew.
_hashes_again = lru_cache(4_096)(token_hashes)


def _more_lists(known: TokenLists, lists: Sequence[Ints]) -> TokenLists:
    """Lists of hashes with further ones behind them."""
    ends = known.offsets[-1] + np.cumsum([len(each) for each in lists], dtype=np.int64)
    longer = np.concatenate([known.hashes, *lists]), np.concatenate([known.offsets, ends])
    return TokenLists(*map(sealed, longer))


def _amended_lists(known: TokenLists, rows: AmendedRows, lists: Sequence[Ints]) -> TokenLists:
    """Lists of hashes with those of some rows in place and behind."""
    lengths = rows.into(np.diff(known.offsets), np.array([len(each) for each in lists], np.int64))
    parts: list[Array] = []
    done = 0
    for row, each in zip(rows.rows.tolist(), lists, strict=True):
        before = min(row, rows.built)
        parts += [known.hashes[known.offsets[done] : known.offsets[before]], each]
        done = min(row + 1, rows.built)
    parts.append(known.hashes[known.offsets[done] :])
    return TokenLists(*map(sealed, (np.concatenate(parts), np.append(0, np.cumsum(lengths, dtype=np.int64)))))
