"""Fitting the members: logits that no list was fitted on, and a fusion chosen on lists that nothing else saw."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ranker import evaluate, features, fit, ranked
from ranker.config import RankerConfig
from ranker.examples import Example, Slice
from ranker.features import NAMES, Context
from ranker.fusion import KINDS
from ranker.history import EMPTY
from ranker.model import Members
from ranker.train_network import Fitted
from ranker.trees import Rows

CPU = torch.device("cpu")
SPACE, LIST = 8, 12
CONFIG = RankerConfig(trees=40, leaves=7, network_epochs=2)
SIGNAL, POSITION = NAMES.index("bm25"), NAMES.index("position")


@pytest.fixture(scope="module")
def space() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(LIST, SPACE)).astype(np.float32)


def lists(count: int, seed: int) -> list[Example]:
    """Lists in which one feature tells what was clicked, and the places they were shown at."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        matrix = rng.normal(size=(LIST, len(NAMES))).astype(np.float32)
        matrix[:, POSITION] = 0.0
        grades = np.zeros(LIST)
        grades[(2 * matrix[:, SIGNAL] + rng.gumbel(size=LIST)).argmax()] = 1.0
        context, places = Context(0.0, EMPTY), np.arange(1, LIST + 1)
        made.append(
            Example(context, places - 1, matrix, grades, np.empty(0), np.empty(0), answered=False, positions=places)
        )
    return made


@pytest.fixture(scope="module")
def slices() -> dict[Slice, list[Example]]:
    counts = {Slice.TOWER: 0, Slice.MEMBERS: 150, Slice.CALIBRATE: 60, Slice.VALIDATE: 60, Slice.TEST: 0}
    return {part: lists(count, int(part)) for part, count in counts.items()}


@pytest.fixture(scope="module")
def first(slices: dict[Slice, list[Example]], space: np.ndarray) -> tuple[fit._Fit, list[str]]:
    said: list[str] = []
    return fit._first_fit(slices, space, CONFIG, CPU, said.append), said


@pytest.fixture(scope="module")
def fitted(slices: dict[Slice, list[Example]], space: np.ndarray) -> Members:
    return fit.fit_members(slices, space, CONFIG, CPU, lambda _: None)


def ndcg(scores: list[np.ndarray], examples: list[Example]) -> float:
    return float(np.nanmean(evaluate.per_request_ndcg(scores, examples)))


def test_every_member_and_fusion_learns(first: tuple[fit._Fit, list[str]], fitted: Members, space: np.ndarray) -> None:
    held = lists(60, 99)
    chance = ndcg([np.random.default_rng(i).random(LIST) for i in range(len(held))], held)
    for members in (first[0].members, fitted):
        scored = evaluate.scores_of(members, held, space)
        for name in ("trees", *KINDS):
            assert ndcg(scored[name], held) > chance + 0.1, name


def test_the_second_fit_learns_as_long_from_all_lists_before_the_test(
    first: tuple[fit._Fit, list[str]],
    fitted: Members,
    slices: dict[Slice, list[Example]],
    space: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    once, again = first[0].members, fitted
    assert again.fusion == once.fusion
    for name in ("trees", "stacked", "residual"):
        before, after = (getattr(members, name).booster for members in (once, again))
        assert after.num_trees() == before.num_trees()
        assert after.model_to_string() != before.model_to_string()
    taken: list[tuple[Any, ...]] = []

    def train_network(whole: list[Example], parts: int, *_: Any) -> Any:
        taken.append((whole, parts))
        return train(whole, parts, space, CONFIG, CPU)

    train = fit.train_network
    monkeypatch.setattr(fit, "train_network", train_network)
    fit._fitted_again(first[0], slices, space, CONFIG, CPU)
    ((whole, parts),) = taken
    assert parts == first[0].parts >= 1
    wanted = [e for part in (Slice.MEMBERS, Slice.CALIBRATE, Slice.VALIDATE) for e in slices[part]]
    assert len(whole) == len(wanted)
    for given, example in zip(whole, wanted, strict=True):
        # At the places where its rows were shown, in the newer slices too.
        np.testing.assert_array_equal(given.features[:, POSITION], np.log(example.positions).astype(np.float32))
        np.testing.assert_array_equal(given.grades, example.grades)


def turned(examples: list[Example]) -> list[Example]:
    """Lists in which the opposite of the signal was clicked."""
    sign = np.where(np.arange(len(NAMES)) == SIGNAL, -1, 1).astype(np.float32)
    return [example._replace(features=example.features * sign) for example in examples]


def test_the_second_fit_learns_what_is_new(slices: dict[Slice, list[Example]], space: np.ndarray) -> None:
    """After the members' slice clicks follow the opposite: the second fit has seen it, the first has not."""
    changed = slices | {part: turned(lists(400, 7 + part)) for part in (Slice.CALIBRATE, Slice.VALIDATE)}
    test = turned(lists(60, 99))
    # All trees are grown: they would stop at once.
    config = CONFIG.model_copy(update={"tree_patience": 0})
    first = fit._first_fit(changed, space, config, CPU, lambda _: None)
    again = fit._fitted_again(first, changed, space, config, CPU)
    before, after = (evaluate.scores_of(members, test, space)["trees"] for members in (first.members, again))
    assert ndcg(after, test) > ndcg(before, test) + 0.2


def quality(**gains: float) -> dict[str, np.ndarray]:
    """NDCG of 200 requests by fusion: some noise of its own, and so much more than the weighted one has."""
    rng = np.random.default_rng(0)
    base = rng.random(200)
    return {kind: base + gains.get(kind, 0.0) + 0.05 * rng.normal(size=200) for kind in KINDS}


def test_weighted_stays_unless_another_is_better_beyond_chance() -> None:
    chosen, reason = fit._choose(quality(stacking=0.002, rank=-0.3), np.arange(200))
    assert chosen == "weighted"
    assert "no other is better on the validation slice beyond chance (NDCG@10: weighted 0." in reason


@pytest.mark.parametrize("gains", [{"residual": 0.05}, {"residual": 0.2, "stacking": 0.1}])
def test_what_is_best_beyond_chance_is_chosen(gains: dict[str, float]) -> None:
    values = quality(**gains)
    # A list without a gain has no NDCG.
    for each in values.values():
        each[:20] = np.nan
    chosen, reason = fit._choose(values, np.arange(200))
    assert chosen == "residual"
    assert "beyond chance" in reason


def test_the_fusion_is_chosen_and_calibrated_on_the_validation_slice(
    first: tuple[fit._Fit, list[str]], slices: dict[Slice, list[Example]], space: np.ndarray
) -> None:
    (members, *_), said = first
    held = slices[Slice.VALIDATE]
    scored = evaluate.scores_of(members, held, space)
    quality = {kind: evaluate.per_request_ndcg(scored[kind], held) for kind in KINDS}
    expected, reason = fit._choose(quality, ranked.numbered([example.user for example in held]))
    assert members.fusion.kind == expected
    assert said[-1] == f"fusion: {expected}, {reason}; alpha {members.fusion.alpha:.3f}"
    assert set(members.fusion.calibration) == set(members.fusion.thresholds) == set(scored)
    for name, scores in scored.items():
        probabilities = members.fusion.probabilities(name, np.concatenate(scores))
        assert probabilities.mean() == pytest.approx(1 / LIST, abs=0.01), name


def test_the_same_lists_give_the_same_members(
    fitted: Members, slices: dict[Slice, list[Example]], space: np.ndarray
) -> None:
    again = fit.fit_members(slices, space, CONFIG, CPU, lambda _: None)
    assert again.fusion == fitted.fusion
    for name, weight in fitted.weights.items():
        np.testing.assert_array_equal(again.weights[name], weight)
    for name in ("trees", "stacked", "residual"):
        one, other = (getattr(members, name).booster.model_to_string() for members in (fitted, again))
        assert one == other


def test_out_of_fold_scores_are_by_members_that_saw_other_lists(
    slices: dict[Slice, list[Example]], space: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, later = slices[Slice.MEMBERS][:31], slices[Slice.CALIBRATE]
    seen: list[set[int]] = []
    scored: list[list[int]] = []
    grown: list[np.ndarray] = []

    def fit_network(rest: list[Example], *_: Any) -> Fitted:
        seen.append({id(example.rows) for example in rest})
        return Fitted(None, 1)  # type: ignore[arg-type]

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
        shown = np.concatenate([features.placed(example.features, example.positions) for example in some])
        np.testing.assert_array_equal(matrix, shown)
    for example, scores in zip(train, out.trees, strict=True):
        np.testing.assert_array_equal(scores, example.features[:, SIGNAL])


def test_alpha_heeds_the_long_slice_of_the_members(
    fitted: Members, slices: dict[Slice, list[Example]], space: np.ndarray
) -> None:
    """A calibration slice of three lists says next to nothing: what the members' lists say decides."""
    members = lists(1_500, int(Slice.MEMBERS))
    few = slices | {Slice.MEMBERS: members, Slice.CALIBRATE: slices[Slice.CALIBRATE][:3]}
    rng = np.random.default_rng(0)
    signal = [example.features[:, SIGNAL].astype(np.float64) for example in members]
    vague = [each + 2 * rng.normal(size=LIST) for each in signal]
    alphas = [fit._alpha(fitted, fit._Scores(*pair), few, space, CONFIG) for pair in ((signal, vague), (vague, signal))]
    assert alphas[0] > 0.62
    assert alphas[1] < 0.38


def test_some_logits_are_hidden_by_whole_lists() -> None:
    scores = [np.full(3, float(i)) for i in range(400)]
    hidden = fit._hidden(scores, seed=0)
    gone = [np.isnan(each).all() for each in hidden]
    assert np.mean(gone) == pytest.approx(fit._HIDDEN, abs=0.05)
    for before, after, without in zip(scores, hidden, gone, strict=True):
        assert without or np.array_equal(before, after)
    assert not any(np.isnan(each).any() for each in scores)


def test_without_the_logit_the_stacked_trees_still_rank(
    fitted: Members, slices: dict[Slice, list[Example]], space: np.ndarray
) -> None:
    members = replace(fitted, fusion=fitted.fusion._replace(kind="stacking"))
    held = slices[Slice.VALIDATE]
    matrix = np.concatenate([example.features for example in held])
    alone = np.split(members._without_network(matrix), len(held))
    scored = evaluate.scores_of(members, held, space)
    assert ndcg(alone, held) > ndcg(scored["trees"], held) - 0.1
