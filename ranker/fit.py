"""Fit the members and their fusion on the slices of the log."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from indexer.arrays import Array, Doubles, Floats, Ints
from ranker import evaluate, features, ranked, trees
from ranker.boosted import Trees
from ranker.config import RankerConfig
from ranker.examples import Example, Slice, as_shown, thinned
from ranker.fusion import KINDS, Fusion, best_threshold, fit_alpha, fit_isotonic, fit_platt
from ranker.model import Members, stacked_features
from ranker.significance import paired
from ranker.stages import Say
from ranker.train_network import fit_network, logits, train_network
from ranker.trees import Rows, rows_of
from ranker.weights import weights_of

_FOLDS = 2
# Share of the lists whose logit is hidden from the stacked trees, so that they can do without it when time is short.
_HIDDEN = 0.15

# For how many lists of the members' slice one of the calibration slice counts at most when alpha is fitted: a few lists
# must not outvote all others.
_MOST_COUNTED = 10.0

# The columns of the trees that read the DNN's score.
_READING = (*features.NAMES, "network_logit")
_CPU = torch.device("cpu")

# The level at which another fusion than `weighted` is chosen.
_CHANCE = 0.05


class _Scores(NamedTuple):
    """Scores of some lists by each member."""

    network: list[Doubles]
    trees: list[Doubles]


class _Fit(NamedTuple):
    """Members fitted on MEMBERS, how long the DNN was trained, and its logits of MEMBERS out of fold."""

    members: Members
    parts: int
    outside: list[Doubles]


def fit_members(
    slices: Mapping[Slice, list[Example]], space: Floats, config: RankerConfig, device: torch.device, say: Say
) -> Members:
    """Fit the members twice: to find how long and how to fuse them, then as long on all lists before the test slice.

    What is found, a first fit finds on lists that it was not fitted on. The newest lists tell most of what comes next,
    so the members that rank have learned from them too.
    """
    first = _first_fit(slices, space, config, device, say)
    say("the members once more, with the lists that they were stopped, calibrated and fused on")
    return _fitted_again(first, slices, space, config, device)


def _first_fit(
    slices: Mapping[Slice, list[Example]], space: Floats, config: RankerConfig, device: torch.device, say: Say
) -> _Fit:
    """Fit on MEMBERS, stopped on CALIBRATE, then calibrate and fuse."""
    fit, later = [as_shown(e) for e in slices[Slice.MEMBERS]], slices[Slice.CALIBRATE]
    network, parts = fit_network(fit, later, space, config, device, say)
    say("trees")
    plain = trees.fit_trees(_rows(fit), _rows(later), features.NAMES, config)
    say("out-of-fold scores of the DNN and the trees, then trees that read or correct the DNN's")
    outside = _out_of_fold(slices[Slice.MEMBERS], later, space, config, device)
    inside = logits(network, later, space, _CPU)
    stacked = trees.fit_trees(_rows(fit, _hidden(outside.network, config.seed)), _rows(later, inside), _READING, config)
    log_odds = {
        "network": fit_platt(np.concatenate(inside), _positive(later, config)),
        "trees": fit_platt(trees.score(plain, _rows(later).features), _positive(later, config)),
    }
    starts = [log_odds["network"].log_odds(np.concatenate(each)) for each in (outside.network, inside)]
    residual = trees.fit_trees(
        _rows(fit)._replace(start=starts[0]), _rows(later)._replace(start=starts[1]), features.NAMES, config
    )
    unfitted = Fusion("weighted", 0.5, log_odds, {}, {})
    unfused = Members(weights_of(network), Trees.of(plain), Trees.of(stacked), Trees.of(residual), unfitted)
    fusion = _fit_fusion(unfused, outside, slices, space, config, say)
    return _Fit(replace(unfused, fusion=fusion), parts, outside.network)


def _fitted_again(
    first: _Fit, slices: Mapping[Slice, list[Example]], space: Floats, config: RankerConfig, device: torch.device
) -> Members:
    """Members fitted on MEMBERS, CALIBRATE and VALIDATE for as long as the first ones, and fused as those are."""
    members = first.members
    newer = [thinned(example) for part in (Slice.CALIBRATE, Slice.VALIDATE) for example in slices[part]]
    whole = [as_shown(example) for example in (*slices[Slice.MEMBERS], *newer)]
    scores = [*first.outside, *logits(members.network, newer, space, _CPU)]
    rows = _rows(whole)

    def grown(rows: Rows, names: Sequence[str], before: Trees) -> Trees:
        return Trees.of(trees.grow_trees(rows, before.booster.num_trees(), names, config))

    return Members(
        weights_of(train_network(whole, first.parts, space, config, device)),
        grown(rows, features.NAMES, members.trees),
        grown(_rows(whole, _hidden(scores, config.seed)), _READING, members.stacked),
        grown(rows._replace(start=members.start(np.concatenate(scores))), features.NAMES, members.residual),
        members.fusion,
    )


def _rows(examples: Sequence[Example], extra: Sequence[Doubles] | None = None) -> Rows:
    """All rows of the examples, with one more column where `extra` is given."""
    rows = rows_of(examples)
    return rows if extra is None else rows._replace(features=stacked_features(rows.features, np.concatenate(extra)))


def _positive(examples: Sequence[Example], config: RankerConfig) -> Array:
    return np.concatenate([example.grades for example in examples]) >= config.positive_grade


def _hidden(scores: Sequence[Doubles], seed: int) -> list[Doubles]:
    hidden = np.random.default_rng(seed).random(len(scores)) < _HIDDEN
    return [np.full(len(s), np.nan) if hide else s for s, hide in zip(scores, hidden, strict=True)]


def _out_of_fold(
    fit: Sequence[Example], later: Sequence[Example], space: Floats, config: RankerConfig, device: torch.device
) -> _Scores:
    """Scores of each list by members that were not fitted on it; a fold is a block of whole requests."""
    out = _Scores([], [])
    for block in np.array_split(np.arange(len(fit)), _FOLDS):
        held_out = fit[block[0] : block[-1] + 1]
        rest = [as_shown(example) for example in (*fit[: block[0]], *fit[block[-1] + 1 :])]
        network = fit_network(rest, later, space, config, device, lambda _: None).network
        plain = trees.fit_trees(_rows(rest), _rows(later), features.NAMES, config)
        out.network.extend(logits(network, held_out, space, _CPU))
        out.trees.extend(_by_list(trees.score(plain, _rows(held_out).features), held_out))
    return out


def _by_list(scores: Doubles, examples: Sequence[Example]) -> list[Doubles]:
    return np.split(scores, np.cumsum([len(example.rows) for example in examples])[:-1])


def _fit_fusion(
    members: Members,
    outside: _Scores,
    slices: Mapping[Slice, list[Example]],
    space: Floats,
    config: RankerConfig,
    say: Say,
) -> Fusion:
    """Weigh on MEMBERS and CALIBRATE; choose by NDCG@10, calibrate and set thresholds on VALIDATE."""
    validate = slices[Slice.VALIDATE]
    fusion = members.fusion._replace(alpha=_alpha(members, outside, slices, space, config))
    scores = evaluate.scores_of(replace(members, fusion=fusion), validate, space)
    quality = {kind: evaluate.per_request_ndcg(scores[kind], validate) for kind in KINDS}
    chosen, reason = _choose(quality, ranked.numbered([example.user for example in validate]))
    say(f"fusion: {chosen}, {reason}; alpha {fusion.alpha:.3f}")
    positive = _positive(validate, config)
    calibration = {name: fit_isotonic(np.concatenate(s), positive) for name, s in scores.items()}
    thresholds = {name: best_threshold(calibration[name](np.concatenate(scores[name])), positive) for name in scores}
    return fusion._replace(kind=chosen, calibration=calibration, thresholds=thresholds)


def _alpha(
    members: Members,
    outside: _Scores,
    slices: Mapping[Slice, list[Example]],
    space: Floats,
    config: RankerConfig,
) -> float:
    """Fitted on the log-odds of CALIBRATE, and of MEMBERS out of fold: CALIBRATE alone is some hundred lists.

    Members of a fold have other scales than those of the whole slice, so each slice has a calibration of its own. They
    were fitted on half as much as those that rank, so a list of CALIBRATE counts for several of MEMBERS. What is found
    goes half of the way from equal weights: fitted weights are noise where the members are nearly as good, and the mean
    is hard to beat (the forecast combination puzzle, Smith and Wallis 2009).
    """
    fit, later = slices[Slice.MEMBERS], slices[Slice.CALIBRATE]
    scored = evaluate.scores_of(members, later, space)
    inside = _Scores(scored["network"], scored["trees"])
    odds = [_log_odds(fit, outside, config), _log_odds(later, inside, config)]
    network, plain = ([z for each in odds for z in each[member]] for member in (0, 1))
    weights = [*_counts(fit, 1.0), *_counts(later, min(max(len(fit) / len(later), 1.0), _MOST_COUNTED))]
    return (0.5 + fit_alpha(network, plain, [example.grades for example in (*fit, *later)], weights)) / 2


def _counts(examples: Sequence[Example], each: float) -> list[Doubles | float]:
    """What the rows of each list count, where a list counts `each`."""
    return [each if example.weights is None else each * example.weights for example in examples]


def _log_odds(examples: Sequence[Example], scores: _Scores, config: RankerConfig) -> _Scores:
    positive = _positive(examples, config)
    fitted = [fit_platt(np.concatenate(each), positive) for each in scores]
    return _Scores(*([platt.log_odds(s) for s in each] for platt, each in zip(fitted, scores, strict=True)))


def _choose(quality: Mapping[str, Doubles], users: Ints) -> tuple[str, str]:
    """The fusion of the best mean NDCG@10, and why; `weighted` unless another beats it by more than chance.

    `quality` holds NDCG@10 of each validation request, `users` a number for who asked. The best of four on a few
    hundred requests is often the luckiest: the simplest one, with one fitted number, stays unless a paired test (Holm,
    5 %) speaks against it.
    """
    means = {kind: float(np.nanmean(values)) for kind, values in quality.items()}
    told = ", ".join(f"{kind} {mean:.4f}" for kind, mean in means.items())
    others = [kind for kind in quality if kind != "weighted"]
    differences = paired(quality["weighted"], np.column_stack([quality[kind] for kind in others]), users)
    better = [kind for kind, d in zip(others, differences, strict=True) if d.mean < 0 and d.p_holm < _CHANCE]
    if better:
        chosen = max(better, key=lambda kind: means[kind])
        return chosen, f"better than weighted on the validation slice beyond chance (NDCG@10: {told})"
    return "weighted", f"no other is better on the validation slice beyond chance (NDCG@10: {told})"
