"""A trained model carried over to another index of its encoder: products come, go and change, nothing is trained."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from indexer.arrays import Floats, Ints
from indexer.config import IndexerConfig
from indexer.errors import SnapshotError
from indexer.snapshot import IndexSnapshot
from indexer.store import Store
from ranker.covisited import load_covisited
from ranker.ease import load_ease
from ranker.model import RANKING, REPORT, UNRANKED
from ranker.space import ProductSpace, all_in_space, load_space, make_space, moved_in_space


class Moves(NamedTuple):
    """Where the rows of an index were in an earlier one: `came_from` int64 [products], -1 for a new product.

    `retitled` are rows of products that had another title there.
    """

    came_from: Ints
    retitled: Ints

    @property
    def new(self) -> Ints:
        """The rows of new products."""
        return np.flatnonzero(self.came_from < 0)

    def counts(self, before: int) -> dict[str, int]:
        """How many of which kind; there were `before` products."""
        new = len(self.new)
        kept = len(self.came_from) - new
        return {"kept": kept, "new": new, "dropped": before - kept, "retitled": len(self.retitled)}


def carry(store: Store, name: str, snapshot: IndexSnapshot, config: IndexerConfig) -> str:
    """Publish what model `name` was trained to for the rows of `snapshot`; returns the new model's id.

    A carried model is carried anew from the trained one, while the store has that and its index: a product that is
    missing for an hour comes back with what was learnt of it. Raises `SnapshotError` where the encoders differ, or
    what is to be carried is damaged.
    """
    started = time.perf_counter()
    source = _source(store, name)
    told = store.told("models", source)
    _check_sound(store, source, told)
    # What is read and not searched need not be copied to a card.
    reading = config.model_copy(update={"device": "cpu"})
    old = IndexSnapshot(store, told["index"], reading)
    _check_encoder(source, old, snapshot)
    moves, folder = moved(old, snapshot), store.path("models", source)

    def fill(aside: Path) -> Mapping[str, Any]:
        space = load_space(folder, told["space"], reading)
        vectors = carried_vectors(space, old, snapshot, moves)
        load_covisited(folder).carried(moves.came_from).save(aside)
        if told["fusion"] != UNRANKED:
            load_ease(folder).carried(moves.came_from).save(aside)
            _copy(folder, aside)
        return told | {
            "index": snapshot.id,
            "space": make_space(space.tower, space.projection, vectors, config).save(aside),
            "carried_from": told.get("carried_from", source),
            "trained_on": told.get("trained_on", old.id),
            "carried": {"model": source, **moves.counts(len(old))},
            "seconds": round(time.perf_counter() - started, 2),
        }

    return store.publish("models", fill)


def moved(old: IndexSnapshot, new: IndexSnapshot) -> Moves:
    """Where every product of `new` was in `old`, by its id."""
    came_from = np.array([old.row_of.get(product, -1) for product in new.ids], np.int64)
    before, after = (each.products.column("title").to_pylist() for each in (old, new))
    retitled = [row for row, was in enumerate(came_from) if was >= 0 and after[row] != before[was]]
    return Moves(came_from, np.array(retitled, np.int64))


def carried_vectors(space: ProductSpace, old: IndexSnapshot, new: IndexSnapshot, moves: Moves) -> Floats:
    """The product vectors float32 [products, space] of `new`, of a space over `old`.

    Under its old title a product keeps its vector, under another it is `moved_in_space`; a new product's is the
    projection of its title's.
    """
    vectors = np.array(space.vectors[moves.came_from], np.float32)
    vectors[moves.new] = all_in_space(space.projection, new.vectors[moves.new])
    was = moves.came_from[moves.retitled]
    vectors[moves.retitled] = moved_in_space(
        space.projection, space.vectors[was], old.vectors[was], new.vectors[moves.retitled]
    )
    return vectors


def _source(store: Store, name: str) -> str:
    """The model whose arrays are read: the trained one, or the carried one itself where that is no longer there."""
    trained = store.manifest("models", name).get("carried_from", name)
    there = trained in store.ids("models") and store.manifest("models", trained)["index"] in store.ids("indexes")
    return trained if there else name


def _check_sound(store: Store, source: str, told: Mapping[str, Any]) -> None:
    """A damaged array must not be handed on from model to model."""
    if faults := store.verify("models", source) + store.verify("indexes", told["index"]):
        raise SnapshotError(
            f"Model {source} or its index {told['index']} is damaged: {'; '.join(faults)}. Restore them from a backup, "
            "or train anew: `vitrine rebuild`."
        )


def _check_encoder(source: str, old: IndexSnapshot, new: IndexSnapshot) -> None:
    if old.encoder_fingerprint != new.encoder_fingerprint:
        raise SnapshotError(
            f"Model {source} is of encoder {old.encoder_fingerprint}, index {new.id} was built with encoder "
            f"{new.encoder_fingerprint}: it cannot be carried there. Train on this index: `vitrine train`."
        )


def _copy(folder: Path, aside: Path) -> None:
    """Copy the members and their report, which know no rows."""
    for name in RANKING:
        if name == REPORT:
            shutil.copytree(folder / name, aside / name)
        else:
            shutil.copyfile(folder / name, aside / name)
