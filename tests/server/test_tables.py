"""What the commands print for people: everything there, and text as it is."""

import json
from pathlib import Path

import pytest
from harness import Trained
from rich.console import Console

from ranker.model import REPORT
from server import tables
from server.config import ServerConfig, Settings
from server.release import Release


@pytest.fixture
def console() -> Console:
    return Console(width=250, record=True, quiet=False)


def test_counts(console: Console) -> None:
    tables.counts(console, "shop", {"products": 1_234_567}, {"no title": 3})
    printed = console.export_text()
    assert "1,234,567" in printed
    assert "dropped: no title" in printed


def test_indexes(console: Console, trained: Trained) -> None:
    tables.indexes(console, [trained.store.manifest("indexes", trained.release.index)])
    printed = console.export_text()
    assert all(text in printed for text in (trained.release.index, "600", "exact", "1.0000", "hash"))


def test_the_live_release_is_marked_and_a_note_is_no_markup(console: Console) -> None:
    gate = {"recall_at_100": 0.98765, "ndcg": 0.4321}
    made = [Release(n, "i", "m", f"[/b] note [bold]{n}[/bold]", 1_700_000_000.0, gate) for n in (1, 2)]
    tables.releases(console, made, made[1])
    lines = [line for line in console.export_text().splitlines() if "note" in line and "│" in line]
    assert ["live" in line for line in lines] == [False, True]
    assert all(f"[/b] note [bold]{n}[/bold]" in line for n, line in enumerate(lines, 1))
    assert "0.9877" in lines[0]
    assert "0.4321" in lines[0]


def test_a_report_shows_every_scorer(console: Console, trained: Trained) -> None:
    path = trained.store.path("models", trained.release.model) / REPORT / "report.json"
    report = json.loads(path.read_text())
    tables.report(console, report, "model x")
    printed = console.export_text()
    assert all(row["scorer"] in printed for row in report["table"])
    assert "chosen" in printed
    assert "as a classifier" in printed
    assert "NDCG@10 in parts of the requests" in printed
    difference = report["chosen_minus_other_ndcg"]["random"]
    assert f"{difference['mean']:+.4f}" in printed
    assert f"{difference['p_holm']:.4f}" in printed
    assert all(row["segment"] in printed for row in report["segments"])


def test_a_report_of_few_figures(console: Console) -> None:
    known, unknown = {"mean": 0.5, "low": 0.4, "high": 0.6}, {"mean": None, "low": None, "high": None}
    metrics = {**dict.fromkeys(tables._METRICS, known), "ndcg@10": known, "gauc": unknown}
    row = {"scorer": "trees", "kind": "member", "metrics": metrics, "classification": {}}
    content = {
        "requests": 1,
        "rows": 2,
        "chosen": "trees",
        "table": [row, {**row, "scorer": "BM25"}],
        "chosen_minus_other_ndcg": {"BM25": {**unknown, "p": 1.0, "p_holm": 1.0}},
        "shown": {"chosen": "trees"},
        "segments": [],
    }
    tables.report(console, content, "model x")
    printed = console.export_text()
    assert "–" in printed
    assert "as a classifier" not in printed
    assert "in parts" not in printed


def test_settings_show_every_key_as_it_is(console: Console) -> None:
    current = Settings(store=Path("/data/[old]/store"), server=ServerConfig.model_validate({"port": 1}))
    tables.settings(console, current, Settings.model_validate({}))
    printed = console.export_text()
    assert "/data/[old]/store" in printed
    names = [f"server.{name}" for name in ServerConfig.model_fields]
    assert all(name in printed for name in ("indexer.encoder", "ranker.trees", *names))
