"""The catalogue as arrays."""

from collections.abc import Callable
from math import log

import numpy as np
import pytest

from indexer.text import token_hashes
from ranker.products import ProductTable


def test_columns_by_row(table: Callable[..., ProductTable]) -> None:
    made = table(
        "red boot",
        "blue boot",
        "hat",
        price=[0.0, 9.0, None],
        in_stock=[True, None, False],
        brand=["Nord", None, "Nord"],
        category=[None, "Shoes", "Hats"],
    )
    assert len(made) == 3
    assert made.log_price == pytest.approx([0.0, log(10), np.nan], nan_ok=True)
    assert made.in_stock == pytest.approx([1.0, np.nan, 0.0], nan_ok=True)
    assert made.brand[0] == made.brand[2] >= 0
    assert made.brand[1] == made.category[0] == -1
    assert len(set(made.category.tolist())) == 3
    assert made.mean_tokens == pytest.approx((2 + 2 + 1) / 3)


def test_a_catalogue_that_says_nothing_but_titles(table: Callable[..., ProductTable]) -> None:
    made = table("red boot", "hat")
    assert np.isnan(made.log_price).all()
    assert np.isnan(made.in_stock).all()
    assert made.brand.tolist() == made.category.tolist() == [-1, -1]


def test_idf_counts_titles_not_occurrences(table: Callable[..., ProductTable]) -> None:
    made = table("red red red", "red boot", "hat")
    hashes = np.concatenate([token_hashes(word) for word in ("red", "boot", "zeppelin")])
    assert made.inverse_document_frequency(hashes) == pytest.approx(
        [log(1 + (3 - 2 + 0.5) / (2 + 0.5)), log(1 + (3 - 1 + 0.5) / (1 + 0.5)), log(1 + (3 - 0 + 0.5) / (0 + 0.5))]
    )
