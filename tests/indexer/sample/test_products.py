"""Products: canonical, distinct, the same for a seed, and read back from their titles."""

import time

import numpy as np
import polars as pl
import pytest

from indexer.canonical import PRODUCTS
from indexer.sample.products import _draw_catalog, make_products, open_market, read_catalog
from indexer.sample.taxonomy import load_taxonomy


@pytest.fixture(scope="module")
def products() -> pl.DataFrame:
    return make_products(5_000, seed=7)


def test_schema_is_canonical(products: pl.DataFrame) -> None:
    further = dict.fromkeys(["department", "colour", "language"], pl.String())
    assert dict(products.schema) == {**PRODUCTS, **further}
    assert sum(products.drop("colour").null_count().row(0)) == 0


def test_seed_decides(products: pl.DataFrame) -> None:
    assert products.equals(make_products(5_000, seed=7))
    assert not products.equals(make_products(5_000, seed=8))


def test_ids_are_unique_and_titles_nearly(products: pl.DataFrame) -> None:
    assert products["product_id"].head(2).to_list() == ["P0000001", "P0000002"]
    assert products["product_id"].is_unique().all()
    assert products["title"].n_unique() >= 0.98 * len(products)


def test_both_languages(products: pl.DataFrame) -> None:
    chinese = products["language"] == "zh"
    assert 0.2 < chinese.mean() < 0.3
    assert products["title"].str.contains(r"\p{Han}").equals(chinese)


def test_prices_suit_the_type(products: pl.DataFrame) -> None:
    words = load_taxonomy()
    low, high = words.type_prices[read_catalog(products).kind].T
    price = products["price"].to_numpy()
    assert (price > 0).all()
    assert ((price > 0.7 * low) & (price < 1.5 * high + 1)).all()


def test_catalog_is_read_back_from_the_table(products: pl.DataFrame) -> None:
    drawn = _draw_catalog(5_000, load_taxonomy(), np.random.default_rng([7, 1]))
    read = read_catalog(products)
    for name in ("kind", "brand", "zh", "attributes", "price", "in_stock"):
        np.testing.assert_array_equal(getattr(read, name), getattr(drawn, name), err_msg=name)


def test_price_rank_is_within_the_type(products: pl.DataFrame) -> None:
    catalog = read_catalog(products)
    rank, of_type = catalog.price_rank(), catalog.kind == catalog.kind[0]
    assert rank[of_type].min() == 0
    assert rank[of_type].max() == 1
    assert (np.diff(catalog.price[of_type][np.argsort(rank[of_type])]) >= 0).all()


def test_shelves_hold_their_products_popular_first(products: pl.DataFrame) -> None:
    market = open_market(read_catalog(products), np.random.default_rng(1))
    for kind in range(len(load_taxonomy().types)):
        shelf = market.rows[market.start[kind] :][: market.size[kind]]
        np.testing.assert_array_equal(np.sort(shelf), np.flatnonzero(market.catalog.kind == kind))
        assert (np.diff(market.popularity[shelf]) <= 0).all()
    assert market.size[-1] == len(products)


def test_many_products_are_made_quickly() -> None:
    start = time.perf_counter()
    products = make_products(100_000, seed=1)
    assert time.perf_counter() - start < 5
    assert products["title"].n_unique() >= 0.98 * len(products)
