"""The catalogue as arrays by row: what a feature can know of a product."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.arrays import Doubles, Floats, Ints
from indexer.snapshot import IndexSnapshot, TokenLists


class ProductTable(NamedTuple):
    """Arrays by product row; NaN or -1 where the catalogue says nothing."""

    vectors: Floats
    log_price: Doubles
    in_stock: Doubles
    brand: Ints
    category: Ints
    tokens: TokenLists
    vocabulary: Ints
    idf: Doubles
    mean_tokens: float

    def __len__(self) -> int:
        return len(self.log_price)

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
    return ProductTable(
        vectors=snapshot.vectors,
        log_price=np.log1p(_numbers(products, "price")),
        in_stock=_numbers(products, "in_stock"),
        brand=_codes(products, "brand"),
        category=_codes(products, "category"),
        tokens=tokens,
        vocabulary=vocabulary,
        idf=idf,
        mean_tokens=max(len(tokens.hashes), 1) / max(len(snapshot), 1),
    )


def _idf(tokens: TokenLists, rows: int) -> tuple[Ints, Doubles]:
    owners = np.repeat(np.arange(rows), np.diff(tokens.offsets))
    vocabulary, codes = np.unique(tokens.hashes, return_inverse=True)
    titles = np.bincount(np.unique(codes * rows + owners) // rows, minlength=len(vocabulary))
    return vocabulary, np.log(1.0 + (rows - titles + 0.5) / (titles + 0.5))


def _numbers(products: pa.Table, column: str) -> Doubles:
    values = pc.fill_null(pc.cast(products.column(column), pa.float64()), float("nan"))
    return np.asarray(values.to_numpy())


def _codes(products: pa.Table, column: str) -> Ints:
    """A number for each distinct text, -1 for none."""
    encoded: Any = products.column(column).combine_chunks().dictionary_encode()
    indices: Sequence[int] = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return np.asarray(indices, np.int64)
