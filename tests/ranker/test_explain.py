"""Why a row has its score: what is told of a row adds up to what it was ranked by."""

from dataclasses import replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from indexer.arrays import Doubles, Floats
from ranker import features
from ranker.behaviour import Behaviour
from ranker.boosted import Trees
from ranker.explain import NETWORK, RECALL, Evidence, Prior, explain
from ranker.fusion import Platt
from ranker.history import CLICK, VIEW, History
from ranker.model import Members, Scores, stacked_features
from ranker.scoring import Scorable

NOW = 1_800_000_000.0


@pytest.fixture
def item(shop: Any) -> Scorable:
    model = shop.model
    vector = shop.encoder.encode(["hiking boot"])[0]
    history = History((3, 5), (VIEW, CLICK), (NOW - 90_000, NOW - 60))
    context = model.space.context(NOW, history, "hiking boot", vector)
    rows = np.random.default_rng(0).choice(len(shop.snapshot), 40, replace=False)
    return Scorable(context, rows, features.matrix(context, rows, model.catalogue, Behaviour(len(shop.snapshot))))


def of_kind(shop: Any, kind: str) -> Members:
    """The shop's members, fused in this way; calibrations, alpha and stacked trees such that every part counts."""
    members, log_odds = shop.model.members, {"network": Platt(0.7, -0.4), "trees": Platt(1.3, 0.2)}
    return replace(
        members,
        stacked=reading_the_logit(),
        fusion=members.fusion._replace(kind=kind, alpha=0.3, log_odds=log_odds),
    )


def reading_the_logit() -> Trees:
    """Trees over the features and the logit that split on the logit and on one feature; the small shop's own do not."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(scale=3, size=(500, len(features.NAMES) + 1))
    price = features.NAMES.index("log_price")
    wanted = matrix[:, -1] + matrix[:, price]
    return Trees.of(lgb.train({"verbosity": -1, "num_leaves": 7}, lgb.Dataset(matrix, wanted), 10))


def scores(shop: Any, members: Members, item: Scorable, **how: Any) -> Scores:
    (made,) = members.score([item], shop.model.space.vectors, **how)
    return made


def evidence(item: Scorable, network: Doubles | None) -> Evidence:
    return Evidence(item.features, network, 0.0 if network is None else float(network.mean()))


def total(told: Any) -> Floats:
    return np.asarray(told.base + told.contributions.sum(1))


@pytest.mark.parametrize("kind", ["weighted", "stacking", "residual"])
def test_the_parts_add_up_to_the_fused_score(shop: Any, item: Scorable, kind: str) -> None:
    members = of_kind(shop, kind)
    made = scores(shop, members, item)
    told = explain(members, evidence(item, made.network))
    assert told.fused
    np.testing.assert_allclose(total(told), made.fused, atol=1e-6)
    assert told.names == (*features.NAMES, NETWORK)
    np.testing.assert_array_equal(told.values, stacked_features(item.features, made.network))
    assert np.ptp(told.contributions[:, -1]) > 0
    assert np.abs(told.contributions[:, :-1]).sum() > 0


@pytest.mark.parametrize("kind", ["weighted", "residual"])
def test_the_network_counts_against_the_lists_mean(shop: Any, item: Scorable, kind: str) -> None:
    members = of_kind(shop, kind)
    made = scores(shop, members, item)
    share = 0.3 if kind == "weighted" else 1.0
    wanted = share * 0.7 * (made.network - np.mean(made.network))
    told = explain(members, evidence(item, made.network))
    np.testing.assert_allclose(told.contributions[:, -1], wanted, atol=1e-12)
    # A page of the list is explained by the whole list's mean.
    page = explain(members, Evidence(item.features[:5], made.network[:5], float(made.network.mean())))
    np.testing.assert_allclose(page.contributions, told.contributions[:5], atol=1e-9)
    assert page.base == pytest.approx(told.base)


def test_ranks_add_up_to_nothing_so_the_trees_are_explained(shop: Any, item: Scorable) -> None:
    members = of_kind(shop, "rank")
    made = scores(shop, members, item)
    told = explain(members, evidence(item, made.network))
    assert not told.fused
    np.testing.assert_allclose(total(told), made.trees, atol=1e-6)
    assert told.names == features.NAMES


@pytest.mark.parametrize("kind", ["weighted", "stacking", "residual", "rank"])
def test_without_the_network_the_trees_that_ranked_are_explained(shop: Any, item: Scorable, kind: str) -> None:
    members = of_kind(shop, kind)
    made = scores(shop, members, item, skip_network=True)
    told = explain(members, evidence(item, None))
    assert told.fused
    np.testing.assert_allclose(total(told), made.fused, atol=1e-6)


@pytest.mark.parametrize("kind", ["weighted", "stacking", "residual", "rank"])
def test_the_place_of_recall_is_a_part_of_its_own(shop: Any, item: Scorable, kind: str) -> None:
    """Where the fused score is explained, what the recall's order added stands beside the rest."""
    members = of_kind(shop, kind)
    made = scores(shop, members, item)
    ranks = np.arange(1, len(made.fused) + 1)
    prior = members.fusion.prior(-ranks.astype(float), network=True)
    plain = evidence(item, made.network)
    told = explain(members, plain._replace(recall=Prior(ranks, prior)))
    if kind == "rank":
        assert told.names == features.NAMES
        return
    np.testing.assert_allclose(total(told), made.fused + prior, atol=1e-6)
    assert told.names[-1] == RECALL
    np.testing.assert_array_equal(told.values[:, -1], ranks)
    np.testing.assert_array_equal(told.contributions[:, -1], prior)
    np.testing.assert_array_equal(told.contributions[:, :-1], explain(members, plain).contributions)


def test_what_no_tree_reads_adds_nothing(shop: Any, item: Scorable) -> None:
    members = of_kind(shop, "weighted")
    told = explain(members, evidence(item, scores(shop, members, item).network))
    splits = members.trees.booster.feature_importance("split")
    assert (splits == 0).any()
    assert not told.contributions[:, :-1][:, splits == 0].any()
