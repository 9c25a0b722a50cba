"""A trained model: scoring, saving, and the partners it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightgbm as lgb
import numpy as np
import pytest
import torch

from indexer.build import build_index
from indexer.encoder import Encoder
from indexer.errors import SnapshotError
from indexer.snapshot import open_latest
from indexer.store import Store
from ranker import features
from ranker.behaviour import Behaviour
from ranker.boosted import Trees
from ranker.card_network import CardNetwork
from ranker.compiled_network import CompiledNetwork
from ranker.ease import Ease
from ranker.fusion import KINDS, by_rank
from ranker.history import CLICK, EMPTY, VIEW, History
from ranker.log import Sources
from ranker.model import Members, Model, load_model, stacked_features
from ranker.network import Network, network_of
from ranker.network_choice import SharedNetwork
from ranker.scoring import Scorable
from ranker.weights import Weights

NOW = 1_800_000_000.0


@pytest.fixture
def lists(shop: Any) -> list[Scorable]:
    """Requests with and without a query and a history, of different lengths."""
    model: Model = shop.model
    behaviour = Behaviour(len(shop.snapshot))
    rng = np.random.default_rng(0)
    made = []
    for count, history, query in (
        (30, EMPTY, "hiking boot"),
        (1, History((3, 5), (VIEW, CLICK), (NOW - 90_000, NOW - 60)), ""),
        (50, History((9,), (VIEW,), (NOW - 60,)), "coffee"),
    ):
        vector = shop.encoder.encode([query])[0] if query else None
        context = model.space.context(NOW, history, query, vector)
        rows = rng.choice(len(shop.snapshot), count, replace=False)
        made.append(Scorable(context, rows, features.matrix(context, rows, model.catalogue, behaviour)))
    return made


def test_scores_of_each_list(shop: Any, lists: list[Scorable]) -> None:
    scores = shop.model.members.score(lists, shop.model.space.vectors)
    assert [len(each.fused) for each in scores] == [len(each.network) for each in scores] == [30, 1, 50]
    assert all(each.fused.dtype == each.network.dtype == np.float64 for each in scores)
    assert all(np.isfinite(each.fused).all() for each in scores)
    assert np.ptp(np.concatenate([each.fused for each in scores])) > 0
    assert shop.model.members.score([], shop.model.space.vectors) == []


def test_a_batch_scores_as_each_list_alone(shop: Any, lists: list[Scorable]) -> None:
    members, vectors = shop.model.members, shop.model.space.vectors
    for together, item in zip(members.score(lists, vectors), lists, strict=True):
        (alone,) = members.score([item], vectors)
        np.testing.assert_allclose(together.network, alone.network, atol=1e-5)
        np.testing.assert_allclose(together.fused, alone.fused, atol=1e-5)


def test_the_network_is_served_where_the_configuration_says(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(shop.model.members.compiled_network) is CompiledNetwork
    asked: list[tuple[Any, ...]] = []

    def placed(network: Network, *given: Any) -> CompiledNetwork:
        asked.append(given)
        return CompiledNetwork.of(network)

    monkeypatch.setattr("ranker.network_choice.on_card", placed)
    monkeypatch.setattr("ranker.model.card", lambda wanted: torch.device("cuda", 3) if wanted == "cpu" else None)
    model = shop.load(shop.model.id)
    [(space, rows, device)] = asked
    assert space is model.space.vectors
    assert (rows, device) == (50, torch.device("cuda:3"))


def test_members_score_with_what_serves_their_network(shop: Any, lists: list[Scorable]) -> None:
    """All of the way that a card's logits take, on the CPU and in float32."""
    space = shop.model.space.vectors

    def compiled(weights: Weights) -> SharedNetwork:
        network = network_of(weights, features.PLACE)
        card = CardNetwork(network, space, torch.device("cpu"), torch.float32, 50)
        return SharedNetwork(card, CompiledNetwork.of(network), 1)

    pairs = zip(
        replace(shop.model.members, compile=compiled).score(lists, space),
        shop.model.members.score(lists, space),
        strict=True,
    )
    for mine, expected in pairs:
        np.testing.assert_allclose(mine.network, expected.network, atol=1e-5)
        np.testing.assert_allclose(mine.fused, expected.fused, atol=1e-4)


def fused_by(shop: Any, kind: str) -> Members:
    """The shop's members under another fusion."""
    members: Members = shop.model.members
    return replace(members, fusion=members.fusion._replace(kind=kind))


@pytest.mark.parametrize("kind", KINDS)
def test_fused_is_the_kind_that_was_chosen(shop: Any, lists: list[Scorable], kind: str) -> None:
    members = fused_by(shop, kind)
    for item, scores in zip(lists, members.score(lists, shop.model.space.vectors), strict=True):
        logits, plain = scores.network, members.tree_scores(item.features)
        assert logits is not None
        platt = members.fusion.log_odds["network"]
        expected = {
            "weighted": members.fusion.weighted(logits, plain),
            "stacking": members.stacked.booster.predict(stacked_features(item.features, logits), raw_score=True),
            "residual": platt.slope * logits
            + platt.offset
            + members.residual.booster.predict(item.features, raw_score=True),
            "rank": by_rank(logits, plain),
        }
        np.testing.assert_allclose(scores.fused, expected[kind], rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_network_every_fusion_still_ranks(shop: Any, lists: list[Scorable], kind: str) -> None:
    members = fused_by(shop, kind)
    alone = members.score(lists, shop.model.space.vectors, skip_network=True)
    assert [len(each.fused) for each in alone] == [30, 1, 50]
    assert all(each.network is None and np.isfinite(each.fused).all() for each in alone)
    assert any(np.ptp(each.fused) > 0 for each in alone)
    hidden = np.full(30, np.nan)
    expected = members.tree_scores(lists[0].features)
    if kind == "stacking":
        expected = members.stacked.booster.predict(stacked_features(lists[0].features, hidden), raw_score=True)
    np.testing.assert_allclose(alone[0].fused, expected, rtol=1e-9)
    assert members.score([], shop.model.space.vectors, skip_network=True) == []


@pytest.fixture(scope="module")
def reading() -> lgb.Booster:
    """Stacked trees that read the logit and nothing else; a tenth of it was hidden from them."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(600, len(features.NAMES) + 1))
    answers = matrix[:, -1].copy()
    matrix[rng.random(600) < 0.1, -1] = np.nan
    return lgb.train({"verbosity": -1, "num_threads": 1}, lgb.Dataset(matrix, answers), 20)


@pytest.mark.parametrize("kind", KINDS)
def test_every_fusion_reads_the_logit(shop: Any, lists: list[Scorable], reading: lgb.Booster, kind: str) -> None:
    logits = np.sort(np.random.default_rng(0).normal(size=30)) * 3
    members = replace(fused_by(shop, kind), stacked=Trees.of(reading))
    one, other = (members.fused(kind, lists[0].features, each, [30]) for each in (logits, logits[::-1]))
    assert np.isfinite(one).all()
    assert not np.allclose(one, other)


def test_a_list_is_ranked_by_itself(shop: Any, lists: list[Scorable]) -> None:
    """Reciprocal ranks are of one list each, wherever it lies in a batch."""
    matrix = np.concatenate([lists[0].features, lists[2].features])
    logits = np.random.default_rng(0).normal(size=80)
    members = shop.model.members
    together = members.fused("rank", matrix, logits, [30, 50])
    alone = [members.fused("rank", matrix[part], logits[part], [-1]) for part in (slice(30), slice(30, 80))]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_the_stacked_trees_can_do_without_the_logit(shop: Any, lists: list[Scorable], reading: lgb.Booster) -> None:
    """Where the logit is missing on some rows, the others' scores stay."""
    logits = np.random.default_rng(0).normal(size=30)
    some = np.where(np.arange(30) % 2, np.nan, logits)
    members = replace(shop.model.members, stacked=Trees.of(reading))
    whole, part = (members.fused("stacking", lists[0].features, each, [30]) for each in (logits, some))
    assert np.isfinite(part).all()
    np.testing.assert_array_equal(whole[::2], part[::2])
    assert not np.allclose(whole[1::2], part[1::2])


def test_stacked_features_end_with_the_logit() -> None:
    made = stacked_features(np.zeros((2, 3), np.float32), np.array([0.5, -1.0]))
    assert made.dtype == np.float32
    assert made.tolist() == [[0.0, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, -1.0]]


def test_what_is_loaded_scores_alike(shop: Any, lists: list[Scorable]) -> None:
    one, other = shop.model, shop.load(shop.model.id)
    pairs = zip(
        one.members.score(lists, one.space.vectors), other.members.score(lists, other.space.vectors), strict=True
    )
    assert one.members.fusion == other.members.fusion
    for before, after in pairs:
        np.testing.assert_array_equal(before.fused, after.fused)
        np.testing.assert_array_equal(before.network, after.network)


def test_what_was_fitted_comes_back_from_the_file(shop: Any) -> None:
    """Calibrations, thresholds, recall weights and neighbours are of the numbers they were saved with."""
    folder = shop.store.path("models", shop.model.id)
    fusion, raw = shop.model.members.fusion, json.loads((folder / "fusion.json").read_text())
    scorers = {"network", "trees", "transformer", *KINDS}
    assert set(fusion.calibration) == set(fusion.thresholds) == scorers
    assert set(fusion.log_odds) == {"network", "trees"}
    assert (fusion.kind, fusion.alpha, dict(fusion.thresholds)) == (raw["kind"], raw["alpha"], raw["thresholds"])
    for scorer in scorers:
        assert fusion.calibration[scorer]._asdict() == raw["calibration"][scorer]
        assert 0 <= fusion.probabilities(scorer, np.array([0.3]))[0] <= 1
    recalled = shop.model.manifest["recall"]
    assert (shop.model.retrieval.candidates, shop.model.retrieval.weights) == (50, recalled["weights"])
    assert shop.model.retrieval.covisited is shop.model.catalogue.covisited
    assert len(shop.model.catalogue.covisited.rows) > 0
    for table, file in zip(shop.model.catalogue.ease, Ease._fields, strict=True):
        np.testing.assert_array_equal(table, np.load(folder / f"ease_{file}.npy"))
    assert len(shop.model.catalogue.ease.targets) > 0


def test_members_saved_twice_are_the_same_bytes(shop: Any, tmp_path: Path) -> None:
    published = shop.store.path("models", shop.model.id)
    shop.model.members.save(tmp_path)
    names = (
        "network.safetensors",
        "trees.txt",
        "trees_stacked.txt",
        "trees_residual.txt",
        "fusion.json",
        "schema.json",
    )
    for name in names:
        assert (tmp_path / name).read_bytes() == (published / name).read_bytes(), name


def test_a_loaded_network_is_not_in_training(shop: Any) -> None:
    assert not shop.model.members.network.training
    assert not any(isinstance(m, torch.nn.Dropout) and m.training for m in shop.model.members.network.modules())


def test_catalogue_is_the_snapshots(shop: Any) -> None:
    assert len(shop.model.catalogue.table) == len(shop.snapshot) == len(shop.model.catalogue.space)


def test_another_encoder_is_refused(shop: Any, tmp_path: Path) -> None:
    class Other(type(shop.encoder)):  # type: ignore[misc]
        fingerprint = "fedcba9876543210"

    store = Store(tmp_path)
    build_index(store, shop.indexing, cast(Encoder, Other()), lambda *_: None)
    other = open_latest(store, shop.indexing)
    with pytest.raises(SnapshotError) as refused:
        load_model(shop.store, shop.model.id, other, shop.indexing)
    for name in (shop.model.id, shop.encoder.fingerprint, other.id, "fedcba9876543210", "vitrine train"):
        assert name in str(refused.value)


def test_another_index_is_refused(shop: Any, tmp_path: Path) -> None:
    """The same catalogue and encoder built again: the rows need not be the same products."""
    store = Store(tmp_path)
    build_index(store, shop.indexing, shop.encoder, lambda *_: None)
    other = open_latest(store, shop.indexing)
    with pytest.raises(SnapshotError) as refused:
        load_model(shop.store, shop.model.id, other, shop.indexing)
    for name in (shop.model.id, shop.snapshot.id, other.id, "vitrine train"):
        assert name in str(refused.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda names: (*names, "moon_phase"), "moon_phase"),
        (lambda names: names[1:], features.NAMES[0]),
        (lambda names: names[::-1], "their order"),
    ],
)
def test_another_feature_schema_is_refused(shop: Any, monkeypatch: pytest.MonkeyPatch, change: Any, told: str) -> None:
    trained = features.fingerprint()
    monkeypatch.setattr(features, "NAMES", change(features.NAMES))
    assert features.fingerprint() != trained
    with pytest.raises(SnapshotError) as refused:
        shop.load(shop.model.id)
    for name in (shop.model.id, trained, features.fingerprint(), told, "vitrine train"):
        assert name in str(refused.value)


def test_a_model_without_members_reads_no_features(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fits whatever columns the program makes, but its vectors are still of one index and one encoder."""
    name = shop.train(sources=Sources(None, None))
    monkeypatch.setattr(features, "NAMES", (*features.NAMES, "moon_phase"))
    model = shop.load(name)
    assert model.members is None
    context = model.space.context(NOW, EMPTY, "boot", shop.encoder.encode(["boot"])[0])
    assert len(model.retrieval.recall(context, Behaviour(len(shop.snapshot))).rows) == 50
    store = Store(tmp_path)
    build_index(store, shop.indexing, shop.encoder, lambda *_: None)
    with pytest.raises(SnapshotError, match=shop.snapshot.id):
        load_model(shop.store, name, open_latest(store, shop.indexing), shop.indexing)


def test_schema_lists_the_columns(shop: Any) -> None:
    schema = json.loads((shop.store.path("models", shop.model.id) / "schema.json").read_text())
    assert schema == {"fingerprint": features.fingerprint(), "features": list(features.NAMES)}


def test_a_model_that_is_not_there(shop: Any) -> None:
    with pytest.raises(SnapshotError, match="nowhere"):
        shop.load("nowhere")


@pytest.mark.parametrize("content", [None, b"", b"junk"], ids=["missing", "empty", "junk"])
@pytest.mark.parametrize("name", ["network.safetensors", "fusion.json", "products.npy", "covisited_rows.npy"])
def test_a_damaged_model_is_told_as_such(shop: Any, tmp_path: Path, name: str, content: bytes | None) -> None:
    store = Store(tmp_path)
    folder = store.path("models", shop.model.id)
    shutil.copytree(shop.store.path("models", shop.model.id), folder)
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(SnapshotError, match=f"{shop.model.id} is damaged: "):
        load_model(store, shop.model.id, shop.snapshot, shop.indexing)


def test_a_model_of_a_later_format_is_refused(shop: Any, tmp_path: Path) -> None:
    source = shop.store.path("models", shop.model.id)
    copy = shutil.copytree(source, tmp_path / "models" / shop.model.id)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}))
    with pytest.raises(SnapshotError, match="newer"):
        load_model(Store(tmp_path), shop.model.id, shop.snapshot, shop.indexing)


def test_a_list_of_nothing(shop: Any, lists: list[Scorable]) -> None:
    """A filter may leave no candidate: alone or beside others, that is an empty answer."""
    nothing = lists[0]._replace(rows=lists[0].rows[:0], features=lists[0].features[:0])
    for together in ([nothing], [lists[1], nothing, lists[0]], [nothing, nothing]):
        scores = shop.model.members.score(together, shop.model.space.vectors)
        assert [len(each.fused) for each in scores] == [len(item.rows) for item in together]


def test_what_was_recalled_counts_by_what_the_members_were_fitted_on(shop: Any, lists: list[Scorable]) -> None:
    """Judged lists: as much as the members. Shown ones: a little. Recalled ones, and those of older models: nothing."""
    model: Model = shop.model
    assert model.members is not None
    made = model.members.score(lists[:1], model.space.vectors)[0]
    recalled = np.linspace(1.0, 0.1, len(made.fused))
    names = {"answered": [], "shown": []}

    def served(**kinds: list[str]) -> Any:
        manifest = {**model.manifest, **names, **kinds}
        return replace(model, manifest=manifest).served("query", made, recalled)

    assert served() is made
    older = {key: value for key, value in model.manifest.items() if key != "shown"} | {"answered": ["user"]}
    assert replace(model, manifest=older).served("query", made, recalled) is made
    judged, shown = served(answered=["query"]), served(shown=["query", "user"])
    np.testing.assert_array_equal(judged.fused, by_rank(made.fused, recalled))
    np.testing.assert_allclose(shown.fused, made.fused + shown.prior)
    assert (np.diff(shown.prior) < 0).all()
    alone = model.members.score(lists[:1], model.space.vectors, skip_network=True)[0]
    slope = model.members.fusion.log_odds["trees"].slope
    without = replace(model, manifest={**model.manifest, **names, "shown": ["query"]}).served("query", alone, recalled)
    np.testing.assert_allclose(without.prior, -0.1 * np.log(np.arange(1, 31)) / slope)


def test_a_log_of_shown_lists_says_so(shop: Any) -> None:
    """The sample shop logs what it shows, by query and by user."""
    assert (shop.model.manifest["shown"], shop.model.manifest["answered"]) == (["query", "user"], [])
