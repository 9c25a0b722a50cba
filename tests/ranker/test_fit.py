"""Fitting the members: logits that no list was fitted on, and a fusion chosen on lists that nothing else saw."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ranker import evaluate, features, fit
from ranker.config import RankerConfig
from ranker.examples import Example, Slice
from ranker.features import NAMES, Context
from ranker.fusion import KINDS
from ranker.history import EMPTY
from ranker.model import Members
from ranker.trees import Rows

CPU = torch.device("cpu")
SPACE, LIST = 8, 12
CONFIG = RankerConfig(trees=40, leaves=7, network_epochs=2)
SIGNAL, POSITION = NAMES.index("bm25"), NAMES.index("position")


@pytest.fixture(scope="module")
def space() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(LIST, SPACE)).astype(np.float32)


def lists(count: int, seed: int) -> list[Example]:
    """Lists in which one feature tells what was clicked; places are logged, as for the members' slice."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        matrix = rng.normal(size=(LIST, len(NAMES))).astype(np.float32)
        matrix[:, POSITION] = np.log(np.arange(1, LIST + 1))
        grades = np.zeros(LIST)
        grades[(2 * matrix[:, SIGNAL] + rng.gumbel(size=LIST)).argmax()] = 1.0
        made.append(Example(Context(0.0, EMPTY), np.arange(LIST), matrix, grades, np.empty(0), np.empty(0)))
    return made


@pytest.fixture(scope="module")
def slices() -> dict[Slice, list[Example]]:
    counts = {Slice.TOWER: 0, Slice.MEMBERS: 150, Slice.CALIBRATE: 60, Slice.VALIDATE: 60, Slice.TEST: 0}
    made = {part: lists(count, int(part)) for part, count in counts.items()}
    return {
        part: [e._replace(features=features.unplaced(e.features)) for e in each] if part > Slice.MEMBERS else each
        for part, each in made.items()
    }


@pytest.fixture(scope="module")
def fitted(slices: dict[Slice, list[Example]], space: np.ndarray) -> tuple[Members, list[str]]:
    said: list[str] = []
    return fit.fit_members(slices, space, CONFIG, CPU, said.append), said


def ndcg(scores: list[np.ndarray], examples: list[Example]) -> float:
    return float(np.nanmean(evaluate.per_request_ndcg(scores, examples)))


def test_every_member_and_fusion_learns(
    fitted: tuple[Members, list[str]], slices: dict[Slice, list[Example]], space: np.ndarray
) -> None:
    held = slices[Slice.VALIDATE]
    scored = evaluate.scores_of(fitted[0], held, space)
    chance = ndcg([np.random.default_rng(i).random(LIST) for i in range(len(held))], held)
    for name in ("trees", *KINDS):
        assert ndcg(scored[name], held) > chance + 0.1, name


def quality(**gains: float) -> dict[str, np.ndarray]:
    """NDCG of 200 requests by fusion: some noise of its own, and so much more than the weighted one has."""
    rng = np.random.default_rng(0)
    base = rng.random(200)
    return {kind: base + gains.get(kind, 0.0) + 0.05 * rng.normal(size=200) for kind in KINDS}


def test_weighted_stays_unless_another_is_better_beyond_chance() -> None:
    chosen, reason = fit._choose(quality(stacking=0.002, rank=-0.3))
    assert chosen == "weighted"
    assert "no other is better on the validation slice beyond chance (NDCG@10: weighted 0." in reason


@pytest.mark.parametrize("gains", [{"residual": 0.05}, {"residual": 0.2, "stacking": 0.1}])
def test_what_is_best_beyond_chance_is_chosen(gains: dict[str, float]) -> None:
    values = quality(**gains)
    # A list without a gain has no NDCG.
    for each in values.values():
        each[:20] = np.nan
    chosen, reason = fit._choose(values)
    assert chosen == "residual"
    assert "beyond chance" in reason


def test_the_fusion_is_chosen_and_calibrated_on_the_validation_slice(
    fitted: tuple[Members, list[str]], slices: dict[Slice, list[Example]], space: np.ndarray
) -> None:
    members, said = fitted
    held = slices[Slice.VALIDATE]
    scored = evaluate.scores_of(members, held, space)
    expected, reason = fit._choose({kind: evaluate.per_request_ndcg(scored[kind], held) for kind in KINDS})
    assert members.fusion.kind == expected
    assert said[-1] == f"fusion: {expected}, {reason}; alpha {members.fusion.alpha:.3f}"
    assert set(members.fusion.calibration) == set(members.fusion.thresholds) == set(scored)
    for name, scores in scored.items():
        probabilities = members.fusion.probabilities(name, np.concatenate(scores))
        assert probabilities.mean() == pytest.approx(1 / LIST, abs=0.01), name


def test_the_same_lists_give_the_same_members(
    fitted: tuple[Members, list[str]], slices: dict[Slice, list[Example]], space: np.ndarray
) -> None:
    again = fit.fit_members(slices, space, CONFIG, CPU, lambda _: None)
    assert again.fusion == fitted[0].fusion


def test_out_of_fold_scores_are_by_members_that_saw_other_lists(
    slices: dict[Slice, list[Example]], space: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, later = slices[Slice.MEMBERS][:31], slices[Slice.CALIBRATE]
    seen: list[set[int]] = []
    scored: list[list[int]] = []
    grown: list[np.ndarray] = []

    def fit_network(rest: list[Example], *_: Any) -> None:
        seen.append({id(example.rows) for example in rest})

    def logits(_: None, held_out: list[Example], *__: Any) -> list[np.ndarray]:
        scored.append([id(example.rows) for example in held_out])
        # Scored as serving sees them: at the first place.
        assert all((example.features[:, POSITION] == 0).all() for example in held_out)
        return [np.full(LIST, float(len(scored)))] * len(held_out)

    def fit_trees(rest: Rows, *_: Any) -> None:
        grown.append(rest.features)

    def score(_: None, matrix: np.ndarray) -> np.ndarray:
        assert (matrix[:, POSITION] == 0).all()
        return matrix[:, SIGNAL].astype(np.float64)

    monkeypatch.setattr(fit, "fit_network", fit_network)
    monkeypatch.setattr(fit, "logits", logits)
    monkeypatch.setattr(fit.trees, "fit_trees", fit_trees)
    monkeypatch.setattr(fit.trees, "score", score)
    out = fit._out_of_fold(train, later, space, CONFIG, CPU)
    assert [len(block) for block in scored] == [16, 15]
    assert [each for block in scored for each in block] == [id(example.rows) for example in train]
    for block, others in zip(scored, seen, strict=True):
        assert others == {id(example.rows) for example in train} - set(block)
    assert [values[0] for values in out.network] == [1.0] * 16 + [2.0] * 15
    for some, matrix in zip((train[16:], train[:16]), grown, strict=True):
        np.testing.assert_array_equal(matrix, np.concatenate([example.features for example in some]))
    for example, scores in zip(train, out.trees, strict=True):
        np.testing.assert_array_equal(scores, example.features[:, SIGNAL])


def test_alpha_heeds_the_long_slice_of_the_members(
    fitted: tuple[Members, list[str]], slices: dict[Slice, list[Example]], space: np.ndarray
) -> None:
    """A calibration slice of three lists says next to nothing: what the members' lists say decides."""
    members = lists(1_500, int(Slice.MEMBERS))
    few = slices | {Slice.MEMBERS: members, Slice.CALIBRATE: slices[Slice.CALIBRATE][:3]}
    rng = np.random.default_rng(0)
    signal = [example.features[:, SIGNAL].astype(np.float64) for example in members]
    vague = [each + 2 * rng.normal(size=LIST) for each in signal]
    alphas = [
        fit._alpha(fitted[0], fit._Scores(*pair), few, space, CONFIG) for pair in ((signal, vague), (vague, signal))
    ]
    assert alphas[0] > 0.8
    assert alphas[1] < 0.2


def test_some_logits_are_hidden_by_whole_lists() -> None:
    scores = [np.full(3, float(i)) for i in range(400)]
    hidden = fit._hidden(scores, seed=0)
    gone = [np.isnan(each).all() for each in hidden]
    assert np.mean(gone) == pytest.approx(fit._HIDDEN, abs=0.05)
    for before, after, without in zip(scores, hidden, gone, strict=True):
        assert without or np.array_equal(before, after)
    assert not any(np.isnan(each).any() for each in scores)


def test_without_the_logit_the_stacked_trees_still_rank(
    fitted: tuple[Members, list[str]], slices: dict[Slice, list[Example]], space: np.ndarray
) -> None:
    members = replace(fitted[0], fusion=fitted[0].fusion._replace(kind="stacking"))
    held = slices[Slice.VALIDATE]
    matrix = np.concatenate([example.features for example in held])
    alone = np.split(members._without_network(matrix), len(held))
    scored = evaluate.scores_of(members, held, space)
    assert ndcg(alone, held) > ndcg(scored["trees"], held) - 0.1
