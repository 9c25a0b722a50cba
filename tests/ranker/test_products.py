"""The catalogue as arrays."""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
import pytest

from indexer.amended import AmendedRows
from indexer.rendered import Inventory
from indexer.snapshot import IndexSnapshot
from indexer.text import token_hashes
from ranker.products import ProductTable, product_table


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


def test_words_of_brands_and_categories(table: Callable[..., ProductTable]) -> None:
    made = table("hat", "boot", "cap", brand=["North Face", None, "北面"], category=["Hats", "Hats", None])
    for codes, words, row, expected in (
        (made.brand, made.brand_words, 0, "north face"),
        (made.brand, made.brand_words, 2, "北面"),
        (made.category, made.category_words, 1, "hat"),
    ):
        code = codes[row]
        assert words.hashes[words.offsets[code] : words.offsets[code + 1]].tolist() == token_hashes(expected).tolist()


def test_price_bands_are_of_equal_size(table: Callable[..., ProductTable]) -> None:
    prices = np.random.default_rng(0).permutation(np.geomspace(1, 1_000, 50)).tolist()
    made = table(*(f"hat {i}" for i in range(51)), price=[*prices, None])
    assert np.bincount(made.price_band[:50]).tolist() == [5] * 10
    order = np.argsort(prices)
    assert (np.diff(made.price_band[order]) >= 0).all()
    assert made.price_band[50] == -1
    assert table("hat", "boot").price_band.tolist() == [-1, -1]


def test_live_prices_and_stock_stand_in_by_the_same_bands(table: Callable[..., ProductTable]) -> None:
    prices = [*np.geomspace(1, 1_000, 50).tolist(), None, 30.0]
    made = table(*(f"hat {i}" for i in range(52)), price=prices, in_stock=[True] * 50 + [None] * 2)
    price, live = np.array([*prices[:50], np.nan, 30.0]), np.zeros(52, bool)
    price[[0, 50]], live[[0, 50, 51]] = (2_000.0, 0.5), True
    stock = made.in_stock.copy()
    stock[51] = 0.0
    now = made.stocked(Inventory(price, stock, live, live))
    assert now.log_price[[0, 50, 51]] == pytest.approx([log(2_001), log(1.5), log(31)])
    assert now.price_band[[0, 50]].tolist() == [9, 0]
    assert (now.in_stock[51], now.price_band[51]) == (0.0, made.price_band[51])
    # All else to the last bit, and the table that was.
    assert now.log_price[1:50].tobytes() == made.log_price[1:50].tobytes()
    assert now.price_band[1:50].tolist() == made.price_band[1:50].tolist()
    assert made.price_band[[0, 50]].tolist() == [0, -1]
    assert np.isnan(made.log_price[50])


def test_a_price_where_the_catalogue_had_none(table: Callable[..., ProductTable]) -> None:
    made = table("hat", "boot")
    now = made.stocked(Inventory(np.array([3.0, np.nan]), made.in_stock, np.array([True, False]), np.zeros(2, bool)))
    assert now.price_band.tolist() == [0, -1]


def test_numbers_of_a_title(table: Callable[..., ProductTable]) -> None:
    made = table("hat", "3/4 in. x 10 ft. pipe", "usb2.0 cable 65w", "登山靴 42码")
    assert made.numbers.tolist() == [0.0, 2.0, 2.0, 1.0]


def test_rows_that_come_later_are_as_if_they_had_been_there(titles: Callable[..., IndexSnapshot]) -> None:
    columns: dict[str, list[Any]] = {
        "price": [1.0, 9.0, None, 5.0, None],
        "in_stock": [True, None, False, True, None],
        "brand": ["Nord", None, "Süd", "West", "Nord"],
        "category": ["Boots", "Hats", None, "Hats", "Big Tents"],
    }
    words = ("red boot 3/4", "blue hat", "green hat", "new hat 7", "tent")
    whole, first, later = (
        titles(*words[part], **{name: values[part] for name, values in columns.items()})
        for part in (slice(None), slice(3), slice(3, None))
    )
    expected, before = product_table(whole), product_table(first)
    made = before.amended(AmendedRows(np.array([3, 4]), 3), later.products, later.vectors, first.products)
    assert (len(before), len(made)) == (3, 5)
    for name in ("log_price", "in_stock", "numbers"):
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name))
    np.testing.assert_array_equal(np.asarray(made.vectors), whole.vectors)
    np.testing.assert_array_equal(made.price_band[:3], before.price_band)
    assert made.price_band[3:].tolist() == [np.searchsorted(before.band_edges, log(6), side="right"), -1]
    for ours, theirs in zip(made.tokens, expected.tokens, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Equal texts have equal codes, known texts the ones that they had.
    assert made.brand[0] == made.brand[4] != made.brand[3] > made.brand[2]
    assert made.category[1] == made.category[3] != made.category[4]
    for codes, lists in ((made.brand, made.brand_words), (made.category, made.category_words)):
        assert len(lists.offsets) == codes.max() + 2
    place = made.category[4]
    words_of = made.category_words.hashes[made.category_words.offsets[place] : made.category_words.offsets[place + 1]]
    assert words_of.tolist() == token_hashes("Big Tents").tolist()
    assert (made.idf is before.idf, made.mean_tokens) == (True, before.mean_tokens)


def test_a_row_that_is_said_anew_is_as_if_it_had_always_been_so(titles: Callable[..., IndexSnapshot]) -> None:
    said = titles(
        "new boot 7 8", "tent", price=[2.0, 5.0], in_stock=[False, True], brand=["West", None], category=[None, "Hats"]
    )
    first = titles(
        *("red boot 3/4", "blue hat", "green hat"),
        price=[1.0, 9.0, None],
        in_stock=[True, None, False],
        brand=["Nord", None, "Süd"],
        category=["Boots", "Hats", None],
    )
    before = product_table(first)
    made = before.amended(AmendedRows(np.array([1, 3]), 3), said.products, said.vectors, first.products)
    np.testing.assert_array_equal(made.log_price, np.log1p([1.0, 2.0, np.nan, 5.0]))
    np.testing.assert_array_equal(made.in_stock, [1.0, 0.0, 0.0, 1.0])
    assert made.numbers.tolist() == [1.0, 2.0, 0.0, 0.0]
    assert (made.brand[[0, 2, 3]].tolist(), made.brand[1]) == ([*before.brand[[0, 2]].tolist(), -1], 2)
    assert made.category.tolist() == [before.category[0], -1, -1, before.category[1]]
    lists = np.split(made.tokens.hashes, made.tokens.offsets[1:-1])
    for words, title in zip(lists, ("red boot 3/4", "new boot 7 8", "green hat", "tent"), strict=True):
        assert words.tolist() == token_hashes(title).tolist()
    np.testing.assert_array_equal(
        np.asarray(made.vectors), [first.vectors[0], said.vectors[0], first.vectors[2], said.vectors[1]]
    )
    # The release's own table is as it was.
    np.testing.assert_array_equal(before.log_price, np.log1p([1.0, 9.0, np.nan]))
