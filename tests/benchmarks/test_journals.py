"""What journals cost, a few times each."""

import json
from pathlib import Path

import journals
import pytest


def test_both_journals_to_the_result(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    given = ["--postgres", database, "--folder", str(tmp_path), "--count", "3", "--out", str(out)]
    monkeypatch.setattr("sys.argv", ["journals", *given])
    journals.main()
    told = json.loads(out.read_text())
    assert [row["journal"] for row in told["rows"]] == ["SQLite", "PostgreSQL"]
    for row in told["rows"]:
        assert all(row[name]["p50"] > 0 for name in ("append_1", "append_100", "news"))
        assert 0 < row["changed"]["p50"] < 1
        assert row["told"]["p50"] < 1_000
    assert told["parameters"] == {"count": 3, "out": "out.json"}
    assert "postgresql://" not in out.read_text()
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["| SQLite", "| PostgreSQL"]


def test_the_table() -> None:
    row = {name: {"p50": 1.0, "p99": 2.5} for name in ("append_1", "append_100", "news", "told")}
    row["changed"] = {"p50": 0.0012}
    assert journals.lines([{"journal": "SQLite", **row}])[-1] == (
        "| SQLite | 1.00, 2.50 | 1.00, 2.50 | 1.00, 2.50 | 1.00, 2.50 | 1.2 µs |"
    )
