"""What the commands print for people: everything there, and text as it is."""

import json
from pathlib import Path
from typing import Any

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


@pytest.fixture
def narrow() -> Console:
    """A terminal of 80 columns, or a pipe."""
    return Console(width=80, record=True, quiet=False)


def test_counts(console: Console) -> None:
    tables.counts(console, "shop", {"products": 1_234_567}, {"no title": 3})
    printed = console.export_text()
    assert "1,234,567" in printed
    assert "dropped: no title" in printed


def test_indexes(console: Console, trained: Trained) -> None:
    tables.indexes(console, [trained.store.manifest("indexes", trained.release.index)])
    printed = console.export_text()
    assert all(text in printed for text in (trained.release.index, "600", "exact", "1.0000", "hash"))


def test_an_index_just_built_fits_80_columns(narrow: Console, trained: Trained) -> None:
    manifest = trained.store.manifest("indexes", trained.release.index)
    counts = {"products": 1_234_567, "rejected": 12, "embedded": 3_456}
    tables.built(narrow, {**manifest, "counts": counts, "seconds": 3.21})
    printed = narrow.export_text()
    assert "…" not in printed
    assert all(text in printed for text in (trained.release.index, "1,234,567", "exact", "1.0000", "hash"))
    assert "3,456 titles embedded, 12 rows rejected, 3.2 s" in printed


@pytest.mark.parametrize(("used", "told"), [(True, "a table of 8,681 tokens"), (False, "since no table agrees")])
def test_what_embeds_queries_is_told_where_it_was_distilled(
    console: Console, trained: Trained, used: bool, told: str
) -> None:
    manifest = trained.store.manifest("indexes", trained.release.index)
    tables.built(console, manifest)
    assert "queries by" not in console.export_text()
    queries = {"tokens": 8_681, "cosine": 0.9111, "overlap": 0.731, "used": used}
    tables.built(console, {**manifest, "queries": queries})
    printed = console.export_text()
    assert told in printed
    assert "cosine 0.911 to the encoder, 0.73 of its nearest titles" in printed


def test_the_live_release_is_marked_and_a_note_is_no_markup(console: Console) -> None:
    gate = {"recall_at_100": 0.98765, "ndcg": 0.4321}
    made = [Release(n, "i", "m", f"[/b] note [bold]{n}[/bold]", 1_700_000_000.0, gate) for n in (1, 2)]
    tables.releases(console, made, made[1])
    lines = [line for line in console.export_text().splitlines() if "note" in line and "│" in line]
    assert ["live" in line for line in lines] == [False, True]
    assert all(f"[/b] note [bold]{n}[/bold]" in line for n, line in enumerate(lines, 1))
    assert "0.9877" in lines[0]
    assert "0.4321" in lines[0]


def test_a_release_without_a_ranking_says_so(console: Console) -> None:
    made = Release(1, "i", "m", "", 1_700_000_000.0, {"recall_at_100": 1.0, "ndcg": None})
    tables.releases(console, [made], made)
    assert "unranked" in console.export_text()


def stored_report(trained: Trained) -> dict[str, Any]:
    path = trained.store.path("models", trained.release.model) / REPORT / "report.json"
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def test_a_report_shows_every_scorer(narrow: Console, trained: Trained) -> None:
    report = stored_report(trained)
    tables.report(narrow, report, f"model {trained.release.model}")
    printed = narrow.export_text()
    ranking, rest = printed.split("as a classifier")
    for row in report["table"]:
        (line,) = (line for line in ranking.splitlines() if f"│ {row['scorer']} " in line)
        assert shown(row["metrics"]["ndcg@10"]) in line
        if row["scorer"] == report["chosen"]:
            assert "chosen" in line
        else:
            difference = report["chosen_minus_other_ndcg"][row["scorer"]]
            sign = "-" if difference["mean"] < 0 else "+"
            assert f"{sign}{shown({**difference, 'mean': abs(difference['mean'])})}" in line
    assert "in parts of the requests" in rest
    assert all(row["segment"] in rest for row in report["segments"])


def shown(value: dict[str, float]) -> str:
    """A mean and half of its interval, to three places and without the nought."""
    return f"{value['mean']:.3f} ±{(value['high'] - value['low']) / 2:.3f}".replace("0.", ".")


def test_nothing_of_a_report_is_cut_at_80_columns(narrow: Console, trained: Trained) -> None:
    report = stored_report(trained)
    # As long as names get, whatever this shop's report has in these places.
    report["shown"] = {"chosen": "weighted", "best member": "transformer", "best baseline": "own purchases"}
    figures = {role: {"mean": 0.123456, "low": 0.1, "high": 0.15} for role in report["shown"]}
    longest = {"group": "wanted products", "segment": "no cold one among them", "requests": 20_000, "ndcg@10": figures}
    report["segments"] = [longest, {**longest, "segment": "a cold one among them"}]
    report["table"][0]["scorer"] = "own purchases"
    tables.report(narrow, report, f"model {trained.release.model}")
    printed = narrow.export_text()
    assert "…" not in printed
    assert max(len(line) for line in printed.splitlines()) <= 80
    assert all(name in printed for name in ("own purchases", "no cold one among them", "20,000", ".123 ±.025"))


def test_a_tuned_encoder_is_named_in_the_list(console: Console, trained: Trained) -> None:
    manifest = trained.store.manifest("indexes", trained.release.index)
    tuned = {**manifest["encoder"], "tuned": {"id": "20260102-abcd"}}
    tables.indexes(console, [manifest, {**manifest, "encoder": tuned}])
    lines = [line for line in console.export_text().splitlines() if trained.release.index in line]
    assert ["tuned 20260102-abcd" in line for line in lines] == [False, True]


def test_a_report_of_few_figures(console: Console) -> None:
    known, unknown = {"mean": 0.5, "low": 0.4, "high": 0.6}, {"mean": None, "low": None, "high": None}
    metrics = {**dict.fromkeys(tables._METRICS, known), "ndcg@10": known, "auc": unknown}
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
    assert "1.000" in printed
    assert "as a classifier" not in printed
    assert "in parts" not in printed


def test_settings_show_every_key_as_it_is(console: Console) -> None:
    current = Settings(store=Path("/data/[old]/store"), server=ServerConfig.model_validate({"port": 1}))
    tables.settings(console, current, Settings.model_validate({}))
    printed = console.export_text()
    assert "/data/[old]/store" in printed
    names = [f"server.{name}" for name in ServerConfig.model_fields]
    assert all(name in printed for name in ("indexer.encoder", "ranker.trees", *names))
