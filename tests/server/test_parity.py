"""Training and serving see the same: byte for byte the same candidates and the same feature matrix at the same moment.

The server's state folds the log in the pieces in which it would have come in; the training's replay runs over it once.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from harness import Trained, hash_encoder, make_trained

from indexer.canonical import Dump
from indexer.config import IndexerConfig
from indexer.device import one_thread
from indexer.dumps.registry import FORMATS
from indexer.encoder import load_encoder
from indexer.sample.shop import make_shop
from ranker import features
from ranker.behaviour import Behaviour
from ranker.examples import Example, Slice, replay
from ranker.log import Request, folding, seconds
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


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Iterator[tuple[State, Seen]]]:
    """For requests in time order, what the pipeline computes for each at its moment."""
    moment, real, seen = [0.0], features.matrix, list[Seen]()

    def noted(context: Any, rows: Any, *others: Any) -> Any:
        seen.append(Seen(context, rows, real(context, rows, *others)))
        return seen[-1].matrix

    monkeypatch.setattr(State, "now", lambda _: moment[0])

    def run(trained: Trained, requests: list[Request]) -> Iterator[tuple[State, Seen]]:
        state = load_state(trained.store, trained.release, trained.settings, trained.encoder, None)
        events, folded = trained.dump.events, -np.inf
        assert events is not None
        for request in requests:
            time = seconds(pl.col("event_time"))
            state.fold(events.filter((time >= folded) & (time < request.time)))
            folded, moment[0] = request.time, request.time
            work = pipeline.search if request.query else pipeline.recommend
            with monkeypatch.context() as patch:
                patch.setattr(features, "matrix", noted)
                work(state, [Ask(query=request.query, user=request.user)])
            yield state, seen.pop()

    return run


def sampled(trained: Trained, count: int) -> list[Request]:
    """Requests of the log as `prepare` reads them, spread over the whole time after the tower's slice."""
    prepared = prepare(read_sources(trained.settings), _snapshot(trained), trained.settings.ranker)
    later = [request for request, part in prepared.requests if part is not Slice.TOWER]
    assert len(later) >= count
    return [later[i] for i in np.linspace(0, len(later) - 1, count).astype(int)]


def _snapshot(trained: Trained) -> Any:
    return load_state(trained.store, trained.release, trained.settings, trained.encoder, None).snapshot


def replayed(trained: Trained, requests: list[Request]) -> list[Example]:
    """The training's own examples of these requests, with the catalogue and the space as training held them."""
    snapshot = _snapshot(trained)
    events, behaviour = folding(trained.prepared.engagements), Behaviour(len(snapshot))
    parts = [(request, Slice.TEST) for request in requests]

    def embed(query: str) -> np.ndarray:
        return trained.encoder.encode([query])[0]

    made = replay(
        parts,
        events,
        behaviour,
        trained.catalogue,
        trained.space,
        snapshot.index,
        embed,
        trained.settings.ranker.candidates,
    )
    return [example for _, example in made]


def check(trained: Trained, requests: list[Request], live: Callable[..., Iterator[tuple[State, Seen]]]) -> None:
    """Candidates, features and, where a list was logged, the features of that list are the same bytes."""
    with one_thread():
        logged = replayed(trained, requests)
        recalled = replayed(trained, [r._replace(rows=None, positions=None) for r in requests])
        assert len(logged) == len(recalled) == len(requests)
        for request, there, drawn, (state, here) in zip(
            requests, logged, recalled, live(trained, requests), strict=True
        ):
            assert here.context.now == request.time
            assert here.context.history == drawn.context.history
            np.testing.assert_array_equal(here.rows, drawn.rows)
            assert here.matrix.dtype == drawn.features.dtype
            assert here.matrix.tobytes() == drawn.features.tobytes()
            again = features.matrix(here.context, there.rows, state.model.catalogue, state.behaviour)
            assert again.tobytes() == there.features.tobytes()
        # Not equal because empty.
        assert sum(len(example.context.history.rows) > 0 for example in recalled) > len(requests) / 10
        assert all(len(example.rows) > 20 for example in recalled)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The sample shop with the real encoder, as it is compiled for serving."""
    encoder = load_encoder(IndexerConfig.model_validate({"device": "cpu", "threads": 1}))
    dump = make_shop(600, sessions=1_500, seed=1)
    return make_trained(dump, tmp_path_factory.mktemp("real"), encoder, trees=10, network_epochs=1, tower_epochs=1)


def test_search_with_the_real_encoder(real: Trained, live: Any) -> None:
    requests = [request for request in sampled(real, 200) if request.query][:60]
    assert len(requests) == 60
    assert sum(request.user is not None for request in requests) > 10
    check(real, requests, live)


def test_recommend(trained: Trained, live: Any) -> None:
    requests = [r._replace(query="") for r in sampled(trained, 120) if r.user is not None]
    assert len(requests) > 40
    check(trained, requests, live)


def test_search_of_users_and_strangers(trained: Trained, live: Any) -> None:
    check(trained, [request for request in sampled(trained, 150) if request.query], live)


def test_the_training_itself_saw_these_matrices(trained: Trained) -> None:
    """What `replayed` gives is what the members were fitted and reported on, not only what the same code gives."""
    tests = [request for request, part in trained.prepared.requests if part is Slice.TEST]
    with one_thread():
        mine = [e for e in replayed(trained, tests) if (e.grades > 0).any() or len(e.missed)]
    theirs = trained.slices[Slice.TEST]
    assert len(mine) == len(theirs) > 20
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
        assert a.features.tobytes() == b.features.tobytes()


def test_only_the_position_is_licensed_to_differ(trained: Trained) -> None:
    members = trained.slices[Slice.MEMBERS]
    place = features.NAMES.index("position")
    assert any((example.features[:, place] > 0).any() for example in members)
    for part in (Slice.CALIBRATE, Slice.VALIDATE, Slice.TEST):
        assert all((example.features[:, place] == 0).all() for example in trained.slices[part])


@pytest.mark.real
@pytest.mark.skipif(not RETAIL.is_dir(), reason="the retail transactions are not beside the checkout")
def test_recommend_on_real_purchases_and_returns(
    tmp_path_factory: pytest.TempPathFactory, live: Callable[..., Any]
) -> None:
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
    check(made, requests, live)
