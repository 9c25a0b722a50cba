"""The peers on logs small enough to reckon by hand, and the figures against another implementation."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from peers.context import NO_HISTORY, Case, Context, Log, cases_of
from peers.figures import Order, figures, intervals
from peers.neighbours import TIFU_GRID, ItemKnn, ScoreSum, TifuKnn, basket_weights, similarities, standardised
from peers.plain import OwnFrequency, Popularity, Random, Recent, TitleMean
from peers.queries import Bm25, reciprocal_ranks
from peers.sequence import SasRec
from peers.tuning import Tuned, earlier_context
from peers.vitrine import paired
from scipy import sparse

from ranker.history import DISLIKE, PURCHASE, RATING, RETURN
from ranker.log import Request

DAY = 86_400.0


def log_of(*events: tuple[str | None, int, float], returns: Sequence[tuple[str, int, float]] = ()) -> Log:
    rows = [(user, row, PURCHASE, time) for user, row, time in events]
    rows += [(user, row, RETURN, time) for user, row, time in returns]
    schema = {"user_id": pl.String, "row": pl.Int64, "kind": pl.Int64, "time": pl.Float64}
    return Log(pl.DataFrame(rows, schema=schema, orient="row"))


def request(time: float = 10.0, user: str | None = "a", query: str = "", rows: Any = None, **wanted: float) -> Request:
    grades = {int(name[1:]): grade for name, grade in wanted.items()}
    return Request(time, user, query, None if rows is None else np.array(rows), None, grades)


def context_of(log: Log, requests: Sequence[Request], products: int, cut: float = 10.0) -> Context:
    vectors = np.eye(products, dtype=np.float32)
    titles = [f"title {row}" for row in range(products)]
    return Context(log, cut, vectors, titles, cases_of(requests, log))


def random_context(requests: int = 40) -> Context:
    rng = np.random.default_rng(0)
    events = [(f"u{i % 30}", int((i % 30) // 10 * 10 + rng.integers(10)), float(i)) for i in range(600)]
    asked = [request(500.0 + i, f"u{i % 32}", r3=1.0, r14=3.0) for i in range(requests)]
    return context_of(log_of(*events), asked, 30, cut=500.0)


class Fixed:
    """A peer that always answers the same."""

    name = "fixed"

    def __init__(self, scores: Any) -> None:
        self.settings = {"scores": scores}

    def fit(self, context: Context) -> None:
        self.context = context

    def scores(self, request: Request, history: Any) -> Any:
        return np.array(self.settings["scores"], np.float64)


def test_figures_are_those_of_the_formula() -> None:
    found = figures(np.array([4, 1, 7]), {1: 2.0, 9: 1.0})
    ideal = (2**2 - 1) / np.log2(2) + (2**1 - 1) / np.log2(3)
    assert found.hr == 1.0
    assert found.ndcg == pytest.approx((2**2 - 1) / np.log2(3) / ideal)
    assert found.recall == 1 / 2
    assert np.isnan(figures(np.array([1]), {}).ndcg)


def test_figures_are_those_of_ir_measures() -> None:
    measures = pytest.importorskip("ir_measures")
    rng = np.random.default_rng(1)
    names = {measures.Success @ 10: "hr", measures.nDCG @ 10: "ndcg", measures.R @ 100: "recall"}
    for _ in range(20):
        ranked = rng.permutation(300)[:100]
        wanted = {int(row): float(rng.integers(1, 4)) for row in rng.permutation(300)[:12]}
        # Its gain is the grade itself, a whole number: 2^grade - 1 goes in as one.
        truth = [measures.Qrel("q", str(row), int(2**grade - 1)) for row, grade in wanted.items()]
        run = [measures.ScoredDoc("q", str(row), float(-place)) for place, row in enumerate(ranked)]
        found = figures(ranked, wanted)
        for measure, value in measures.calc_aggregate(list(names), truth, run).items():
            assert getattr(found, names[measure]) == pytest.approx(value, abs=1e-12)


def test_ties_fall_alike_for_all_and_what_is_ruled_out_stays_out() -> None:
    order = Order(6, seed=3)
    scores = np.array([1.0, 2.0, 1.0, -np.inf, 1.0, 1.0])
    assert order.first(scores, 1).tolist() == [1]
    assert sorted(order.first(scores).tolist()) == [0, 1, 2, 4, 5]
    tied = order.first(np.zeros(6)).tolist()
    assert tied != sorted(tied)
    assert [row for row in tied if row in (0, 2, 4, 5)] == order.first(scores).tolist()[1:]


def test_intervals_leave_out_what_does_not_apply() -> None:
    each = [figures(np.array([1]), {1: 1.0}), figures(np.array([1]), {2: 1.0}), figures(np.array([1]), {})]
    found: dict[str, Any] = intervals(each)
    assert found["requests"] == 2
    assert found["hr@10"]["mean"] == 0.5
    assert 0.0 <= found["hr@10"]["low"] <= 0.5 <= found["hr@10"]["high"] <= 1.0


def test_a_history_is_what_came_strictly_before_without_what_was_returned() -> None:
    log = log_of(("a", 3, 1.0), ("a", 4, 2.0), ("b", 9, 2.0), ("a", 3, 3.0), (None, 5, 3.0), returns=[("a", 3, 4.0)])
    assert log.history("a", 3.0).tolist() == [3, 4]
    assert log.history("a", 4.0).tolist() == [3, 4, 3]
    assert log.history("a", 5.0).tolist() == [3, 4]
    assert log.history("b", 1.0).tolist() == []
    assert log.history("nobody", 9.0).tolist() == []
    assert log.history(None, 9.0).tolist() == []
    assert log.matrix(3.0, 10).sum() == 3.0


def test_a_low_rating_is_no_engagement() -> None:
    columns = {"user_id": ["a", "a"], "row": [1, 2], "kind": [RATING, DISLIKE], "time": [1.0, 2.0]}
    log = Log(pl.DataFrame(columns))
    assert log.history("a", 9.0).tolist() == [1]
    assert log.matrix(9.0, 3).sum() == 1.0


def test_recent_counts_are_those_of_a_plain_count() -> None:
    rng = np.random.default_rng(2)
    times = np.sort(rng.integers(0, 60, 200)) * DAY
    log = log_of(*((None, int(row), float(time)) for row, time in zip(rng.integers(0, 7, 200), times, strict=True)))
    recent = Recent(log, 7, 10.0)
    for now in (5 * DAY, 5 * DAY, 20 * DAY, 59 * DAY, 90 * DAY):
        inside = (log.times < now) & (log.times >= now - 10 * DAY)
        assert recent.at(now).tolist() == np.bincount(log.rows[inside], minlength=7).tolist()


def test_popularity_sees_what_came_after_the_fit_but_not_the_request_itself() -> None:
    log = log_of(("a", 0, 1.0), ("b", 1, 11.0), ("b", 1, 12.0), ("a", 2, 13.0))
    popular = Popularity()
    popular.fit(context_of(log, [request(13.0)], 3))
    assert popular.scores(request(13.0), NO_HISTORY).tolist() == [1.0, 2.0, 0.0]


def test_own_frequency_comes_before_popularity() -> None:
    log = log_of(("b", 2, 1.0), ("b", 2, 2.0), ("b", 2, 3.0), ("a", 0, 4.0), ("b", 1, 5.0))
    own = OwnFrequency()
    own.fit(context_of(log, [request()], 4))
    assert np.argsort(-own.scores(request(), np.array([0])), kind="stable").tolist() == [0, 2, 1, 3]


def test_title_mean_looks_at_the_last_five() -> None:
    peer = TitleMean()
    peer.fit(context_of(log_of(), [request()], 8))
    assert peer.scores(request(), np.array([7, 0, 1, 2, 3, 3])) == pytest.approx([0.2, 0.2, 0.2, 0.4, 0, 0, 0, 0])


def test_similarities_are_the_shrunk_cosine_and_only_the_nearest_stay() -> None:
    counts = sparse.csr_matrix(np.array([[1, 2, 0], [1, 1, 1], [0, 1, 0]], np.float32))
    found = similarities(counts, 1, 10.0).toarray()
    near = 2 / (np.sqrt(2 * 3) + 10.0)
    assert found == pytest.approx(np.array([[0, near, 0], [near, 0, 0], [1 / (np.sqrt(2) + 10.0), 0, 0]]))


def test_item_knn_decays_with_the_steps_back() -> None:
    peer = ItemKnn()
    peer.similarity = sparse.csr_matrix(np.array([[0, 0.5, 0], [0, 0, 0.25], [0, 0.125, 0]], np.float32))
    assert peer.scores(request(), np.array([1, 2, 0])) == pytest.approx([0.0, 0.5 + 0.8 * 0.125, 0.8**2 * 0.25])


def test_basket_weights_follow_the_paper() -> None:
    # Three baskets in groups of two: the oldest group holds one.
    assert basket_weights(3, 2, 0.9, 0.7) == pytest.approx([0.7 / 1 / 2, 0.9 / 2 / 2, 1.0 / 2 / 2])


def test_tifu_mixes_the_own_frequency_with_that_of_the_nearest() -> None:
    log = log_of(("a", 0, 1.0), ("b", 0, 1.0), ("b", 1, 1.0), ("c", 3, 2.0))
    peer = TifuKnn({**TIFU_GRID[0], "neighbours": 1})
    peer.fit(context_of(log, [request()], 4))
    assert peer.scores(request(), np.array([0])) == pytest.approx([0.7 + 0.3, 0.3, 0.0, 0.0])
    assert not peer.scores(request(user="new"), NO_HISTORY).any()


def test_a_score_sum_standardises_each() -> None:
    both = ScoreSum(Fixed([1.0, 2.0, 3.0]), Fixed([0.0, 0.0, 50.0]), "both")
    found = both.scores(request(), NO_HISTORY)
    assert found == pytest.approx(standardised(np.arange(3.0)) + standardised(np.array([0.0, 0.0, 1.0])))
    assert standardised(np.ones(3)).tolist() == [0.0, 0.0, 0.0]


def test_factorisations_rank_a_groups_own_products_first() -> None:
    pytest.importorskip("implicit")
    from peers.factors import Als, Bpr

    context = random_context()
    small = {"factors": 8, "iterations": 30}
    for peer in (Als({**small, "regularization": 0.01, "alpha": 2.0}), Bpr({**small, "learning_rate": 0.1})):
        peer.fit(context)
        mine = peer.scores(request(500.0, "u0"), context.log.history("u0", 500.0))
        assert mine[:10].mean() > mine[10:].mean()
        assert len(peer.scores(request(500.0, "stranger"), NO_HISTORY)) == 30


def test_every_peer_answers_every_request_with_finite_scores() -> None:
    context = random_context()
    for peer in (Random(), Popularity(30.0), OwnFrequency(), TitleMean(), ItemKnn(), TifuKnn(TIFU_GRID[0])):
        peer.fit(context)
        for case in context.cases:
            scores = peer.scores(case.request, case.history)
            assert scores.shape == (30,)
            assert np.isfinite(scores).all()


def test_the_best_setting_is_chosen_on_earlier_requests_and_fitted_again() -> None:
    context = context_of(log_of(("a", 0, 1.0)), [request(r1=1.0)], 12)
    earlier = earlier_context(context, [Case(request(5.0, r1=1.0), NO_HISTORY)])
    bad, good = [12.0 - row for row in range(12)], [float(row == 1) for row in range(12)]
    made: list[Fixed] = []

    def make(settings: Any) -> Fixed:
        made.append(Fixed(settings["scores"]))
        return made[-1]

    tuned = Tuned(make, [{"scores": bad}, {"scores": good}], earlier)
    tuned.fit(context)
    assert [each["validation_ndcg@10"] for each in tuned.tried] == [round(1 / np.log2(3), 5), 1.0]
    assert tuned.settings["scores"] == good
    assert [each.context.cut for each in made[1:]] == [5.0, 5.0, 10.0]


def example(now: float, grades: Sequence[float], missed: Sequence[float] = (), query: str = "") -> Any:
    rows = np.arange(len(grades))
    moment = SimpleNamespace(now=now, query=query)
    return SimpleNamespace(context=moment, rows=rows, grades=np.array(grades), missed=np.array(missed))


def test_vitrines_answers_go_to_their_requests_and_a_dropped_one_is_a_miss() -> None:
    requests = [request(1.0, r0=1.0), request(2.0, r5=2.0), request(3.0, r1=1.0, r7=3.0)]
    examples = [example(1.0, [1.0, 0.0]), example(3.0, [0.0, 1.0], [3.0])]
    scores = [np.array([0.1, 0.2]), np.array([0.3, 0.4])]
    found = paired(requests, examples, scores)
    assert [each.scores.tolist() for each in found] == [[0.1, 0.2], [], [0.3, 0.4]]
    with pytest.raises(ValueError, match="belong to no request"):
        paired(requests[:2], examples, scores)


def test_a_script_that_fails_says_so(tmp_path: Any) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such package >&2\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"requirements.txt[^.]*\n*.*no such package"):
        SasRec(python, 1.0).fit(random_context())


def test_bm25_finds_the_words_and_nothing_else() -> None:
    context = Context(log_of(), 0.0, np.eye(3, dtype=np.float32), ["red shoe", "blue shoe", "green hat"], [])
    peer = Bm25()
    peer.fit(context)
    red = peer.scores(request(query="red shoes shoe"), NO_HISTORY)
    assert red[0] > red[1] > red[2] == 0.0
    assert not peer.scores(request(query="sofa"), NO_HISTORY).any()
    assert reciprocal_ranks(np.array([5.0, 0.0, 0.0])) == pytest.approx([1 / 61, 1 / 63, 1 / 63])
