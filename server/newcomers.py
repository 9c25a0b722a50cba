"""Products that came after the release: upserts of what it does not hold are found by the next answer."""

from collections import ChainMap
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from vitrine.v1 import product_pb2

from indexer.build import searched_texts
from indexer.config import IndexerConfig
from indexer.encoder import Encoder
from indexer.rendered import rendered
from ranker.added import AddedProducts, with_added
from ranker.upserts import Upsert, frame

if TYPE_CHECKING:
    from server.state import State

# Newcomers of one release that are found before the next one. All are added again when one more comes: 25 ms where the
# release has 100,000 products and some 40 more for each thousand newcomers, and answers wait for it.
MOST = 2_000


def prepared(state: "State", upserts: Sequence[Upsert]) -> list[Upsert]:
    """Upserts with the vectors of their titles where `with_upserts` will want them."""
    wanted = set(_admitted(state, (each.product_id for each in upserts)))
    new = [place for place, each in enumerate(upserts) if each.product_id in wanted]
    made = list(upserts)
    for place, each in zip(new, embedded([upserts[place] for place in new], state.encoder), strict=True):
        made[place] = each
    return made


def embedded(upserts: Sequence[Upsert], encoder: Encoder) -> list[Upsert]:
    """Upserts with the vectors of their titles by `encoder`; those that have such keep them."""
    own = encoder.fingerprint
    lacking = [place for place, each in enumerate(upserts) if each.vector is None or each.encoder != own]
    made = list(upserts)
    vectors = encoder.encode([str(upserts[place].values["title"]) for place in lacking]) if lacking else ()
    for place, vector in zip(lacking, vectors, strict=True):
        made[place] = made[place]._replace(encoder=own, vector=vector)
    return made


def with_upserts(state: "State", upserts: Sequence[Upsert], config: IndexerConfig) -> "State":
    """The state that knows these upserts too, as far as they are later than its release's catalogue file.

    Products that the release does not hold get rows behind its own, up to MOST of them, and keep them. What is said of
    the others waits for the next release.
    """
    later = {each.product_id: each for each in upserts if each.time > state.assortment.since}
    if not later:
        return state
    first = state.first
    known = {product: (later.get(product) or state.upserts[product]) for product in _admitted(state, later)}
    pending = state.pending - later.keys() | _pending(first, later.values(), known)
    state = replace(state, upserts=known, pending=pending, released=first)
    return _with_newcomers(state, list(known.values()), config) if later.keys() & known.keys() else state


def _admitted(state: "State", products: Iterable[str]) -> list[str]:
    """The newcomers of a state, and behind them those of `products` that become such."""
    new = dict.fromkeys(product for product in products if product not in state.first.row_of)
    return [*state.upserts, *(product for product in new if product not in state.upserts)][:MOST]


def _with_newcomers(state: "State", new: Sequence[Upsert], config: IndexerConfig) -> "State":
    first = state.first
    table = _table(new, first.snapshot.products)
    vectors = np.array([each.vector for each in embedded(new, state.encoder)], np.float32)
    products = pl.DataFrame(table)
    worded = [name for name in config.text_columns if name in products.columns]
    added = AddedProducts(table, searched_texts(products, worded).to_list(), vectors)
    model = with_added(first.model, first.snapshot.products, added)
    rows = {each.product_id: row for row, each in enumerate(new, len(first.snapshot))}
    row_of = ChainMap(rows, first.snapshot.row_of)
    every = pa.concat_tables([first.snapshot.products, table])
    return replace(
        state,
        model=model,
        row_of=row_of,
        assortment=state.assortment.with_added(row_of, every, model.catalogue.table, rendered(products)),
        behaviour=state.behaviour.grown(len(every)),
    )


def _pending(first: "State", upserts: Iterable[Upsert], known: Container[str]) -> set[str]:
    """The products that are not `known` newcomers, and of which an upsert says something that the release does not."""
    others = [each for each in upserts if each.product_id not in known]
    messages = rendered(pl.DataFrame(_table(others, first.snapshot.products)))
    built, row_of = first.snapshot.rendered, first.row_of
    return {
        each.product_id
        for each, message in zip(others, messages, strict=True)
        if (row := row_of.get(each.product_id)) is None
        or _lasting(built.product(row)) != _lasting(product_pb2.Product.FromString(message))
    }


def _lasting(product: product_pb2.Product) -> product_pb2.Product:
    """A product without what is live of any product."""
    for field in ("price", "in_stock"):
        product.ClearField(field)
    return product


def _table(upserts: Sequence[Upsert], like: pa.Table) -> pa.Table:
    """Upserts as rows of a catalogue's table."""
    schema: Mapping[str, Any] = pl.DataFrame(like.slice(0, 0)).schema
    return frame(upserts, schema).to_arrow().cast(like.schema)
