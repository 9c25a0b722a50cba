"""The training end to end on a sample shop: what it publishes, what it refuses, and that it repeats."""

import json
from copy import copy
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
import pytest

from indexer.canonical import EVENTS
from indexer.config import IndexerConfig
from indexer.encoder import Encoder
from indexer.errors import InputError
from indexer.snapshot import IndexSnapshot
from indexer.store import Store
from ranker import evaluate, log
from ranker.config import RankerConfig
from ranker.examination import Examination
from ranker.examples import Example, Slice, slice_of_query
from ranker.fusion import KINDS
from ranker.log import Sources
from ranker.model import Model
from ranker.scoring import Scorable
from ranker.stages import Prepared, make_stages, slice_examples
from ranker.train import evaluate_again, gather, prepare


class Shop(Protocol):
    """The sample shop of conftest."""

    store: Store
    indexing: IndexerConfig
    config: RankerConfig
    snapshot: IndexSnapshot
    encoder: Encoder
    model: Model
    said: list[str]
    dump: Any
    sources: Sources

    def train(self, config: RankerConfig | None = None, sources: Sources | None = None) -> str: ...
    def load(self, name: str) -> Model: ...


@pytest.fixture(scope="module")
def prepared(shop: Shop) -> Prepared:
    return prepare(shop.sources, shop.snapshot, shop.config)


@pytest.fixture(scope="module")
def slices(shop: Shop, prepared: Prepared) -> dict[Slice, list[Example]]:
    model = shop.model
    stages = make_stages(prepared, shop.snapshot, model.space, shop.config, model.manifest["recall"]["weights"])
    return slice_examples(prepared, stages, model.space, shop.snapshot, shop.encoder, lambda _: None)


@pytest.fixture(scope="module")
def report(shop: Shop) -> dict[str, Any]:
    path: Path = shop.store.path("models", shop.model.id) / "report" / "report.json"
    return json.loads(path.read_text())


def scores(model: Model, examples: list[Example]) -> np.ndarray:
    lists = [Scorable(e.context, e.rows, e.features) for e in examples]
    return np.concatenate([each.fused for each in model.members.score(lists, model.space.vectors)])


def ndcg(report: dict[str, Any], scorer: str) -> float:
    (row,) = (row for row in report["table"] if row["scorer"] == scorer)
    return float(row["metrics"]["ndcg@10"]["mean"])


def test_manifest_says_what_the_model_is(shop: Shop, slices: dict[Slice, list[Example]]) -> None:
    manifest = shop.model.manifest
    assert manifest["index"] == shop.snapshot.id
    assert manifest["encoder"] == shop.encoder.fingerprint
    assert manifest["fusion"] in KINDS
    assert manifest["recall"]["candidates"] == shop.config.candidates
    assert manifest["requests"] == {part.name.lower(): len(slices[part]) for part in Slice}
    assert shop.store.verify("models", shop.model.id) == []
    assert shop.store.latest("models") >= shop.model.id


def test_progress_is_told(shop: Shop) -> None:
    told = "\n".join(shop.said)
    for stage in ("user tower, pass 2 of 2", "examples: ", "DNN, pass 1", "trees", "stacking", "fusion: ", "evaluate"):
        assert stage in told


def test_slices_follow_each_other_and_share_no_request(prepared: Prepared) -> None:
    times = [request.time for request, _ in prepared.requests]
    parts = [int(part) for _, part in prepared.requests]
    assert times == sorted(times)
    assert parts == sorted(parts)
    assert set(parts) == set(map(int, Slice))
    ends = {part: [r.time for r, p in prepared.requests if p is part] for part in Slice}
    assert all(max(ends[Slice(i)]) < min(ends[Slice(i + 1)]) for i in range(4))


def test_cuts_of_a_trained_model_make_the_same_slices(shop: Shop, prepared: Prepared) -> None:
    assert shop.model.manifest["cuts"] == prepared.cuts
    again = prepare(shop.sources, shop.snapshot, shop.config, prepared.told())
    assert [part for _, part in again.requests] == [part for _, part in prepared.requests]


def test_new_events_do_not_move_earlier_requests_between_slices(shop: Shop, prepared: Prepared) -> None:
    first_half = shop.dump.events.head(len(shop.dump.events) // 2)
    again = prepare(Sources(first_half, None), shop.snapshot, shop.config, prepared.told())
    where = {(r.time, r.user, tuple(r.rows)): part for r, part in prepared.requests if r.rows is not None}
    common = [
        (r, part) for r, part in again.requests if r.rows is not None and (r.time, r.user, tuple(r.rows)) in where
    ]
    assert len(common) > 100
    assert all(where[r.time, r.user, tuple(r.rows)] is part for r, part in common)


def test_most_requests_are_spread_evenly(shop: Shop, prepared: Prepared) -> None:
    thin = prepare(shop.sources, shop.snapshot, shop.config.model_copy(update={"most_requests": 100}))
    counts = {part: sum(p is part for _, p in thin.requests) for part in Slice}
    whole = {part: sum(p is part for _, p in prepared.requests) for part in Slice}
    assert counts == {part: min(count, 100) for part, count in whole.items()}
    times = [r.time for r, part in thin.requests if part is Slice.TOWER]
    full = [r.time for r, part in prepared.requests if part is Slice.TOWER]
    assert (times[0], times[-1]) == (full[0], full[-1])
    assert [r.time for r, _ in thin.requests] == sorted(r.time for r, _ in thin.requests)


def test_report_has_every_scorer_with_intervals(report: dict[str, Any], slices: dict[Slice, list[Example]]) -> None:
    names = [row["scorer"] for row in report["table"]]
    scorers = {*evaluate.MEMBERS, *KINDS}
    assert set(names) >= {*scorers, "random", "BM25", "popularity", "co-visited"}
    for row in report["table"]:
        assert set(row["metrics"]) >= {"ndcg@10", "mrr", "recall@10", "recall@50", "recall@100", "auc"}
        for interval in row["metrics"].values():
            assert 0 <= interval["low"] <= interval["mean"] <= interval["high"] <= 1
        assert bool(row["classification"]) == (row["scorer"] in scorers)
    assert report["requests"] == len(slices[Slice.TEST])
    assert set(report["chosen_minus_other_ndcg"]) == {*names} - {report["chosen"]}
    assert 0 <= report["alpha"] <= 1


def test_the_fused_model_beats_chance_and_popularity(report: dict[str, Any]) -> None:
    against = report["chosen_minus_other_ndcg"]
    assert against["random"]["low"] > 0.1
    assert against["popularity"]["low"] > 0
    assert ndcg(report, report["chosen"]) > ndcg(report, "transformer")


def test_what_is_loaded_scores_as_what_was_trained(
    shop: Shop, slices: dict[Slice, list[Example]], report: dict[str, Any]
) -> None:
    """The report was made before saving, by the members in memory."""
    loaded = shop.load(shop.model.id)
    # Places were logged, so clicks count by the shares that the training estimated and wrote down.
    test = Examination(np.array(loaded.manifest["examination"])).weighed(slices[Slice.TEST])
    again = evaluate.report(loaded.members, test, loaded.space.vectors, shop.config.positive_grade)
    assert again["chosen"] == report["chosen"]
    for row, before in zip(again["table"], report["table"], strict=True):
        assert row["scorer"] == before["scorer"]
        assert row["classification"] == pytest.approx(before["classification"], abs=1e-9)
        for name, interval in row["metrics"].items():
            assert interval == pytest.approx(before["metrics"][name], abs=1e-9)


def test_evaluating_again_is_the_report(shop: Shop, report: dict[str, Any]) -> None:
    again = evaluate_again(shop.model, shop.config, shop.snapshot, shop.encoder, shop.sources, lambda _: None)
    assert again["requests"] == report["requests"]
    assert again["chosen"] == report["chosen"]
    for row, before in zip(again["table"], report["table"], strict=True):
        assert row["metrics"]["ndcg@10"] == pytest.approx(before["metrics"]["ndcg@10"], abs=1e-9)


def test_evaluating_again_needs_requests_after_the_cut(shop: Shop) -> None:
    early = Sources(shop.dump.events.head(len(shop.dump.events) // 2), None)
    with pytest.raises(InputError, match="Nothing to evaluate on"):
        evaluate_again(shop.model, shop.config, shop.snapshot, shop.encoder, early, lambda _: None)


def test_the_same_seed_gives_the_same_scores(shop: Shop, slices: dict[Slice, list[Example]]) -> None:
    again = shop.load(shop.train())
    np.testing.assert_array_equal(again.space.vectors, shop.model.space.vectors)
    np.testing.assert_array_equal(scores(again, slices[Slice.TEST]), scores(shop.model, slices[Slice.TEST]))


def test_another_seed_gives_other_scores(shop: Shop, slices: dict[Slice, list[Example]]) -> None:
    other = shop.load(shop.train(shop.config.model_copy(update={"seed": 1})))
    assert not np.allclose(scores(other, slices[Slice.TEST]), scores(shop.model, slices[Slice.TEST]))


def more(judgments: pl.DataFrame) -> pl.DataFrame:
    """Twice as many judged queries: a slice of a twentieth needs a few hundred."""
    return pl.concat([judgments, judgments.with_columns(pl.col("query") + " sale")])


def test_judgments_alone_are_enough(shop: Shop) -> None:
    """Like the Home Depot set: graded pairs from 1 to 3, no log, no user."""
    judgments = more(shop.dump.judgments).with_columns((1 + pl.col("grade") * 2 / 3).round(2))
    config = shop.config.model_copy(update={"positive_grade": 2.0})
    model = shop.load(shop.train(config, Sources(None, judgments)))
    assert model.manifest["learnt"] == ["query"]
    assert model.space.tower is None
    assert model.manifest["cuts"] == []
    assert model.manifest["requests"]["tower"] == 0
    report = json.loads((shop.store.path("models", model.id) / "report" / "report.json").read_text())
    assert report["chosen_minus_other_ndcg"]["random"]["low"] > 0.1
    assert "popularity" not in {row["scorer"] for row in report["table"]}


def test_log_and_judgments_together(shop: Shop) -> None:
    both = prepare(Sources(shop.dump.events, shop.dump.judgments), shop.snapshot, shop.config)
    queries = {part: {r.query for r, p in both.requests if p is part and r.user is None} for part in Slice}
    judged = set(shop.dump.judgments["query"])
    assert sum(len(queries[part] & judged) for part in Slice) >= len(judged)
    assert [r.time for r, _ in both.requests] == sorted(r.time for r, _ in both.requests)


def tuned(snapshot: IndexSnapshot, **told: float) -> IndexSnapshot:
    made = copy(snapshot)
    made.manifest = snapshot.manifest | {"encoder": snapshot.manifest["encoder"] | {"tuned": told}}
    return made


def test_an_encoder_tuned_on_what_is_measured_is_refused(shop: Shop, prepared: Prepared) -> None:
    first = prepared.cuts[0]
    kept = prepare(shop.sources, tuned(shop.snapshot, events_before=first, queries_below=0.5), shop.config)
    assert kept.cuts == prepared.cuts
    later = tuned(shop.snapshot, events_before=first + 1.0, queries_below=0.5)
    with pytest.raises(
        InputError, match=r"tuned on events after the first of ranker\.time_cuts.*vitrine train encoder"
    ):
        prepare(shop.sources, later, shop.config)
    assert prepare(Sources(None, shop.dump.judgments), later, shop.config).cuts == []


def test_judged_queries_the_encoder_was_tuned_on_fit_nothing_else(shop: Shop) -> None:
    judgments = Sources(None, shop.dump.judgments)
    plain, aware = (
        {request.query: part for request, part in prepare(judgments, snapshot, shop.config).requests}
        for snapshot in (shop.snapshot, tuned(shop.snapshot, events_before=0.0, queries_below=0.5))
    )
    seen = {query for query, part in aware.items() if part is Slice.TOWER}
    assert len(plain) / 3 < len(seen) < 2 * len(plain) / 3
    assert seen == {query for query in plain if slice_of_query(query, None, 0.5) is Slice.TOWER}
    assert {plain[query] for query in seen} == {Slice.MEMBERS}
    assert all(aware[query] is part for query, part in plain.items() if query not in seen)


def test_what_happens_later_does_not_change_what_is_fitted(
    shop: Shop, prepared: Prepared, slices: dict[Slice, list[Example]]
) -> None:
    """Events from the validation slice on, a year later: space, recall weights and the lists before are the same."""
    late = log.seconds(pl.col("event_time")) > prepared.cuts[2]
    moved = pl.when(late).then(pl.col("event_time").dt.offset_by("365d")).otherwise("event_time")
    shifted = Sources(shop.dump.events.with_columns(moved), None)
    again = gather(shop.config, shop.indexing, shop.snapshot, shop.encoder, shifted, lambda _: None)
    np.testing.assert_array_equal(again.space.vectors, shop.model.space.vectors)
    assert again.weights == shop.model.manifest["recall"]["weights"]
    for part in (Slice.MEMBERS, Slice.CALIBRATE):
        for one, other in zip(again.slices[part], slices[part], strict=True):
            np.testing.assert_array_equal(one.features, other.features)


def test_a_log_without_impressions(shop: Shop) -> None:
    """Only purchases and clicks, as a shop's order table has them: the lists are drawn from recall."""
    taken = shop.dump.events.filter(pl.col("event_type") != "impression").select(
        *(pl.lit(None, dtype).alias(name) if name == "position" else name for name, dtype in EVENTS.items())
    )
    prepared = prepare(Sources(taken, None), shop.snapshot, shop.config)
    assert prepared.requests
    assert all(request.rows is None for request, _ in prepared.requests)
    model = shop.load(shop.train(sources=Sources(taken, None)))
    assert {"dense", "lexical"} <= set(model.manifest["recall"]["weights"]["query"])
    report = json.loads((shop.store.path("models", model.id) / "report" / "report.json").read_text())
    assert "recall order" in {row["scorer"] for row in report["table"]}
    assert report["chosen_minus_other_ndcg"]["random"]["low"] > 0


def test_replay_folds_the_engagements(shop: Shop, prepared: Prepared) -> None:
    found = log.engagements(shop.dump.events, shop.snapshot.row_of, shop.config.positive_rating)
    assert prepared.engagements.equals(found)
    assert len(found) == len(shop.dump.events.filter(pl.col("event_type") != "impression"))
