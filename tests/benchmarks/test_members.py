"""Members and fusion compared on a request's mean over several fits."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import members
import numpy as np
import pytest
from members import FIGURES, Fit, compared, lines

from indexer.build import build_index
from indexer.dumps.registry import write
from indexer.sample.shop import make_shop
from indexer.store import Store
from server.config import load_settings

BASE = np.random.default_rng(0).random(200)


def fit(seed: int, gain: float, noise: float = 0.0) -> Fit:
    """A fit whose fused order is `gain` better than the DNN and the trees, up to `noise` of its own."""
    own = np.random.default_rng(seed).normal(0.0, noise, 200) if noise else np.zeros(200)
    ranked = {"transformer": BASE / 2, "network": BASE, "trees": BASE.copy(), "fused": BASE + gain + own}
    return Fit(seed, 1.0, "weighted", 0.5, {name: dict.fromkeys(FIGURES, each) for name, each in ranked.items()})


def test_the_fused_order_less_each_member() -> None:
    told = compared([fit(0, 0.02)], "ndcg@10")
    assert told["means"]["fused"].mean == pytest.approx(BASE.mean() + 0.02)
    assert {name: round(each.mean, 3) for name, each in told["fused_minus_member"].items()} == {
        "network": 0.02,
        "trees": 0.02,
        "transformer": round(BASE.mean() / 2 + 0.02, 3),
    }
    assert told["fused_minus_member"]["trees"].p < 0.001


def test_more_fits_tell_a_gain_from_their_own_noise() -> None:
    fits = [fit(seed, 0.01, noise=0.1) for seed in range(20)]
    assert compared(fits[:1], "auc")["fused_minus_member"]["network"].p > 0.05
    many = compared(fits, "auc")["fused_minus_member"]["network"]
    assert many.p < 0.001
    assert many.low < 0.01 < many.high


def test_a_figure_that_applies_to_nothing_is_left_out() -> None:
    nothing = dict.fromkeys(FIGURES, np.full(3, np.nan))
    one = Fit(0, 1.0, "weighted", 0.5, dict.fromkeys(("transformer", "network", "trees", "fused"), nothing))
    assert compared([one], "auc") == {}
    assert one.told()["means"]["fused"] == {"ndcg@10": None, "auc": None}


def test_the_table_has_a_row_for_each_figure() -> None:
    table = lines({figure: compared([fit(0, 0.02)], figure) for figure in FIGURES})
    assert [row.split(" | ")[0] for row in table[2:]] == ["| ndcg@10", "| auc"]
    assert f"{BASE.mean():.4f} (+0.0200, p 0.0001)" in table[2]


class Encoder:
    """Each text is a direction of its own, each word of it bends it."""

    name = backend = fingerprint = "words"
    choice = tuned = None
    dimensions = 16

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        words = [
            [np.random.default_rng(list(word.encode())).normal(size=16) for word in f"- {t}".split()] for t in texts
        ]
        vectors = np.array([np.sum(each, axis=0) for each in words])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def stream(self, texts: Iterable[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        for text in texts:
            yield [text], self.encode([text])


def shop(folder: Path) -> Path:
    """A small shop with an index; returns its configuration."""
    write(make_shop(300, sessions=1_500, seed=0), folder / "data")
    config = folder / "vitrine.toml"
    config.write_text(
        """store = "store"
        [indexer]
        catalogue = "data/products.parquet"
        device = "cpu"
        [ranker]
        events = "data/events.parquet"
        device = "cpu"
        space = 8
        tower_epochs = 1
        network_epochs = 1
        trees = 10
        leaves = 7
        candidates = 60
        most_requests = 100
        """
    )
    settings = load_settings(config)
    build_index(Store(settings.store), settings.indexer, cast(Any, Encoder()), lambda *_: None)
    return config


def test_a_shop_from_its_log_to_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = shop(tmp_path), tmp_path / "out.json"
    monkeypatch.setattr(members, "encoder_of", lambda *_: Encoder())
    monkeypatch.setattr(
        "sys.argv", ["members", "-c", str(config), "--fits", "2", "--requests", "40", "--out", str(out)]
    )
    members.main()
    told: dict[str, Any] = json.loads(out.read_text())
    assert told["requests"]["test"] == 40
    first, second = told["fits"]
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["means"]["network"] != second["means"]["network"]
    # What no seed changes is the same in both.
    assert first["means"]["transformer"] == second["means"]["transformer"]
    less = told["figures"]["ndcg@10"]["fused_minus_member"]["trees"]
    means = [each["means"]["fused"]["ndcg@10"] - each["means"]["trees"]["ndcg@10"] for each in (first, second)]
    assert less["mean"] == pytest.approx(np.mean(means))
    assert capsys.readouterr().out.startswith("| | Transformer alone | DNN |")
