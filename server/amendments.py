"""Products as they were said anew since the release: an upsert counts in the next answer."""

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from vitrine.v1 import product_pb2

from indexer.amended import AmendedRows
from indexer.build import searched_texts
from indexer.config import IndexerConfig
from indexer.encoder import Encoder
from indexer.rendered import rendered
from ranker.amended import Amendments, with_amendments
from ranker.changes import Change
from ranker.upserts import Upsert, frame

if TYPE_CHECKING:
    from server.state import State

# Products that a state has behind its release's, and products of the release that it has otherwise. All of them are put
# in again when one more comes: 27 ms where the release has 100,000 products (53 where any is a changed one) and 20 to
# 40 more for each thousand of them, and answers wait for it.
MOST_NEW, MOST_CHANGED = 2_000, 1_000


def prepared(state: "State", upserts: Sequence[Upsert]) -> list[Upsert]:
    """Upserts with the vectors of their titles where `with_upserts` will want them."""
    wanted = set(_admitted(state, upserts))
    places = [place for place, each in enumerate(upserts) if each.product_id in wanted]
    made = list(upserts)
    for place, each in zip(places, _with_vectors(state.first, [upserts[place] for place in places]), strict=True):
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

    Up to MOST_CHANGED products of the release that are said otherwise keep their rows, and up to MOST_NEW that it does
    not hold get rows behind its own. What is said of further ones waits for the next release.
    """
    later = {each.product_id: each for each in upserts if each.time > state.assortment.since}
    if not later:
        return state
    admitted = [later.get(product) or state.upserts[product] for product in _admitted(state, list(later.values()))]
    # Kept with their vectors: each further upsert wants them again.
    known = {each.product_id: each for each in _with_vectors(state.first, admitted)}
    waiting = _different(state.first, [each for each in later.values() if each.product_id not in known])
    pending = state.pending - later.keys() | set(waiting)
    before = state.upserts.keys()
    state = replace(state, upserts=known, pending=pending, released=state.first)
    return _amended(state, list(known.values()), config) if later.keys() & (known.keys() | before) else state


def without_deleted(state: "State", changes: Iterable[Change]) -> "State":
    """The state after changes, of whose products nothing waits for the next release that does not list them."""
    deleted = {each.product_id for each in changes if each.deleted_time > state.assortment.since}
    return replace(state, pending=state.pending - deleted) if state.pending & deleted else state


def _admitted(state: "State", upserts: Sequence[Upsert]) -> list[str]:
    """The products that a state has otherwise than its release, and behind them those that become such by upserts.

    A product that is said to be as in the release again is none of them. Where there are too many for all, those come
    first that were such when they were written, and so have a vector: in the journal one that is said anew moves behind
    those that waited meanwhile.
    """
    held, said = state.first.row_of, {each.product_id for each in upserts}
    waited = {each.product_id for each in upserts if each.vector is None}
    different = sorted(_different(state.first, upserts), key=waited.__contains__)
    again = said.difference(different)
    every = list(dict.fromkeys([*(product for product in state.upserts if product not in again), *different]))
    changed = [product for product in every if product in held][:MOST_CHANGED]
    return [*changed, *[product for product in every if product not in held][:MOST_NEW]]


def _different(first: "State", upserts: Sequence[Upsert]) -> list[str]:
    """The products of which an upsert says something that the release does not, or lacks something that it has.

    Another price or stock is not such: what is said of them counts in any case.
    """
    messages = rendered(pl.DataFrame(_table(upserts, first.snapshot.products)))
    built, row_of = first.snapshot.rendered, first.row_of
    different = (
        each.product_id
        for each, message in zip(upserts, messages, strict=True)
        if (row := row_of.get(each.product_id)) is None
        or _otherwise(built.product(row), product_pb2.Product.FromString(message))
    )
    # Of requests that came together several may say something of a product.
    return list(dict.fromkeys(different))


def _otherwise(was: product_pb2.Product, said: product_pb2.Product) -> bool:
    """Whether a product is said to be otherwise; both are changed. A price or stock that is said is live of any."""
    for field in ("price", "in_stock"):
        if said.HasField(field):
            was.ClearField(field)
            said.ClearField(field)
    return bool(was != said)


def _with_vectors(first: "State", upserts: Sequence[Upsert]) -> list[Upsert]:
    """Upserts with the vectors of their titles: the release's own, where the product has that title there."""
    snapshot, made = first.snapshot, list(upserts)
    titles = snapshot.products.column("title")
    for place, each in enumerate(upserts):
        row = snapshot.row_of.get(each.product_id)
        if row is not None and titles[row].as_py() == each.values["title"]:
            made[place] = each._replace(encoder=first.encoder.fingerprint, vector=snapshot.vectors[row])
    return embedded(made, first.encoder)


def _amended(state: "State", upserts: Sequence[Upsert], config: IndexerConfig) -> "State":
    """A state with these upserts, which have their vectors."""
    first = state.first
    snapshot, row_of = first.snapshot, first.snapshot.row_of
    if not upserts:
        # Of products that came after the release none is ever taken back: there are no rows behind its own.
        built = row_of, snapshot.products, first.model.catalogue.table, snapshot.rendered
        return replace(state, model=first.model, row_of=row_of, assortment=state.assortment.amended(*built))
    held = sorted((each for each in upserts if each.product_id in row_of), key=lambda upsert: row_of[upsert.product_id])
    new = [each for each in upserts if each.product_id not in row_of]
    behind = {each.product_id: row for row, each in enumerate(new, len(snapshot))}
    every_row = ChainMap(behind, row_of)
    said = [*held, *new]
    rows = AmendedRows(np.array([every_row[each.product_id] for each in said], np.int64), len(snapshot))
    table = _table(said, snapshot.products)
    vectors = np.array([each.vector for each in said], np.float32)
    products = pl.DataFrame(table)
    worded = [name for name in config.text_columns if name in products.columns]
    texts = searched_texts(products, worded).to_list()
    model = with_amendments(first.model, snapshot.products, Amendments(rows, table, texts, vectors))
    every = pa.concat_tables([snapshot.products, table])
    if held:
        every = every.take(rows.into(np.arange(rows.built), rows.built + np.arange(len(said))))
    shown = snapshot.rendered.amended(rows, rendered(products))
    return replace(
        state,
        model=model,
        row_of=every_row,
        assortment=state.assortment.amended(every_row, every, model.catalogue.table, shown),
        behaviour=state.behaviour.grown(rows.total),
    )


def _table(upserts: Sequence[Upsert], like: pa.Table) -> pa.Table:
    """Upserts as rows of a catalogue's table."""
    schema: Mapping[str, Any] = pl.DataFrame(like.slice(0, 0)).schema
    return frame(upserts, schema).to_arrow().cast(like.schema)
