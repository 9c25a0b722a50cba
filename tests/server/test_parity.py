"""Training and serving see the same: byte for byte the same candidates and the same feature matrix at the same moment.

The server's state folds the log in the pieces in which it would have come in; the training's replay runs over it once.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from harness import Trained, hash_encoder, last_time, make_trained

from indexer.canonical import Dump
from indexer.config import IndexerConfig
from indexer.dumps.registry import FORMATS
from indexer.encoder import load_encoder
from indexer.sample.shop import make_shop
from indexer.threads import one_thread
from ranker import features
from ranker.covisited import fit_covisited
from ranker.ease import fit_ease
from ranker.examples import Example, Slice, Stage, as_shown, replay
from ranker.log import Request, folding, seconds
from ranker.model import Model
from ranker.train import prepare
from server import pipeline
from server.pipeline import Ask
from server.rebuild import read_sources
from server.state import State, load_state

RETAIL = Path(__file__).parents[3] / "shared" / "data" / "retail"


class Seen(NamedTuple):
    """What the live pipeline handed to the one function that makes features, and what it got."""

    context: features.Context
    rows: np.ndarray
    matrix: np.ndarray


# The model that serves at a time, made of the saved one.
ModelAt = Callable[[Model, float], Model]
Live = Callable[[Trained, list[Request], ModelAt], Iterator[tuple[State, Seen]]]


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Live:
    """For requests in time order, what the pipeline computes for each at its moment, with the model of that moment."""
    moment, real, seen = [0.0], features.matrix, list[Seen]()

    def noted(context: Any, rows: Any, *others: Any) -> Any:
        seen.append(Seen(context, rows, real(context, rows, *others)))
        return seen[-1].matrix

    monkeypatch.setattr(State, "now", lambda _: moment[0])

    def run(trained: Trained, requests: list[Request], model_at: ModelAt) -> Iterator[tuple[State, Seen]]:
        state = load(trained)
        saved = state.model
        events, folded = trained.dump.events, -np.inf
        assert events is not None
        for request in requests:
            time = seconds(pl.col("event_time"))
            state.fold(events.filter((time >= folded) & (time < request.time)))
            folded, moment[0] = request.time, request.time
            served = replace(state, model=model_at(saved, request.time))
            work = pipeline.search if request.query else pipeline.recommend
            with monkeypatch.context() as patch:
                patch.setattr(features, "matrix", noted)
                work(served, [Ask(query=request.query, user=request.user)])
            yield served, seen.pop()

    return run


def load(trained: Trained) -> State:
    """The release as it is served, nothing folded in yet."""
    return load_state(trained.store, trained.release, trained.settings, trained.encoder, None)


def as_of_its_stage(trained: Trained) -> ModelAt:
    """The saved model, but with the neighbours counted up to the stage of a request, as the log's lists were made."""

    def model_at(saved: Model, time: float) -> Model:
        stage = [stage for stage in trained.stages if stage.since <= time][-1]
        covisited = stage.retrieval.covisited
        return replace(
            saved,
            catalogue=saved.catalogue._replace(covisited=covisited, ease=stage.catalogue.ease),
            retrieval=saved.retrieval._replace(covisited=covisited),
        )

    return model_at


def sampled(trained: Trained, count: int) -> list[Request]:
    """Requests of the log as `prepare` reads them, spread over the whole time after the tower's slice."""
    prepared = prepare(read_sources(trained.settings), load(trained).snapshot, trained.settings.ranker)
    later = [request for request, part in prepared.requests if part is not Slice.TOWER]
    assert len(later) >= count
    return [later[i] for i in np.linspace(0, len(later) - 1, count).astype(int)]


def replayed(trained: Trained, requests: list[Request], stages: list[Stage]) -> list[Example]:
    """The training's own examples of these requests, with what training read at each moment."""
    snapshot = load(trained).snapshot
    events, behaviour = folding(trained.prepared.engagements), trained.prepared.behaviour(len(snapshot))
    parts = [(request, Slice.TEST) for request in requests]

    def embed(query: str) -> np.ndarray:
        return trained.encoder.encode([snapshot.lexical.mended(query)])[0]

    return [example for _, example in replay(parts, events, behaviour, stages, trained.space, embed)]


def check(
    trained: Trained, requests: list[Request], live: Live, stages: list[Stage], model_at: ModelAt
) -> list[Example]:
    """Candidates, features and, where a list was logged, the features of that list are the same bytes."""
    with one_thread():
        logged = replayed(trained, requests, stages)
        recalled = replayed(trained, [r._replace(rows=None, positions=None) for r in requests], stages)
        assert len(logged) == len(recalled) == len(requests)
        for request, there, drawn, (state, here) in zip(
            requests, logged, recalled, live(trained, requests, model_at), strict=True
        ):
            assert here.context.now == request.time
            assert here.context.history == drawn.context.history
            assert here.context.disliked == drawn.context.disliked
            np.testing.assert_array_equal(here.rows, drawn.rows)
            assert here.matrix.dtype == drawn.features.dtype
            assert here.matrix.tobytes() == drawn.features.tobytes()
            again = features.matrix(here.context, there.rows, state.model.catalogue, state.behaviour)
            assert again.tobytes() == there.features.tobytes()
        # Not equal because empty.
        assert sum(len(example.context.history.rows) > 0 for example in recalled) > len(requests) / 10
        assert all(len(example.rows) > 20 for example in recalled)
    return recalled


def check_the_log(trained: Trained, requests: list[Request], live: Live) -> list[Example]:
    """`check` at the moments of the log."""
    return check(trained, requests, live, trained.stages, as_of_its_stage(trained))


def check_afterwards(trained: Trained, requests: list[Request], live: Live) -> None:
    """`check` once the whole log is known, with the model just as it was saved."""
    assert trained.dump.events is not None
    end = last_time(trained.dump.events)
    late = [request._replace(time=end + 1.0 + i) for i, request in enumerate(requests)]
    products = len(load(trained).snapshot)
    known, ease = (fit(trained.prepared.engagements, products) for fit in (fit_covisited, fit_ease))
    last = trained.stages[-1]
    catalogue = last.catalogue._replace(covisited=known, ease=ease)
    stage = Stage(end, catalogue, last.retrieval._replace(covisited=known))
    check(trained, late, live, [stage], lambda saved, _: saved)


def told(recalled: list[Example], name: str) -> int:
    """In how many lists a feature says something of some product."""
    column = features.NAMES.index(name)
    return sum(bool((np.nan_to_num(example.features[:, column], nan=0.0) != 0).any()) for example in recalled)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The sample shop with the real encoder, as it is compiled for serving."""
    encoder = load_encoder(IndexerConfig.model_validate({"device": "cpu", "threads": 1}))
    dump = make_shop(600, sessions=1_500, seed=1)
    return make_trained(dump, tmp_path_factory.mktemp("real"), encoder, trees=10, network_epochs=1, tower_epochs=1)


@pytest.fixture(scope="module")
def rated(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The sample shop, where users rate what they clicked on an hour later, from one star to five."""
    dump = make_shop(600, sessions=1_500, seed=2)
    assert dump.events is not None
    clicks = dump.events.filter((pl.col("event_type") == "click") & pl.col("user_id").is_not_null())
    ratings = clicks.with_columns(
        pl.col("event_time").dt.offset_by("1h"),
        (pl.col("event_id") + "-rating").alias("event_id"),
        pl.lit("rating").alias("event_type"),
        (1.0 + pl.int_range(pl.len()) % 5).alias("value"),
        *(pl.lit(None, dump.events.schema[name]).alias(name) for name in ("request_id", "session_id", "query")),
    )
    events = pl.concat([dump.events, ratings]).sort("event_time", maintain_order=True)
    few = {"trees": 10, "network_epochs": 1, "tower_epochs": 1}
    dump = replace(dump, events=events)
    return make_trained(dump, tmp_path_factory.mktemp("rated"), hash_encoder(), **few)


def test_search_with_the_real_encoder(real: Trained, live: Live) -> None:
    requests = [request for request in sampled(real, 200) if request.query][:60]
    assert len(requests) == 60
    assert sum(request.user is not None for request in requests) > 10
    check_the_log(real, requests, live)
    check_afterwards(real, requests, live)


def test_recommend(trained: Trained, live: Live) -> None:
    requests = [r._replace(query="") for r in sampled(trained, 120) if r.user is not None]
    assert len(requests) > 40
    recalled = check_the_log(trained, requests, live)
    assert told(recalled, "covisited") > 20
    assert told(recalled, "ease") > 20
    check_afterwards(trained, requests, live)


def test_search_of_users_and_strangers(trained: Trained, live: Live) -> None:
    requests = [request for request in sampled(trained, 150) if request.query]
    recalled = check_the_log(trained, requests, live)
    # Earlier answers to the same query are remembered.
    assert told(recalled, "query_engaged") > 20
    assert told(recalled, "query_click_rate") > 20
    check_afterwards(trained, requests, live)


def test_users_with_dislikes(rated: Trained, live: Live) -> None:
    requests = [request for request in sampled(rated, 150) if request.user is not None]
    recalled = check_the_log(rated, requests, live)
    assert sum(len(example.context.disliked.rows) > 0 for example in recalled) > 20
    check_afterwards(rated, requests, live)


def test_neighbours_are_counted_anew_as_the_log_goes_on(trained: Trained) -> None:
    """Otherwise one table for all stages would do, and a late one would know what a request is asked for."""
    pairs = [len(stage.retrieval.covisited.rows) for stage in trained.stages]
    assert len(pairs) > 3
    assert pairs == sorted(pairs)
    assert pairs[0] < pairs[-1] < len(load(trained).model.retrieval.covisited.rows)


def test_the_training_itself_saw_these_matrices(trained: Trained) -> None:
    """What `replayed` gives is what the members were fitted and reported on, not only what the same code gives."""
    tests = [request for request, part in trained.prepared.requests if part is Slice.TEST]
    with one_thread():
        mine = [e for e in replayed(trained, tests, trained.stages) if (e.grades > 0).any() or len(e.missed)]
    theirs = trained.slices[Slice.TEST]
    assert len(mine) == len(theirs) > 20
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
        assert a.features.tobytes() == b.features.tobytes()


def test_only_the_position_is_licensed_to_differ(trained: Trained) -> None:
    place = features.NAMES.index("position")
    for part in (Slice.MEMBERS, Slice.CALIBRATE, Slice.VALIDATE, Slice.TEST):
        examples = trained.slices[part]
        assert all((example.features[:, place] == 0).all() for example in examples)
        shown = [as_shown(example) for example in examples]
        assert any((example.features[:, place] > 0).any() for example in shown)
        for example, fitted in zip(examples, shown, strict=True):
            np.testing.assert_array_equal(np.delete(fitted.features, place, 1), np.delete(example.features, place, 1))


@pytest.mark.real
@pytest.mark.skipif(not RETAIL.is_dir(), reason="the retail transactions are not beside the checkout")
def test_recommend_on_real_purchases_and_returns(tmp_path_factory: pytest.TempPathFactory, live: Live) -> None:
    whole = FORMATS["online-retail"].read(RETAIL)
    assert whole.events is not None
    events = whole.events.head(40_000)
    products = whole.products.join(events.select("product_id").unique(), on="product_id", how="semi")
    made = make_trained(
        Dump(products, events),
        tmp_path_factory.mktemp("retail"),
        hash_encoder(),
        trees=10,
        network_epochs=1,
        tower_epochs=1,
        most_requests=300,
    )
    requests = [request for request in sampled(made, 80) if request.user is not None]
    assert len(requests) > 60
    assert "return" in events["event_type"]
    check_the_log(made, requests, live)
    check_afterwards(made, requests, live)
