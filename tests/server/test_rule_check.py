"""`vitrine rules check`, and what the other commands say of rules."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness import Running, Trained, copied
from typer.testing import CliRunner, Result

from indexer.errors import ConfigError
from ranker.sqlite_journal import FILE, SqliteJournal
from ranker.upserts import Upsert
from server.cli import app

Check = Callable[[str], Result]

RULES = """
[[rule]]
name = "summer [boots]"
queries = ["Boots"]
words = ["hiking"]
from = 2026-01-01
until = 2999-09-01T12:30:00+02:00
pin = ["{known}", "new", "gone"]
hide = {{ brand = "Acme" }}
only = {{ category = ["Boots", "Shoes"], price = {{ least = 10, most = 80 }} }}
boost = [{{ where = {{ price = {{ most = 9.5 }} }}, times = 0.5 }}]
rewrite = "hiking boots"
redirect = "/sale"

[[rule]]
name = "shelf"
on = ["similar", "recommend"]
hide = {{ shelf = "A" }}

[[rule]]
name = "past"
until = 2001-01-01
pin = ["{known}"]

[[rule]]
name = "future"
from = 2999-01-01
pin = ["{known}"]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "vitrine.toml").write_text('store = "store"\n[server]\nrules = "rules.toml"\n')
    monkeypatch.setenv("VITRINE_CONFIG", str(tmp_path / "vitrine.toml"))
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path


@pytest.fixture
def check(folder: Path) -> Check:
    def run(content: str) -> Result:
        (folder / "rules.toml").write_text(content)
        return CliRunner().invoke(app, ["rules", "check"])

    return run


def test_rules_are_shown_and_held_against_the_live_release(trained: Trained, folder: Path, check: Check) -> None:
    made = copied(trained, folder)
    with closing(SqliteJournal(folder / "store" / FILE)) as journal:
        journal.upsert([Upsert("new", round((time.time() + 100) * 1e6), {"title": "zirconium teapot"})])
    result = check(RULES.format(known=made.dump.products["product_id"][0]))
    assert result.exit_code == 0, result.exception
    rows = {line.split("│")[1].strip(): line for line in result.output.splitlines() if line.count("│") == 6}
    assert {name: row.split("│")[5].strip() for name, row in rows.items() if name} == {
        "summer [boots]": "in force",
        "shelf": "out of force",
        "past": "over",
        "future": "to come",
    }
    assert "search “boots”, with hiking" in rows["summer [boots]"]
    assert "from 2026-01-01 00:00Z until 2999-09-01 10:30Z" in rows["summer [boots]"]
    assert "every recommend, similar" in rows["shelf"]
    assert "every search, recommend, similar" in rows["past"]
    for told in (
        "searches “hiking boots”",
        "redirects to /sale",
        ", new, gone",
        "hides brand Acme",
        "shows only category Boots or Shoes, price ≥ 10 and ≤ 80",
        "moves price ≤ 9.5 × 0.5",
        "warning: rule shelf is out of force: there is no column 'shelf'",
        "warning: rule summer [boots] pins gone: release 1 does not hold it",
    ):
        assert told in result.output
    assert result.output.count("warning") == 2


def test_without_a_live_release_the_file_alone_is_looked_at(folder: Path, check: Check) -> None:
    result = check(RULES.format(known="a"))
    assert result.exit_code == 0, result.exception
    assert "No release is live: columns and products were not looked at." in result.output
    assert "warning" not in result.output
    assert not (folder / "store" / FILE).exists()


def test_a_faulty_file_and_none_at_all(folder: Path, check: Check) -> None:
    refused = check("[[rule]]\nname = 'r'\n")
    assert isinstance(refused.exception, ConfigError)
    assert (refused.exception.exit_code, "rule 'r': does nothing" in str(refused.exception)) == (2, True)
    (folder / "rules.toml").unlink()
    missing = CliRunner().invoke(app, ["rules", "check"])
    assert "rules.toml cannot be read" in str(missing.exception)
    (folder / "vitrine.toml").write_text("")
    unset = CliRunner().invoke(app, ["rules", "check"])
    assert isinstance(unset.exception, ConfigError)
    assert "names no file of rules: set server.rules" in str(unset.exception)


def test_answers_tell_the_rules_that_were_applied(
    start: Callable[..., Running], trained: Trained, folder: Path
) -> None:
    product, other = trained.dump.products["product_id"][:2]
    path = folder / "rules.toml"
    path.write_text(
        f'[[rule]]\nname = "[pins]"\npin = ["{product}", "gone"]\n'
        '[[rule]]\nname = "words"\nqueries = ["boots"]\nrewrite = "lamp"\nredirect = "/[sale]"\n'
    )
    server = start(copied(trained, folder, rules=path))

    def run(*words: str) -> str:
        result = CliRunner().invoke(app, [*words, "--address", server.address], catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    told = run("search", "boots")
    assert f"rule [pins], pinned {product}\n" in told
    assert "rule words, searched “lamp”\n" in told
    assert "redirect: /[sale]\n" in told
    for words in (("search", "boots"), ("recommend", "nobody"), ("similar", other)):
        assert "rule [pins]" in run(*words)
        bare = run(*words, "--without-rules")
        assert "rule " not in bare
        assert "redirect" not in bare
    assert run("similar", product).count("pinned") == 0
