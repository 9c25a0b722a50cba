"""Many lists at once against the plain definitions of one, and against scikit-learn."""

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ranker import metrics, ranked
from ranker.examples import Example
from ranker.features import NAMES, Context
from ranker.history import EMPTY
from ranker.ranked import Answers
from ranker.significance import bootstrap, flip_test


def example(grades: Sequence[float], missed: Sequence[float] = ()) -> Example:
    matrix = np.zeros((len(grades), len(NAMES)), np.float32)
    rows = np.arange(len(grades))
    return Example(Context(0.0, EMPTY), rows, matrix, np.array(grades, float), np.array(missed, float), np.empty(0))


def lists(seed: int, count: int = 60) -> tuple[list[Example], list[np.ndarray]]:
    """Lists of many lengths with ties, without anything wanted, with nothing but wanted, and with misses."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 160, count)
    examples = [
        example(rng.choice(4, n, p=(0.9, 0.05, 0.03, 0.02)) + (i % 7 == 0), rng.integers(0, 4, rng.integers(0, 3)))
        for i, n in enumerate(lengths)
    ]
    return examples, [rng.integers(-5, 9, n) / 3 for n in lengths]


def same(found: np.ndarray, expected: list[float]) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-12, equal_nan=True)


@pytest.mark.parametrize("cells", [1 << 20, 500])
@pytest.mark.parametrize("seed", range(3))
def test_every_metric_is_that_of_its_list(seed: int, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranked, "_CELLS", cells)
    examples, scores = lists(seed)
    wanted = ranked.answers(examples, 2.0)
    found = ranked.per_request(scores, wanted)
    all_ = [(s, e.grades >= 2, int((e.missed >= 2).sum())) for s, e in zip(scores, examples, strict=True)]
    ndcg = [metrics.ndcg(s, e.grades, e.missed) for s, e in zip(scores, examples, strict=True)]
    same(found["ndcg@10"], ndcg)
    same(ranked.ndcg(scores, wanted), ndcg)
    same(found["mrr"], [metrics.reciprocal_rank(s, p) if p.any() or m else np.nan for s, p, m in all_])
    same(found["hr@10"], [metrics.hit(s, p, m, 10) for s, p, m in all_])
    for k in ranked.RECALL_AT:
        same(found[f"recall@{k}"], [metrics.recall(s, p, m, k) for s, p, m in all_])
    same(found["gauc"], [metrics.auc(s, p) for s, p, _ in all_])
    # The lists are as unlike as promised.
    assert np.isnan(found["mrr"]).any()
    assert np.isnan(found["gauc"]).any()
    assert 0 < np.nanmean(found["gauc"]) < 1


def test_a_score_that_is_no_number_stands_last_but_before_the_padding() -> None:
    examples = [example([1, 0]), example([0, 0, 0, 1])]
    scores = [np.array([np.nan, 1.0]), np.array([4.0, 3.0, 2.0, 1.0])]
    assert ranked.per_request(scores, ranked.answers(examples, 1.0))["mrr"].tolist() == [1 / 2, 1 / 4]


def test_top_are_places_in_all_rows() -> None:
    scores = [np.array([0.1, 0.9]), np.array([0.5, 0.7, 0.6])]
    found = ranked.top(scores, np.array([2, 3]), 2)
    assert [places.tolist() for places in found] == [[1, 0], [3, 4]]
    assert [places.tolist() for places in ranked.top(scores, np.array([2, 3]), 9)] == [[1, 0], [3, 4, 2]]


def pooled(seed: int) -> tuple[Answers, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    examples = [example(rng.random(rng.integers(3, 12)) < rng.random()) for _ in range(300)]
    wanted = ranked.answers(examples, 1.0)
    scores = np.round(rng.normal(size=len(wanted.positive)) + 0.6 * wanted.positive, 1)
    return wanted, scores, np.repeat(np.arange(300), wanted.lengths)


def test_parts_of_the_auc_average_to_it() -> None:
    wanted, scores, _ = pooled(0)
    assert ranked.pooled_auc(scores, wanted).mean() == pytest.approx(roc_auc_score(wanted.positive, scores))


def test_parts_of_the_auc_spread_as_it_does_when_requests_are_drawn_again() -> None:
    wanted, scores, request = pooled(1)
    rng = np.random.default_rng(2)
    again = []
    for _ in range(1_000):
        weights = np.bincount(rng.integers(0, 300, 300), minlength=300)[request].astype(float)
        again.append(roc_auc_score(wanted.positive, scores, sample_weight=weights))
    (interval,) = bootstrap(ranked.pooled_auc(scores, wanted)[:, None])
    expected = np.percentile(again, [2.5, 97.5])
    np.testing.assert_allclose((interval.low, interval.high), expected, atol=0.1 * np.ptp(expected))


def test_the_paired_test_of_the_auc_finds_a_difference() -> None:
    wanted, scores, _ = pooled(3)
    noisy = scores + np.random.default_rng(4).normal(0, 0.5, len(scores))
    (p,) = flip_test((ranked.pooled_auc(scores, wanted) - ranked.pooled_auc(noisy, wanted))[:, None])
    assert p < 0.01


def test_the_paired_test_of_the_auc_raises_as_few_false_alarms_as_it_says() -> None:
    differences = []
    for seed in range(200):
        wanted, scores, _ = pooled(seed)
        rng = np.random.default_rng(1_000 + seed)
        one, other = (ranked.pooled_auc(scores + rng.normal(0, 0.5, len(scores)), wanted) for _ in range(2))
        differences.append(one - other)
    p = flip_test(np.column_stack(differences), draws=500)
    assert 0.01 < np.mean(p < 0.05) < 0.1


def test_no_auc_where_rows_are_all_alike() -> None:
    wanted = ranked.answers([example([1, 1]), example([1])], 1.0)
    assert np.isnan(ranked.pooled_auc(np.array([1.0, 2.0, 3.0]), wanted)).all()


def test_weighed_gains_weigh_the_requests_too() -> None:
    """A mean of the lists' NDCG of weighed gains, each counting by how much its best order is worth."""
    examples, scores = lists(4)
    rng = np.random.default_rng(0)
    weighed = [e._replace(weights=rng.uniform(1, 20, len(e.grades))) for e in examples]
    wanted = ranked.answers(weighed, 1.0)
    values = ranked.ndcg(scores, wanted)
    own, counts = [], []
    for e, s in zip(weighed, scores, strict=True):
        gains = metrics.gains(e.grades) * e.weights
        best = metrics.dcg(np.sort(np.concatenate([gains, metrics.gains(e.missed)]))[::-1][:10])
        plain = metrics.dcg(np.sort(metrics.gains(np.concatenate([e.grades, e.missed])))[::-1][:10])
        if plain:
            own.append(metrics.dcg(gains[np.argsort(-s, kind="stable")][:10]) / best)
            counts.append(best / plain)
    assert np.nanmean(values) == pytest.approx(np.average(own, weights=counts))
    assert 0 < np.nanmean(values) < 1
    same(wanted.shares[np.isfinite(values)], (np.array(counts) / np.mean(counts)).tolist())
    # The same number for all rows of all lists changes nothing.
    found = [e._replace(missed=np.empty(0)) for e in examples]
    doubled = [e._replace(weights=np.full(len(e.grades), 2.0)) for e in found]
    once, twice = (ranked.ndcg(scores, ranked.answers(each, 1.0)) for each in (found, doubled))
    same(twice, once.tolist())


def test_every_request_of_nobody_is_of_another() -> None:
    assert ranked.numbered(["a", None, "b", "a", None]).tolist() == [0, 1, 2, 0, 3]
