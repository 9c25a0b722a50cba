"""A trained model: scoring, saving, and the partners it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

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
from ranker.history import CLICK, EMPTY, VIEW, History
from ranker.model import Model, load_model, stacked_features
from ranker.scoring import Scorable

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


@pytest.mark.parametrize("kind", ["weighted", "stacking"])
def test_fused_is_the_kind_that_was_chosen(shop: Any, lists: list[Scorable], kind: str) -> None:
    members = shop.model.members
    members = type(members)(members.network, members.trees, members.stacked, members.fusion._replace(kind=kind))
    (scores,) = members.score(lists[:1], shop.model.space.vectors)
    if kind == "weighted":
        expected = members.fusion.weighted(scores.network, members.tree_scores(lists[0].features))
    else:
        expected = members.stacked.predict(stacked_features(lists[0].features, scores.network))
    np.testing.assert_allclose(scores.fused, expected, rtol=1e-12)


def test_stacked_features_end_with_the_logit() -> None:
    made = stacked_features(np.zeros((2, 3), np.float32), np.array([0.5, -1.0]))
    assert made.dtype == np.float32
    assert made.tolist() == [[0.0, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, -1.0]]


def test_what_is_loaded_scores_alike(shop: Any, lists: list[Scorable]) -> None:
    one, other = shop.model, shop.load(shop.model.id)
    pairs = zip(
        one.members.score(lists, one.space.vectors), other.members.score(lists, other.space.vectors), strict=True
    )
    for before, after in pairs:
        np.testing.assert_array_equal(before.fused, after.fused)
        np.testing.assert_array_equal(before.network, after.network)


def test_members_saved_twice_are_the_same_bytes(shop: Any, tmp_path: Path) -> None:
    published = shop.store.path("models", shop.model.id)
    shop.model.members.save(tmp_path)
    for name in ("network.safetensors", "fusion.json", "schema.json"):
        assert (tmp_path / name).read_bytes() == (published / name).read_bytes(), name


def test_a_loaded_network_is_not_in_training(shop: Any) -> None:
    assert not shop.model.members.network.training
    assert not shop.model.space.tower.training
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


def test_schema_lists_the_columns(shop: Any) -> None:
    schema = json.loads((shop.store.path("models", shop.model.id) / "schema.json").read_text())
    assert schema == {"fingerprint": features.fingerprint(), "features": list(features.NAMES)}


def test_a_model_that_is_not_there(shop: Any) -> None:
    with pytest.raises(SnapshotError, match="nowhere"):
        shop.load("nowhere")


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
