"""A carried model: what was learnt follows the product, whatever row it has now."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import polars as pl
import pytest

from indexer.build import build_index
from indexer.encoder import Encoder
from indexer.errors import SnapshotError
from indexer.snapshot import IndexSnapshot, open_latest
from indexer.store import Store
from ranker import features, log
from ranker.behaviour import Behaviour
from ranker.carry import carry
from ranker.covisited import Covisited
from ranker.history import EMPTY, History
from ranker.log import Sources
from ranker.model import Model, load_model, stored_report
from ranker.scoring import Scorable
from ranker.train import evaluate_again

NOW = 1_800_000_000.0


class Carrying(NamedTuple):
    """A store of its own with the shop's trained model, and the way to another catalogue."""

    shop: Any
    store: Store
    folder: Path

    def index(self, products: pl.DataFrame) -> IndexSnapshot:
        products.write_parquet(self.folder / "products.parquet")
        build_index(self.store, self.indexing, self.shop.encoder, lambda *_: None)
        return open_latest(self.store, self.indexing)

    def carry(self, products: pl.DataFrame, name: str | None = None) -> tuple[IndexSnapshot, Model]:
        snapshot = self.index(products)
        carried = carry(self.store, name or self.shop.model.id, snapshot, self.indexing)
        assert self.store.verify("models", carried) == []
        return snapshot, load_model(self.store, carried, snapshot, self.indexing)

    @property
    def indexing(self) -> Any:
        return self.shop.indexing.model_copy(update={"catalogue": self.folder / "products.parquet"})


@pytest.fixture
def carrying(shop: Any, tmp_path: Path) -> Carrying:
    for kind, name in (("indexes", shop.snapshot.id), ("models", shop.model.id)):
        shutil.copytree(shop.store.path(kind, name), tmp_path / "store" / kind / name)
    return Carrying(shop, Store(tmp_path / "store"), tmp_path)


def projected(model: Model, vectors: np.ndarray) -> np.ndarray:
    made = vectors @ model.space.projection.T
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True))


def by_engagement(shop: Any) -> tuple[list[str], list[str]]:
    """Product ids: those that somebody engaged with while the tower was fitted, most often first, and the others."""
    row_of, ids = shop.snapshot.row_of, shop.snapshot.ids
    found = log.engagements(shop.dump.events, row_of, shop.config.positive_rating)
    early = found.filter((pl.col("time") < shop.model.manifest["cuts"][0]) & pl.col("user_id").is_not_null())
    known = [ids[row] for row in early["row"].value_counts(sort=True)["row"]]
    return known, [product for product in ids if product not in set(known)]


def retitled(products: pl.DataFrame, titles: dict[str, str]) -> pl.DataFrame:
    return products.with_columns(title=pl.col("product_id").replace_strict(titles, default=pl.col("title")))


def neighbours(table: Covisited, snapshot: IndexSnapshot, row: int) -> list[tuple[str, float]]:
    part = slice(table.offsets[row], table.offsets[row + 1])
    return [(snapshot.ids[i], weight) for i, weight in zip(table.rows[part], table.weights[part].tolist(), strict=True)]


def test_what_stays_keeps_its_vector_in_whatever_row(carrying: Carrying) -> None:
    shop = carrying.shop
    products = shop.dump.products.with_columns(pl.col("price") * 2).head(550)
    snapshot, model = carrying.carry(products)
    assert len(snapshot) == len(model.space.vectors) == 550
    rows = [shop.snapshot.row_of[product] for product in snapshot.ids]
    assert rows != list(range(550))
    np.testing.assert_array_equal(model.space.vectors, shop.model.space.vectors[rows])
    # Prices are the catalogue's.
    assert model.catalogue.table.log_price[0] > shop.model.catalogue.table.log_price[rows[0]]
    found = model.space.index.search(np.asarray(model.space.vectors[7:8]), 1)
    np.testing.assert_array_equal(model.space.vectors[found.rows[0, 0]], model.space.vectors[7])


def test_a_new_product_is_where_training_puts_one_that_nobody_engaged_with(carrying: Carrying) -> None:
    shop = carrying.shop
    known, unknown = by_engagement(shop)
    assert known
    assert unknown
    # What training made of them, first: the projection and nothing learnt.
    rows = [shop.snapshot.row_of[product] for product in unknown]
    plain = projected(shop.model, shop.snapshot.vectors[rows])
    np.testing.assert_allclose(shop.model.space.vectors[rows], plain, atol=1e-6)
    titles = dict(shop.dump.products.select("product_id", "title").iter_rows())
    twins = (
        shop.dump.products.head(0).clear(1).with_columns(product_id=pl.lit("twin"), title=pl.lit(titles[unknown[0]]))
    )
    another = twins.with_columns(product_id=pl.lit("twin of a known one"), title=pl.lit(titles[known[0]]))
    snapshot, model = carrying.carry(pl.concat([twins, another, shop.dump.products]))
    twin, like_known = snapshot.row_of["twin"], snapshot.row_of["twin of a known one"]
    np.testing.assert_allclose(model.space.vectors[twin], shop.model.space.vectors[rows[0]], atol=1e-6)
    np.testing.assert_allclose(
        model.space.vectors[like_known], projected(model, snapshot.vectors[[like_known]])[0], atol=1e-6
    )
    learnt = shop.model.space.vectors[shop.snapshot.row_of[known[0]]]
    assert np.abs(model.space.vectors[like_known] - learnt).max() > 1e-3
    assert neighbours(model.catalogue.covisited, snapshot, twin) == []


def test_under_another_title_a_product_keeps_what_was_learnt_beside_the_title(carrying: Carrying) -> None:
    shop = carrying.shop
    known, unknown = by_engagement(shop)
    snapshot, model = carrying.carry(
        retitled(shop.dump.products, {known[0]: "copper kettle", unknown[0]: "copper kettle"})
    )
    kettle = projected(model, shop.encoder.encode(["copper kettle"]))[0]
    one, other = (model.space.vectors[snapshot.row_of[product]] for product in (known[0], unknown[0]))
    np.testing.assert_allclose(other, kettle, atol=1e-6)
    was = shop.snapshot.row_of[known[0]]
    residual = shop.model.space.vectors[was] - projected(shop.model, shop.snapshot.vectors[[was]])[0]
    assert np.linalg.norm(residual) > 1e-3
    np.testing.assert_allclose(one, (kettle + residual) / np.linalg.norm(kettle + residual), atol=1e-6)
    assert model.manifest["carried"]["retitled"] == 2


def test_neighbours_follow_their_products_and_the_dropped_are_nobodys(carrying: Carrying) -> None:
    shop = carrying.shop
    before = shop.model.catalogue.covisited
    dropped = {shop.snapshot.ids[row] for row in np.unique(before.rows)[:40]}
    snapshot, model = carrying.carry(shop.dump.products.filter(~pl.col("product_id").is_in(dropped)))
    after = model.catalogue.covisited
    assert len(after.offsets) == len(snapshot) + 1
    lost = 0
    for row, product in enumerate(snapshot.ids):
        were = neighbours(before, shop.snapshot, shop.snapshot.row_of[product])
        kept = [(other, weight) for other, weight in were if other not in dropped]
        assert neighbours(after, snapshot, row) == kept
        lost += len(were) - len(kept)
    assert lost > 0
    assert len(after.rows) > 0


def test_the_ranking_and_its_report_are_copied(carrying: Carrying) -> None:
    shop = carrying.shop
    _, model = carrying.carry(shop.dump.products.head(500))
    was, now = (carrying.store.path("models", name) for name in (shop.model.id, model.id))
    files = {str(path.relative_to(was)) for path in was.rglob("*") if path.is_file()}
    assert {str(path.relative_to(now)) for path in now.rglob("*") if path.is_file()} == files
    rows = {"manifest.json", "products.npy", "ease_places.npy"}
    rows |= {f"covisited_{part}.npy" for part in ("offsets", "rows", "weights")}
    for name in files - rows:
        assert (now / name).read_bytes() == (was / name).read_bytes(), name
    assert stored_report(carrying.store, model.id) == stored_report(carrying.store, shop.model.id)


def test_the_manifest_says_what_it_is_of(carrying: Carrying) -> None:
    shop = carrying.shop
    new = shop.dump.products.head(3).with_columns(product_id=pl.col("product_id") + "-new")
    snapshot, model = carrying.carry(pl.concat([shop.dump.products.head(590), new]))
    told = model.manifest
    assert (told["id"], told["index"]) == (model.id, snapshot.id)
    assert (told["carried_from"], told["trained_on"]) == (shop.model.id, shop.snapshot.id)
    assert told["carried"] == {"model": shop.model.id, "kept": 590, "new": 3, "dropped": 10, "retitled": 0}
    for name in ("encoder", "schema", "fusion", "unranked", "recall", "learnt", "answered", "cuts", "requests"):
        assert told[name] == shop.model.manifest[name], name


def test_it_is_carried_anew_from_what_was_trained(carrying: Carrying) -> None:
    """A product that a feed forgot for once is no stranger when it is back."""
    shop = carrying.shop
    (lost, *_), _ = by_engagement(shop)
    _, without = carrying.carry(shop.dump.products.filter(pl.col("product_id") != lost))
    snapshot, back = carrying.carry(shop.dump.products, without.id)
    assert back.manifest["carried_from"] == back.manifest["carried"]["model"] == shop.model.id
    row, was = snapshot.row_of[lost], shop.snapshot.row_of[lost]
    np.testing.assert_array_equal(back.space.vectors[row], shop.model.space.vectors[was])
    assert neighbours(back.catalogue.covisited, snapshot, row) == neighbours(
        shop.model.catalogue.covisited, shop.snapshot, was
    )


@pytest.mark.parametrize("gone", ["models", "indexes"])
def test_where_the_trained_one_is_gone_the_carried_one_is_carried_on(carrying: Carrying, gone: Any) -> None:
    shop = carrying.shop
    first, once = carrying.carry(shop.dump.products.head(500))
    shutil.rmtree(carrying.store.path(gone, shop.model.id if gone == "models" else shop.snapshot.id))
    snapshot, twice = carrying.carry(shop.dump.products.head(400), once.id)
    assert twice.manifest["carried_from"] == shop.model.id
    assert twice.manifest["trained_on"] == shop.snapshot.id
    assert twice.manifest["carried"]["model"] == once.id
    rows = [first.row_of[product] for product in snapshot.ids]
    np.testing.assert_array_equal(twice.space.vectors, once.space.vectors[rows])


def asked(
    model: Model,
    snapshot: IndexSnapshot,
    shop: Any,
    behaviour: Behaviour,
    user: str,
    query: str,
    products: Sequence[str],
) -> Scorable:
    """A request of `user` over `products`, by their ids."""
    vector = shop.encoder.encode([query])[0] if query else None
    history: History = behaviour.history(user) if user else EMPTY
    context = model.space.context(NOW, history, query, vector)
    rows = np.array([snapshot.row_of[product] for product in products])
    return Scorable(context, rows, features.matrix(context, rows, model.catalogue, behaviour))


def scored(shop: Any, snapshot: IndexSnapshot, model: Model) -> list[tuple[bytes, bytes, bytes]]:
    """Features, logits and fused scores of some requests, as bytes."""
    behaviour = Behaviour(len(snapshot))
    found = log.engagements(shop.dump.events, snapshot.row_of, shop.config.positive_rating)
    behaviour.apply_all(log.folding(found))
    products = sorted(snapshot.ids)
    user = max(behaviour.users, key=lambda name: (len(behaviour.users[name].rows), name))
    lists = [
        asked(model, snapshot, shop, behaviour, *request)
        for request in (("", "hiking boot", products[:40]), (user, "", products[100:160]), (user, "red", products[::9]))
    ]
    assert lists[1].context.user_vector is not None
    assert model.members is not None
    made = model.members.score(lists, model.space.vectors)
    fused = [cast(Any, each.network).tobytes() for each in made]
    return [
        (item.features.tobytes(), logits, each.fused.tobytes())
        for item, logits, each in zip(lists, fused, made, strict=True)
    ]


@pytest.mark.parametrize(
    "arranged", [lambda frame: frame, lambda frame: frame.reverse()], ids=["as it was", "reversed"]
)
def test_the_same_products_have_the_same_scores_to_the_bit(carrying: Carrying, arranged: Callable[..., Any]) -> None:
    shop = carrying.shop
    snapshot, model = carrying.carry(arranged(shop.dump.products))
    same = snapshot.ids == shop.snapshot.ids
    assert same == (arranged(shop.dump.products).equals(shop.dump.products))
    assert scored(shop, snapshot, model) == scored(shop, shop.snapshot, shop.model)
    files = ("products.npy", "covisited_offsets.npy", "covisited_rows.npy", "covisited_weights.npy")
    was, now = (carrying.store.path("models", name) for name in (shop.model.id, model.id))
    assert all((was / name).read_bytes() == (now / name).read_bytes() for name in files) == same


def test_evaluated_anew_it_is_the_trained_one(carrying: Carrying) -> None:
    """On the same catalogue to the last figure; the neighbours that have seen the whole log are not what it reads."""
    shop = carrying.shop
    snapshot, model = carrying.carry(shop.dump.products)
    known = model.catalogue.covisited
    poisoned = replace(model, catalogue=model.catalogue._replace(covisited=known._replace(weights=known.weights * 9)))
    given = (shop.config, snapshot, shop.encoder, shop.sources, lambda _: None)
    trained = evaluate_again(shop.model, shop.config, shop.snapshot, *given[2:])
    assert json.dumps(evaluate_again(poisoned, *given)) == json.dumps(trained)


def test_a_model_without_a_ranking_is_carried_too(carrying: Carrying) -> None:
    shop = carrying.shop
    unranked = shop.train(sources=Sources(None, None))
    shutil.copytree(shop.store.path("models", unranked), carrying.store.path("models", unranked))
    snapshot, model = carrying.carry(shop.dump.products.tail(300), unranked)
    assert model.members is None
    assert stored_report(carrying.store, model.id) is None
    assert model.manifest["unranked"] == carrying.store.manifest("models", unranked)["unranked"]
    was = load_model(carrying.store, unranked, shop.snapshot, shop.indexing)
    np.testing.assert_array_equal(
        model.space.vectors, was.space.vectors[[shop.snapshot.row_of[product] for product in snapshot.ids]]
    )


def test_another_encoders_index_is_refused(carrying: Carrying) -> None:
    class Other(type(carrying.shop.encoder)):  # type: ignore[misc]
        fingerprint = "fedcba9876543210"

    carrying.shop.dump.products.write_parquet(carrying.folder / "products.parquet")
    build_index(carrying.store, carrying.indexing, cast(Encoder, Other()), lambda *_: None)
    with pytest.raises(SnapshotError, match=r"fedcba9876543210: it cannot be carried there.*`vitrine train`"):
        carry(carrying.store, carrying.shop.model.id, open_latest(carrying.store, carrying.indexing), carrying.indexing)


@pytest.mark.parametrize(("kind", "file"), [("models", "products.npy"), ("indexes", "vectors.npy")])
def test_what_is_damaged_is_not_handed_on(carrying: Carrying, kind: Any, file: str) -> None:
    shop = carrying.shop
    snapshot = carrying.index(shop.dump.products.head(100))
    path = carrying.store.path(kind, shop.model.id if kind == "models" else shop.snapshot.id) / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=rf"{file} has changed.*`vitrine rebuild`"):
        carry(carrying.store, shop.model.id, snapshot, carrying.indexing)
    assert carrying.store.ids("models") == [shop.model.id]
