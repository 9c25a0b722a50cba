"""A model that knows products which its release does not hold, in rows behind those: nothing of it is trained."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pyarrow as pa

from indexer.appended import AppendedIndex
from indexer.arrays import Floats
from ranker.features import Catalogue
from ranker.model import Model
from ranker.space import all_in_space


class AddedProducts(NamedTuple):
    """Products for the rows behind those of a release.

    `products` has the release's columns, `texts` are what is searched by word, `vectors` float32 [products, dimensions]
    those of the titles by the release's encoder.
    """

    products: pa.Table
    texts: Sequence[str]
    vectors: Floats


def with_added(model: Model, before: pa.Table, added: AddedProducts) -> Model:
    """The model of a release whose products are `before`, with rows for further ones behind theirs.

    A product's vector in the product space is the projection of its title's, as that of any product that nobody
    engaged with; it has no neighbours. Nothing of the model is copied that is long by title or space dimensions.
    """
    known, drawn = model.catalogue, model.retrieval
    count = len(added.texts)
    in_space = all_in_space(model.space.projection, added.vectors)
    space = replace(model.space, added=in_space)
    catalogue = Catalogue(
        known.table.with_added(added.products, added.vectors, before),
        known.lexical.with_added(added.texts),
        space.all_vectors,
        known.covisited.with_added(count),
        known.ease.with_added(count),
    )
    retrieval = drawn._replace(
        titles=AppendedIndex(drawn.titles, added.vectors),
        lexical=catalogue.lexical,
        products=AppendedIndex(drawn.products, in_space),
        covisited=catalogue.covisited,
    )
    return replace(model, space=space, catalogue=catalogue, retrieval=retrieval)
