"""The replay: slices that follow each other, and a state that is strictly before each request."""

from collections.abc import Callable, Iterator, Sequence
from math import inf

import numpy as np
import pytest

from indexer.arrays import Floats
from indexer.encoder import Encoder
from indexer.exact import ExactIndex
from ranker import examples as module
from ranker import features
from ranker.behaviour import MONTH, Behaviour
from ranker.examples import (
    Example,
    Slice,
    Stage,
    moments,
    replay,
    slice_of_query,
    slice_of_time,
    thinned,
    time_cuts,
)
from ranker.features import Catalogue
from ranker.history import CLICK, DISLIKE, Engagement
from ranker.log import Request
from ranker.recall import Retrieval
from ranker.space import ProductSpace

TITLES = ("red boot", "blue boot", "red dress", "blue hat", "green hat")
TIME_CUTS = (0.5, 0.8, 0.85, 0.9)
Replayed = Callable[..., list[tuple[Slice, Example]]]


def staged(goods: Catalogue, candidates: int = 4, since: float = -inf) -> Stage:
    products = ExactIndex(goods.space)
    titles = ExactIndex(goods.table.vectors)
    return Stage(since, goods, Retrieval(titles, goods.lexical, products, goods.covisited, candidates, {}))


@pytest.fixture
def goods(catalogue: Callable[..., Catalogue]) -> Catalogue:
    return catalogue(*TITLES)


@pytest.fixture
def space(goods: Catalogue, plain_space: Callable[[Floats], ProductSpace]) -> ProductSpace:
    return plain_space(goods.space)


@pytest.fixture
def replayed(goods: Catalogue, space: ProductSpace, encoder: Encoder) -> Replayed:
    def run(
        requests: Sequence[tuple[Request, Slice]],
        events: Sequence[Engagement] = (),
        behaviour: Behaviour | None = None,
        stage: Stage | None = None,
    ) -> list[tuple[Slice, Example]]:
        state = behaviour or Behaviour(len(TITLES))
        return list(
            replay(requests, iter(events), state, [stage or staged(goods)], space, lambda q: encoder.encode([q])[0])
        )

    return run


def shown(time: float, *rows: int, user: str | None = "u", wanted: int = 0) -> Request:
    return Request(time, user, "red", np.array(rows), np.arange(1, len(rows) + 1), {wanted: 1.0})


def column(example: Example, name: str) -> list[float]:
    return example.features[:, features.NAMES.index(name)].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_slices_follow_each_other_in_time(seed: int) -> None:
    times = np.sort(np.random.default_rng(seed).integers(0, 500, 1_000).astype(float))
    cuts = time_cuts(times, TIME_CUTS)
    parts = np.array([slice_of_time(t, cuts) for t in times])
    assert (np.diff(parts) >= 0).all()
    for part in Slice:
        before, after = times[parts < part], times[parts == part]
        assert len(after)
        assert not len(before) or before.max() < after.min()
    shares = np.bincount(parts, minlength=5) / len(times)
    np.testing.assert_allclose(shares, np.diff([0.0, *TIME_CUTS, 1.0]), atol=0.01)


def test_a_request_at_a_cut_begins_the_next_slice() -> None:
    assert [slice_of_time(t, [10.0, 20.0, 30.0, 40.0]) for t in (9.9, 10.0, 20.0, 39.0, 40.0, 99.0)] == [
        0,
        1,
        2,
        3,
        4,
        4,
    ]


def test_no_requests_no_cuts() -> None:
    assert time_cuts(np.empty(0), TIME_CUTS) == []


def test_a_query_is_of_one_slice() -> None:
    variants = ("Red  Boot", "red boot", "RED BOOT", " red\tboot ")
    assert len({slice_of_query(query, split, 0.5) for query in variants for split in (None, "train")}) == 1


@pytest.mark.parametrize("tower", [0.0, 0.5])
def test_queries_spread_over_the_slices(tower: float) -> None:
    """The share that the encoder was tuned on is the tower's; the others end at 0.8, 0.85 and 0.9."""
    parts = np.array([slice_of_query(f"query {i}", None, tower) for i in range(5_000)])
    shares = np.bincount(parts, minlength=5) / len(parts)
    np.testing.assert_allclose(shares, np.diff([0.0, tower, 0.8, 0.85, 0.9, 1.0]), atol=0.02)
    assert (shares[Slice.TOWER] == 0) == (tower == 0)


def test_an_encoders_share_moves_no_query_into_a_later_slice() -> None:
    for i in range(500):
        plain, tuned = (slice_of_query(f"query {i}", None, tower) for tower in (0.0, 0.5))
        assert plain == tuned or (plain, tuned) == (Slice.MEMBERS, Slice.TOWER)


def test_a_data_sets_own_test_stays_the_test() -> None:
    assert {slice_of_query(f"query {i}", "test", 0.5) for i in range(50)} == {Slice.TEST}


@pytest.mark.parametrize("seed", range(3))
def test_a_request_sees_strictly_earlier_events_only(seed: int, replayed: Replayed) -> None:
    rng = np.random.default_rng(seed)
    events = [Engagement("u", int(rng.integers(5)), CLICK, float(t)) for t in np.sort(rng.integers(0, 60, 50))]
    requests = [(shown(float(t), 0, 1), Slice.TEST) for t in np.sort(rng.integers(0, 60, 30))]
    for _, example in replayed(requests, events):
        now = example.context.now
        assert list(example.context.history.times) == [event.time for event in events if event.time < now]
        state = Behaviour(5)
        state.apply_all(event for event in events if event.time < now)
        assert column(example, "popularity_30d") == pytest.approx(
            state.popularity(np.array([0, 1]), now)[MONTH].tolist()
        )


def test_the_replay_folds_every_event_in_the_end(replayed: Replayed) -> None:
    behaviour = Behaviour(5)
    replayed([(shown(2.0, 0), Slice.TEST)], [Engagement("u", i, CLICK, float(i)) for i in range(5)], behaviour)
    assert behaviour.history("u").rows == (0, 1, 2, 3, 4)


def test_later_events_do_not_change_examples(replayed: Replayed) -> None:
    events = [Engagement("u", i % 5, CLICK, float(i)) for i in range(20)]
    requests = [(shown(float(t), 0, 1, 2), Slice.MEMBERS) for t in (3, 7, 7, 10)]
    cut, whole = replayed(requests, events[:10]), replayed(requests, events)
    for (_, one), (_, other) in zip(cut, whole, strict=True):
        np.testing.assert_array_equal(one.features, other.features)


def test_the_place_is_kept_beside_what_serving_sees(replayed: Replayed) -> None:
    for _, example in replayed([(shown(1.0, 2, 0, 1), part) for part in Slice]):
        assert column(example, "position") == [0.0, 0.0, 0.0]
        assert example.positions is not None
        assert example.positions.tolist() == [1, 2, 3]
        assert example.rows.tolist() == [2, 0, 1]
        assert example.grades.tolist() == [0.0, 1.0, 0.0]
        assert len(example.missed) == len(example.recall_scores) == 0


def test_a_judged_request_has_no_place(replayed: Replayed) -> None:
    judged = Request(1.0, None, "red boot", np.array([0, 2]), None, {2: 0.0, 0: 3.0})
    ((_, example),) = replayed([(judged, Slice.MEMBERS)])
    assert column(example, "position") == [0.0, 0.0]
    assert example.positions is None
    assert example.grades.tolist() == [3.0, 0.0]


def test_a_list_nobody_logged_is_recalled_by_its_query(replayed: Replayed) -> None:
    request = Request(1.0, None, "Red  boot", None, None, {0: 3.0, 3: 1.0})
    ((_, example),) = replayed([(request, Slice.TEST)])
    assert example.rows[0] == 0
    assert len(example.rows) == 4
    assert set(example.rows.tolist()) >= {0, 1, 2}
    assert example.context.query == "Red boot"
    assert sorted([*example.grades[example.grades > 0], *example.missed]) == [1.0, 3.0]
    # The nearest title is the best by its words as well.
    assert example.recall_scores[0] == pytest.approx(2 / (10 + 1))
    assert (np.diff(example.recall_scores) <= 0).all()


def test_a_list_without_a_query_is_recalled_for_its_user(replayed: Replayed) -> None:
    events = [Engagement("u", 3, CLICK, 1.0), Engagement("v", 1, CLICK, 2.0)]
    request = Request(3.0, "u", "", None, None, {1: 3.0, 4: 1.0})
    ((_, example),) = replayed([(request, Slice.TEST)], events)
    assert example.rows.tolist() == [3, 1]
    assert example.grades.tolist() == [0.0, 3.0]
    assert example.missed.tolist() == [1.0]
    assert example.context.query_vector is None


def test_nothing_recalled_is_no_example(replayed: Replayed) -> None:
    assert replayed([(Request(3.0, "u", "", None, None, {1: 3.0}), Slice.TEST)]) == []


def test_dislikes_come_with_the_request(replayed: Replayed) -> None:
    events = [Engagement("u", 3, DISLIKE, 1.0), Engagement("u", 1, CLICK, 2.0), Engagement("u", 4, DISLIKE, 3.0)]
    ((_, example),) = replayed([(shown(3.0, 0, 1), Slice.TEST)], events)
    assert (example.context.history.rows, example.context.disliked.rows) == ((1,), (3,))


def test_a_request_reads_the_stage_of_its_time(goods: Catalogue, space: ProductSpace) -> None:
    stages = [staged(goods, since=since) for since in (-inf, 10.0, 20.0)]
    requests = [(shown(time, 0)._replace(query=""), Slice.TEST) for time in (0.0, 9.9, 10.0, 19.9, 20.0, 99.0)]
    made = moments(requests, iter(()), Behaviour(5), stages, space, lambda _: goods.space[0])
    assert [stages.index(stage) for *_, stage in made] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("part", Slice)
def test_answered_are_lists_somebody_judged_or_rated(part: Slice, replayed: Replayed, goods: Catalogue) -> None:
    """A list that was shown or recalled is not: nobody was asked about most of its rows."""
    judged = Request(1.0, None, "red boot", np.array([1, 2]), None, {1: 1.0, 2: 0.0})
    recalled = judged._replace(rows=None)
    requests = [judged, judged._replace(query=""), recalled, shown(1.0, 1, 2)]
    found = [example for _, example in replayed([(request, part) for request in requests], stage=staged(goods, 5))]
    assert [example.answered for example in found] == [True, True, False, False]
    assert [example.rows.tolist() for example in found[:2]] == [[1, 2], [1, 2]]
    assert [len(example.recall_scores) for example in found] == [0, 0, 5, 0]


def test_the_members_are_fitted_on_part_of_a_long_recalled_list(
    replayed: Replayed, goods: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FIT_ROWS", 2)
    request = Request(1.0, None, "red boot", None, None, {3: 1.0, 1: 2.0})
    whole, part = (replayed([(request, part)], stage=staged(goods, 5))[0][1] for part in (Slice.TEST, Slice.MEMBERS))
    assert sorted(whole.rows.tolist()) == [0, 1, 2, 3, 4]
    assert 2 <= len(part.rows) <= 4
    assert {1, 3} <= set(part.rows.tolist())
    assert sorted(part.grades[part.grades > 0]) == sorted(whole.grades[whole.grades > 0]) == [1.0, 2.0]
    kept = [whole.rows.tolist().index(row) for row in part.rows.tolist()]
    np.testing.assert_array_equal(part.recall_scores, whole.recall_scores[kept])
    np.testing.assert_allclose(part.features, whole.features[kept], rtol=1e-6)
    for made, wanted in zip(thinned(whole)[1:6], part[1:6], strict=True):
        np.testing.assert_allclose(made, wanted, rtol=1e-6)


def test_a_logged_or_judged_list_is_not_thinned(replayed: Replayed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIT_ROWS", 1)
    judged = Request(1.0, None, "red boot", np.array([1, 2, 3]), None, {1: 1.0, 2: 0.0})
    for _, example in replayed([(judged, Slice.CALIBRATE), (shown(1.0, 0, 2, 1), Slice.CALIBRATE)]):
        assert thinned(example) is example


def test_the_replay_is_lazy(goods: Catalogue, space: ProductSpace) -> None:
    """Years of a log do not fit memory as events: they are drawn as the requests come."""
    drawn: list[float] = []

    def endless() -> Iterator[Engagement]:
        for time in range(1_000_000_000):
            drawn.append(float(time))
            yield Engagement("u", time % 5, CLICK, float(time))

    made = replay(
        [(shown(10.0, 0)._replace(query=""), Slice.TEST)],
        endless(),
        Behaviour(5),
        [staged(goods)],
        space,
        lambda _: goods.space[0],
    )
    assert len(next(made)[1].context.history.rows) == 10
    assert drawn[-1] == 10.0
