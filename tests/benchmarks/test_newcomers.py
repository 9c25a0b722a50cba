"""What newcomers cost, on a small shop without a log."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import newcomers
import pytest
from newcomers import compared, lines, upserts

from indexer.dumps.registry import write
from indexer.sample.shop import make_shop
from ranker.sqlite_journal import FILE, SqliteJournal
from server.config import load_settings
from server.rebuild import JobLog, rebuild


@pytest.fixture
def shop(tmp_path: Path, texts_apart: None) -> Path:
    write(make_shop(60, sessions=1, seed=0), tmp_path / "data")
    config = tmp_path / "vitrine.toml"
    config.write_text('store = "store"\n[indexer]\ncatalogue = "data/products.parquet"\ndevice = "cpu"\n')
    with (tmp_path / "log").open("w") as log:
        rebuild(load_settings(config), JobLog(log), lambda *_: None, lambda _: None, "")
    return config


def test_a_shop_to_the_result(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(newcomers, "compared", lambda states, *given: found.append(states) or compared(states, *given))
    out = tmp_path / "out.json"
    counts = ["--counts", "1", "30", "--changed", "1", "20", "--queries", "5", "--rounds", "2"]
    monkeypatch.setattr("sys.argv", ["newcomers", "-c", str(shop), *counts, "--out", str(out)])
    newcomers.main()
    # Each state has what it is said to have.
    assert [len(state.row_of) for state in found[0]] == [60, 61, 90, 60, 60]
    assert [len(state.upserts) for state in found[0]] == [0, 1, 30, 1, 20]
    told = json.loads(out.read_text())
    assert told["products"] == 60
    assert [(row["new"], row["changed"]) for row in told["rows"]] == [(0, 0), (1, 0), (30, 0), (0, 1), (0, 20)]
    assert told["rows"][0]["ratio"] == 1.0
    assert all(row["search_ms"] > 0 and row["ratio"] > 0 for row in told["rows"])
    assert all(row["embed_ms"] > 0 and row["add_ms"] > 0 and row["one_more_ms"] > 0 for row in told["rows"][1:])
    assert capsys.readouterr().out.splitlines()[2].startswith("| 0 | 0 |  |  |  | ")
    with closing(SqliteJournal(tmp_path / "store" / FILE)) as journal:
        assert journal.upserts() == []


def test_ratios_are_those_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that gets slower from lap to lap: warm-up, then three rounds of two states.
    laps = iter([9.0, 9.0, 1.0, 1.5, 10.0, 11.0, 100.0, 120.0])
    monkeypatch.setattr(newcomers, "search_ms", lambda *_: next(laps))
    assert compared(["none", "some"], ["q"], 3) == [(10.0, 1.0), (11.0, 1.2)]


def test_new_products_are_new_and_their_titles_differ() -> None:
    made = upserts(["red mug", "lamp"], 1, 3)
    assert [each.product_id for each in made] == ["new-1", "new-2", "new-3"]
    assert [each.values["title"] for each in made] == ["lamp zq1", "red mug zq2", "lamp zq3"]


def test_changed_products_are_the_catalogues_and_none_comes_twice() -> None:
    ids = [str(n) for n in range(1_000)]
    made = upserts(["red mug"], 0, 1_000, ids)
    assert {each.product_id for each in made} == set(ids)


def test_the_table() -> None:
    row = {"new": 5, "changed": 0, "embed_ms": 1.25, "add_ms": 2.0, "one_more_ms": 3.0, "search_ms": 4.0, "ratio": 1.5}
    assert lines([row])[-1] == "| 5 | 0 | 1.2 | 2.0 | 3.0 | 4.00 | 1.50 |"
