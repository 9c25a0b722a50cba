"""What answers: one release, opened, behind one reference. A new release makes a new state."""

import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from indexer.arrays import Ints
from indexer.encoder import Encoder
from indexer.query_table import QueryEncoder
from indexer.snapshot import IndexSnapshot
from indexer.store import Store
from ranker.behaviour import Behaviour
from ranker.examination import stored_examination
from ranker.exposure import Exposure
from ranker.log import engagements, folding
from ranker.model import Model, load_model
from ranker.upserts import Upsert
from server.amendments import with_upserts
from server.assortment import Assortment
from server.config import Settings
from server.encoder import check_fit
from server.filters import column_types, whole_numbers
from server.query_vectors import QueryVectors
from server.release import Release
from server.suggestions import Said, Suggested, Suggestions

# From so many engagements on it is faster to fold them in together than one by one.
_MANY = 2_000


@dataclass(frozen=True)
class State:
    """A release ready to answer. Two parts change: live events are folded into the `behaviour`, and the `assortment`
    follows live changes to the catalogue.

    Products that came after the release have rows behind those of its `snapshot`, and products that were said anew are
    so in theirs (see `amendments`): a state with more of either is another one, of which this one's rows are the first.
    `upserts` are these products, new ones in the order of their rows, `pending` those of which something waits for the
    next release, and `released` is the state without any.
    """

    release: Release
    snapshot: IndexSnapshot
    row_of: Mapping[str, int]
    model: Model
    encoder: Encoder
    behaviour: Behaviour
    assortment: Assortment
    suggestions: Suggestions
    query_vectors: QueryVectors
    columns: Mapping[str, str]
    whole_numbers: Set[str]  # the columns that hold no others
    positive_rating: float
    ranking_budget: float  # seconds
    network_budget: float  # seconds
    clock_offset: float  # seconds
    loaded: float
    upserts: Mapping[str, Upsert] = field(default_factory=dict)
    pending: Set[str] = frozenset()
    released: "State | None" = None

    @property
    def first(self) -> "State":
        """The state of the release alone; the same for all that were made of one."""
        return self.released or self

    @property
    def newcomers(self) -> int:
        """How many products came after the release."""
        return len(self.model.space.all_vectors) - len(self.snapshot)

    @cached_property
    def amended_rows(self) -> Ints:
        """The rows of products that were said since the release, rising."""
        built, row_of = len(self.snapshot), self.snapshot.row_of
        held = sorted(row_of[product] for product in self.upserts.keys() & row_of.keys())
        return np.concatenate([np.array(held, np.int64), np.arange(built, built + self.newcomers)])

    def suggested(self, typed: str, most: int) -> Suggested:
        """What a query that is typed so far may become, at most so many of each kind; see `Suggestions.find`."""
        offer = self.assortment.offer
        return self.suggestions.find(typed, most, self.behaviour, Said(offer.products, self.amended_rows, offer.listed))

    def now(self) -> float:
        """The models' time, in Unix seconds."""
        return time.time() + self.clock_offset

    def fold(self, events: pl.DataFrame) -> None:
        """Fold canonical events into the behaviour, as training does."""
        found = engagements(events, self.row_of, self.positive_rating)
        if len(found) >= _MANY:
            self.behaviour.apply_frame(found)
        else:
            self.behaviour.apply_all(folding(found))
        self.behaviour.exposure.fold(events, self.row_of)


def load_state(
    store: Store,
    release: Release,
    settings: Settings,
    encoder: Encoder,
    events: pl.DataFrame | None,
    upserts: Sequence[Upsert] = (),
) -> State:
    """Open a release, add what came after it and replay the whole log into it.

    Raises `SnapshotError` where its parts do not fit together.
    """
    snapshot = IndexSnapshot(store, release.index, settings.indexer)
    check_fit(encoder, snapshot.manifest)
    model = load_model(store, release.model, snapshot, settings.indexer)
    columns = column_types(snapshot.products)
    worded = [column for column in settings.indexer.text_columns if columns.get(column) == "string"]
    state = State(
        release=release,
        snapshot=snapshot,
        row_of=snapshot.row_of,
        model=model,
        encoder=encoder,
        behaviour=Behaviour(len(snapshot), Exposure(len(snapshot), stored_examination(model.manifest).shares)),
        assortment=Assortment(snapshot, model.catalogue.table),
        suggestions=Suggestions(snapshot.products, worded),
        query_vectors=QueryVectors(QueryEncoder(encoder, snapshot.query_table), settings.server.query_cache),
        columns=columns,
        whole_numbers=whole_numbers(snapshot.products),
        positive_rating=settings.ranker.positive_rating,
        ranking_budget=settings.server.ranking_budget_ms / 1e3,
        network_budget=settings.server.network_budget_ms / 1e3,
        clock_offset=_offset(settings.server.clock, events),
        loaded=time.time(),
    )
    state = with_upserts(state, upserts, settings.indexer)
    if events is not None:
        state.fold(events)
    return state


def _offset(clock: str, events: pl.DataFrame | None) -> float:
    """Seconds from the wall clock to the models' clock; with `log` the last event happened just now."""
    if clock == "wall" or events is None or events.is_empty():
        return 0.0
    return float(events["event_time"].dt.epoch("us").max() or 0) / 1e6 - time.time()  # type: ignore[arg-type]
