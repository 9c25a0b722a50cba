"""A model that knows what was said of products since its release, in their rows and behind them: nothing is trained."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from indexer.amended import Amended, AmendedIndex, AmendedRows
from indexer.arrays import Floats
from ranker.features import Catalogue
from ranker.model import Model
from ranker.space import ProductSpace, all_in_space, moved_in_space


class Amendments(NamedTuple):
    """Products for some rows of a release and for rows behind it.

    `products` has the release's columns, `texts` are what is searched by word, `vectors` float32 [products, dimensions]
    those of the titles by the release's encoder.
    """

    rows: AmendedRows
    products: pa.Table
    texts: Sequence[str]
    vectors: Floats


def with_amendments(model: Model, before: pa.Table, said: Amendments) -> Model:
    """The model of a release whose products are `before`, with other products in some rows.

    A product that was there is still the same product: what users did with it counts, and so do its neighbours. Its
    place in the product space moves with its title. That of a new product is the projection of its title, as for any
    product that nobody engaged with; it has no neighbours. Nothing of the model is copied that is long by title or
    space dimensions.
    """
    known, drawn = model.catalogue, model.retrieval
    rows, new = said.rows, said.rows.total - said.rows.built
    in_space = _in_space(model.space, known.table.vectors[rows.rows[: rows.replaced]], said)
    space = replace(model.space, amended=Amended(model.space.vectors, rows, in_space))
    catalogue = Catalogue(
        known.table.amended(rows, said.products, said.vectors, before),
        known.lexical.amended(rows, said.texts),
        space.all_vectors,
        known.covisited.with_added(new),
        known.ease.with_added(new),
    )
    retrieval = drawn._replace(
        titles=AmendedIndex(drawn.titles, rows, said.vectors),
        lexical=catalogue.lexical,
        products=AmendedIndex(drawn.products, rows, in_space),
        covisited=catalogue.covisited,
    )
    return replace(model, space=space, catalogue=catalogue, retrieval=retrieval)


def _in_space(space: ProductSpace, before: Floats, said: Amendments) -> Floats:
    """The amended rows' vectors in the product space; `before` are the vectors of the old titles of replaced rows."""
    replaced = said.rows.replaced
    after = said.vectors[:replaced]
    vectors = all_in_space(space.projection, said.vectors)
    vectors[:replaced] = space.vectors[said.rows.rows[:replaced]]
    moved = np.flatnonzero((before != after).any(axis=1))
    vectors[moved] = moved_in_space(space.projection, vectors[moved], before[moved], after[moved])
    return vectors
