"""Members and fusion compared on a request's mean over several fits."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import members
import numpy as np
import pytest
from members import FIGURES, Fit, Window, before, compared, figures, lines

from indexer.build import build_index
from indexer.dumps.registry import write
from indexer.sample.shop import make_shop
from indexer.snapshot import IndexSnapshot, open_latest
from indexer.store import Store
from ranker.config import RankerConfig
from server.config import load_settings
from server.rebuild import read_sources

BASE = np.random.default_rng(0).random(200)
EACH = np.arange(200)


def fit(seed: int, gain: float, noise: float = 0.0) -> Fit:
    """A fit whose fused order is `gain` better than the DNN and the trees, up to `noise` of its own."""
    own = np.random.default_rng(seed).normal(0.0, noise, 200) if noise else np.zeros(200)
    ranked = {"transformer": BASE / 2, "network": BASE, "trees": BASE.copy(), "fused": BASE + gain + own}
    return Fit(seed, 1.0, "weighted", 0.5, {name: dict.fromkeys(FIGURES, each) for name, each in ranked.items()})


def test_the_fused_order_less_each_member() -> None:
    told = compared([fit(0, 0.02).values], "ndcg@10", EACH)
    assert told["means"]["fused"].mean == pytest.approx(BASE.mean() + 0.02)
    assert {name: round(each.mean, 3) for name, each in told["fused_minus_member"].items()} == {
        "network": 0.02,
        "trees": 0.02,
        "transformer": round(BASE.mean() / 2 + 0.02, 3),
    }
    assert told["fused_minus_member"]["trees"].p < 0.001


def test_more_fits_tell_a_gain_from_their_own_noise() -> None:
    fits = [fit(seed, 0.01, noise=0.1).values for seed in range(20)]
    assert compared(fits[:1], "auc", EACH)["fused_minus_member"]["network"].p > 0.05
    many = compared(fits, "auc", EACH)["fused_minus_member"]["network"]
    assert many.p < 0.001
    assert many.low < 0.01 < many.high


def window(users: Sequence[str | None], *fits: Fit) -> Window:
    return Window(None, {}, [1.0], users, fits)


def test_windows_are_as_one_with_all_their_requests() -> None:
    nobody = [None] * 200
    first, second = (window(nobody, fit(seed, gain, noise=0.05)) for seed, gain in ((0, 0.01), (1, 0.03)))
    alone = [figures([each])["ndcg@10"]["fused_minus_member"]["trees"] for each in (first, second)]
    both = figures([first, second])["ndcg@10"]["fused_minus_member"]["trees"]
    assert both.mean == pytest.approx((alone[0].mean + alone[1].mean) / 2)
    assert both.high - both.low < min(each.high - each.low for each in alone)


def test_requests_of_one_user_in_two_windows_are_one_piece_of_evidence() -> None:
    one = fit(0, 0.01, noise=0.1)
    twice = [window([f"u{i}" for i in range(200)], one)] * 2
    once = figures(twice[:1])["auc"]["fused_minus_member"]["network"]
    assert figures(twice)["auc"]["fused_minus_member"]["network"] == pytest.approx(once)
    strangers = [window([f"{part}{i}" for i in range(200)], one) for part in "ab"]
    assert figures(strangers)["auc"]["fused_minus_member"]["network"].p < once.p


def test_a_figure_that_applies_to_nothing_is_left_out() -> None:
    nothing = dict.fromkeys(FIGURES, np.full(3, np.nan))
    one = Fit(0, 1.0, "weighted", 0.5, dict.fromkeys(("transformer", "network", "trees", "fused"), nothing))
    assert compared([one.values], "auc", np.arange(3)) == {}
    assert one.told()["means"]["fused"] == {"ndcg@10": None, "auc": None}


def test_the_table_has_a_row_for_each_figure() -> None:
    table = lines({figure: compared([fit(0, 0.02).values], figure, EACH) for figure in FIGURES})
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
        "sys.argv",
        ["members", "-c", str(config), "--fits", "2", "--windows", "2", "--requests", "40", "--out", str(out)],
    )
    members.main()
    told: dict[str, Any] = json.loads(out.read_text())
    last, earlier = told["windows"]
    assert last["requests"]["test"] == 40
    first, second = last["fits"]
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["means"]["network"] != second["means"]["network"]
    # What no seed changes is the same in both.
    assert first["means"]["transformer"] == second["means"]["transformer"]
    less = last["figures"]["ndcg@10"]["fused_minus_member"]["trees"]
    means = [each["means"]["fused"]["ndcg@10"] - each["means"]["trees"]["ndcg@10"] for each in (first, second)]
    assert less["mean"] == pytest.approx(np.mean(means))
    # The earlier window is the log of before the last one's test slice.
    prepared = members.prepare(read_sources(load_settings(config)), *prepared_with(config))
    assert last["end"] is None
    assert earlier["end"] == prepared.cuts[-1]
    assert earlier["requests"]["members"] <= last["requests"]["members"]
    both = told["figures"]["ndcg@10"]["fused_minus_member"]["trees"]["mean"]
    assert both == pytest.approx(
        np.average(
            [each["figures"]["ndcg@10"]["fused_minus_member"]["trees"]["mean"] for each in (last, earlier)],
            weights=[each["requests"]["test"] for each in (last, earlier)],
        )
    )
    assert capsys.readouterr().out.startswith("| | Transformer alone | DNN |")


def prepared_with(config: Path) -> tuple[IndexSnapshot, RankerConfig]:
    settings = load_settings(config)
    return open_latest(Store(settings.store), settings.indexer), settings.ranker


def test_what_was_judged_has_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    config = shop(tmp_path)
    config.write_text(
        config.read_text().replace('events = "data/events.parquet"', 'judgments = "data/judgments.parquet"')
    )
    monkeypatch.setattr(members, "encoder_of", lambda *_: Encoder())
    monkeypatch.setattr("sys.argv", ["members", "-c", str(config), "--fits", "1", "--windows", "2"])
    with pytest.raises(SystemExit):
        members.main()
    assert "judged queries have no time" in capsys.readouterr().err.lower()


@pytest.mark.parametrize("option", ["--fits", "--windows"])
def test_nothing_cannot_be_compared(monkeypatch: pytest.MonkeyPatch, capsys: Any, option: str) -> None:
    monkeypatch.setattr("sys.argv", ["members", "-c", "vitrine.toml", option, "0"])
    with pytest.raises(SystemExit):
        members.main()
    assert "--fits and --windows are 1 or more" in capsys.readouterr().err


def test_the_log_of_before_a_time(tmp_path: Path) -> None:
    sources = read_sources(load_settings(shop(tmp_path)))
    assert sources.events is not None
    times = sources.events["event_time"].dt.epoch("us").to_numpy() / 1e6
    middle = float(np.median(times))
    kept = before(sources, middle).events
    assert kept is not None
    assert len(kept) == (times < middle).sum() < len(times)
