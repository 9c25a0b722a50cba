"""The command as a whole: help everywhere, and an exit code for each kind of mistake."""

import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
import typer
from typer.testing import CliRunner

from indexer.store import Store
from server import __main__, cli


def paths(command: click.Command, name: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command and group, as the words that call it."""
    found = [name]
    for word, inner in getattr(command, "commands", {}).items():
        found += paths(inner, (*name, word))
    return found


COMMANDS = paths(typer.main.get_command(cli.app))


def test_the_commands_are_the_documented_ones() -> None:
    single = {
        "import",
        "sample",
        "train",
        "evaluate",
        "rebuild",
        "refresh",
        "serve",
        "doctor",
        "search",
        "recommend",
        "similar",
        "suggest",
        "status",
    }
    grouped = {
        "index": {"build", "verify", "list"},
        "release": {"create", "list", "promote", "rollback"},
        "product": {"set", "delete", "show", "upsert"},
        "user": {"export", "erase"},
        "rules": {"check"},
        "journal": {"copy"},
        "config": {"show"},
    }
    expected = {(), *((word,) for word in (*single, *grouped))}
    assert set(COMMANDS) == expected | {(group, word) for group, words in grouped.items() for word in words}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli.app, [*words, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert "--help" in result.output


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of the command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["vitrine", *words])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as caught:
        __main__.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_a_mistake_ends_with_a_message_and_its_exit_code(tmp_path: Path) -> None:
    """In a process of its own, as a person runs it."""
    command = [sys.executable, "-m", "server", "config", "show", "--config", str(tmp_path / "gone.toml")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("vitrine: ")
    assert "gone.toml cannot be read" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("index", "verify"), 4, "Make one with `vitrine index build`"),
        (("evaluate",), 4, "Make one with `vitrine train`"),
        (("serve",), 4, "has no live release. Make one with `vitrine rebuild`."),
        (("import", "ebay", "."), 3, "There is no format 'ebay'"),
        (("release", "promote", "1"), 4, "There is no release 1"),
        (("release", "rollback"), 4, "There is no earlier release"),
    ],
)
def test_each_kind_of_mistake_has_its_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    code: int,
    says: str,
) -> None:
    (tmp_path / "vitrine.toml").write_text("")
    monkeypatch.setenv("VITRINE_CONFIG", str(tmp_path / "vitrine.toml"))
    assert ended(monkeypatch, *words) == code
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("words", [("rebuild", "--log"), ("refresh", "--log"), ("user", "export", "ann", "-o")])
def test_a_file_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    (tmp_path / "vitrine.toml").write_text("")
    monkeypatch.setenv("VITRINE_CONFIG", str(tmp_path / "vitrine.toml"))
    path = tmp_path / "gone" / "file.jsonl"
    assert ended(monkeypatch, *words, str(path)) == 1
    assert capsys.readouterr().err == f"vitrine: {path} cannot be used: No such file or directory.\n"


@pytest.mark.parametrize("words", [("serve",), ("serve", "--workers", "2"), ("rules", "check")], ids=" ".join)
def test_a_faulty_file_of_rules_ends_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    (tmp_path / "vitrine.toml").write_text("[server]\nrules = 'rules.toml'\n")
    (tmp_path / "rules.toml").write_text("[[rule]]\nname = 'summer'\n")
    monkeypatch.setenv("VITRINE_CONFIG", str(tmp_path / "vitrine.toml"))
    assert ended(monkeypatch, *words) == 2
    assert "rule 'summer': does nothing; give pin, hide" in capsys.readouterr().err


def test_a_second_job_exits_with_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vitrine.toml").write_text("")
    monkeypatch.setenv("VITRINE_CONFIG", str(tmp_path / "vitrine.toml"))
    with Store(tmp_path / "store").locked("rebuild"):
        assert ended(monkeypatch, "rebuild", "--quiet") == 5
    assert "Another rebuild is running" in capsys.readouterr().err
