"""What a request reads by its time, and the weights of the recall channels."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from indexer.arrays import Floats
from indexer.encoder import Encoder
from indexer.snapshot import IndexSnapshot
from ranker import stages as module
from ranker.config import RankerConfig
from ranker.covisited import Covisited, fit_covisited
from ranker.ease import Ease, fit_ease
from ranker.examples import Slice
from ranker.log import Request
from ranker.recall_weights import fit_weights
from ranker.space import ProductSpace
from ranker.stages import Prepared, fit_recall, make_stages, slice_examples, with_weights

TITLES = tuple(f"thing number {i}" for i in range(12))
CUTS = [40.0, 70.0, 80.0, 90.0]
Engaged = Callable[..., pl.DataFrame]


@pytest.fixture(scope="module")
def snapshot(titles: Callable[..., IndexSnapshot]) -> IndexSnapshot:
    return titles(*TITLES)


@pytest.fixture(scope="module")
def space(snapshot: IndexSnapshot, plain_space: Callable[[Floats], ProductSpace]) -> ProductSpace:
    return plain_space(snapshot.vectors)


@pytest.fixture
def walks(engaged: Engaged) -> pl.DataFrame:
    """Four users walk round the products, one step a second."""
    return engaged(*((f"u{u}", (5 * u + t) % 12, float(t)) for u in range(4) for t in range(100)))


def same(one: Covisited | Ease, other: Covisited | Ease) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_stages_begin_at_the_cuts_and_within_the_members_slice(
    walks: pl.DataFrame, snapshot: IndexSnapshot, space: ProductSpace
) -> None:
    made = make_stages(Prepared([], walks, CUTS), snapshot, space, RankerConfig(candidates=7), {"user": {"user": 2.0}})
    assert [stage.since for stage in made] == pytest.approx([40.0, 46.0, 52.0, 58.0, 64.0, 70.0, 80.0, 90.0])
    for stage in made:
        before = walks.filter(pl.col("time") < stage.since)
        assert same(stage.catalogue.covisited, fit_covisited(before, 12))
        assert same(stage.catalogue.ease, fit_ease(before, 12))
        assert stage.catalogue.covisited is stage.retrieval.covisited
        assert (stage.retrieval.candidates, stage.retrieval.weights) == (7, {"user": {"user": 2.0}})
    assert not any(same(a.retrieval.covisited, b.retrieval.covisited) for a, b in pairwise(made))


def test_without_a_log_there_is_one_stage_that_knows_nothing(
    engaged: Engaged, snapshot: IndexSnapshot, space: ProductSpace
) -> None:
    (stage,) = make_stages(Prepared([], engaged(), []), snapshot, space, RankerConfig(), {})
    assert stage.since == -np.inf
    assert len(stage.retrieval.covisited.rows) == 0


def test_weights_are_set_in_every_stage(walks: pl.DataFrame, snapshot: IndexSnapshot, space: ProductSpace) -> None:
    made = make_stages(Prepared([], walks, CUTS), snapshot, space, RankerConfig(), {})
    weights = {"query": {"lexical": 2.0}}
    for before, after in zip(made, with_weights(made, weights), strict=True):
        assert (before.retrieval.weights, after.retrieval.weights) == ({}, weights)
        assert after == before._replace(retrieval=before.retrieval._replace(weights=weights))


def recalled(time: float, wanted: int, query: str = "") -> Request:
    return Request(time, f"u{wanted % 4}", query, None, None, {wanted: 1.0})


def fitted(
    requests: list[tuple[Request, Slice]],
    walks: pl.DataFrame,
    snapshot: IndexSnapshot,
    space: ProductSpace,
    encoder: Encoder,
) -> tuple[dict[str, dict[str, float]], list[str]]:
    said: list[str] = []
    config = RankerConfig(candidates=12)
    prepared = Prepared(requests, walks, CUTS)
    stages = make_stages(prepared, snapshot, space, config, {})
    return fit_recall(prepared, stages, space, snapshot, encoder, config, said.append), said


def test_recall_is_weighed_by_kind_on_the_members_requests(
    walks: pl.DataFrame,
    snapshot: IndexSnapshot,
    space: ProductSpace,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "fit_weights", lambda samples, kind: fit_weights(samples, 2, kind))
    monkeypatch.setattr(module, "_FEWEST", 10)
    members = [(recalled(41.0 + i, i), Slice.MEMBERS) for i in range(12)]
    few = [(recalled(60.0 + i, i, f"thing number {i}"), Slice.MEMBERS) for i in range(9)]
    later = [(recalled(71.0 + i / 10, i, f"thing number {i}"), Slice.CALIBRATE) for i in range(30)]
    weights, said = fitted([*members, *few, *later], walks, snapshot, space, encoder)
    # Nine queries are too few to learn from; those of later slices do not count.
    assert set(weights) == {"user"}
    assert set(weights["user"]) == {"covisited", "history", "popular", "trending"}
    assert len(said) == 1
    assert "recall by user" in said[0]
    assert fitted(later, walks, snapshot, space, encoder)[0] == {}
    assert fitted([], walks, snapshot, space, encoder)[0] == {}


def test_recall_learns_nothing_from_lists_as_shown(
    walks: pl.DataFrame,
    snapshot: IndexSnapshot,
    space: ProductSpace,
    encoder: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A judged list may be learnt from; of a logged one all was recalled once."""
    monkeypatch.setattr(module, "_FEWEST", 10)
    rows, places = np.arange(12), np.arange(1, 13)
    judged = [(recalled(60.0, i, f"thing number {i}")._replace(rows=rows), Slice.MEMBERS) for i in range(12)]
    shown = [(request._replace(positions=places), part) for request, part in judged]
    assert set(fitted(judged, walks, snapshot, space, encoder)[0]) == {"query"}
    assert fitted(shown, walks, snapshot, space, encoder)[0] == {}


def test_examples_by_slice(walks: pl.DataFrame, snapshot: IndexSnapshot, space: ProductSpace, encoder: Encoder) -> None:
    """A list without anything wanted is kept for the test alone, where something was wanted and missed."""
    config = RankerConfig(candidates=1)
    parts = [Slice.TOWER, Slice.MEMBERS, Slice.MEMBERS, Slice.TEST, Slice.TEST]
    wanted = [0, 0, 11, 11, 0]
    requests = [
        (recalled(50.0 + i, row, "thing number 0"), part)
        for i, (part, row) in enumerate(zip(parts, wanted, strict=True))
    ]
    prepared = Prepared(requests, walks.with_columns(query=pl.lit("thing number 0"), row=pl.lit(0)), CUTS)
    stages = make_stages(prepared, snapshot, space, config, {})
    said: list[str] = []
    made = slice_examples(prepared, stages, space, snapshot, encoder, said.append)
    assert {part: len(examples) for part, examples in made.items() if examples} == {Slice.MEMBERS: 1, Slice.TEST: 2}
    assert [example.missed.tolist() for example in made[Slice.TEST]] == [[1.0], []]
    assert said[-1] == "examples: 4 of 4 requests replayed"


def test_a_query_is_embedded_as_serving_does(
    walks: pl.DataFrame, snapshot: IndexSnapshot, space: ProductSpace, encoder: Encoder
) -> None:
    """Mended by the words of the catalogue."""
    prepared = Prepared([(recalled(60.0, 1, "thing numbr 1"), Slice.MEMBERS)], walks, CUTS)
    stages = make_stages(prepared, snapshot, space, RankerConfig(candidates=12), {})
    (made,) = slice_examples(prepared, stages, space, snapshot, encoder, lambda _: None)[Slice.MEMBERS]
    np.testing.assert_array_equal(made.context.query_vector, encoder.encode(["thing number 1"])[0])
    assert made.context.query == "thing numbr 1"
