"""What is kept of one user, written out and erased, with and without a server that runs."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from harness import Running, Trained, copied
from typer.testing import CliRunner, Result

from indexer.errors import InputError
from ranker.journal import Entry
from ranker.sqlite_journal import FILE, SqliteJournal
from server.cli import app


@pytest.fixture
def mine(trained: Trained, tmp_path: Path) -> Trained:
    return copied(trained, tmp_path)


@pytest.fixture
def config(mine: Trained, tmp_path: Path) -> Path:
    path = tmp_path / "vitrine.toml"
    told = f'store = "{mine.settings.store}"\n[ranker]\nevents = "{mine.settings.ranker.events}"\n'
    path.write_text(told, encoding="utf-8")
    return path


def run(config: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["user", *words, "--config", str(config)], catch_exceptions=False)


def exported(config: Path, user: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(config, "export", user).output.splitlines()]


def clicked(mine: Trained, user: str | None, product: str) -> None:
    with closing(SqliteJournal(mine.store.root / FILE)) as journal:
        name = "late" if user else "later"
        moment = (4 if user else 5) * 10**15
        journal.append([[Entry(name, 0, moment, "click", user, "s", None, "red 靴", product)]])


def test_a_users_events_are_written_out(mine: Trained, config: Path, tmp_path: Path) -> None:
    known = mine.dump.events.filter(mine.dump.events["user_id"].is_not_null())
    user = known["user_id"][0]
    clicked(mine, user, "p1")
    clicked(mine, None, "p2")
    lines = exported(config, user)
    sessions = known.filter(known["user_id"] == user)["session_id"]
    nobody = mine.dump.events["user_id"].is_null() & mine.dump.events["session_id"].is_in(
        sessions.drop_nulls().implode()
    )
    assert len(lines) == len(sessions) + nobody.sum() + 2
    # What was done before the login in the same session.
    assert (lines.pop()["product_id"], {line["user_id"] for line in lines} - {None}) == ("p2", {user})
    assert [line["event_time"] for line in lines] == sorted(line["event_time"] for line in lines)
    assert (lines[-1]["event_id"], lines[-1]["query"], lines[-1]["product_id"]) == ("late", "red 靴", "p1")
    to = tmp_path / "user.jsonl"
    assert run(config, "export", user, "--out", str(to)).output == ""
    assert [json.loads(line) for line in to.read_text(encoding="utf-8").splitlines()][:-1] == lines
    assert exported(config, "nobody knows") == []


def test_an_erased_user_has_nothing_to_write_out(mine: Trained, config: Path) -> None:
    user = mine.dump.events["user_id"].drop_nulls()[0]
    clicked(mine, user, "p1")
    told = run(config, "erase", user).output
    assert f"{FILE}: 1." in told.replace("\n", "")
    assert "is yours to mend" in told
    # Up to now: the journal's event was of a later time than now, and went with the journal's entries.
    assert exported(config, user) == []


def test_a_running_server_forgets_before_its_next_answer(start: Any, tmp_path: Path) -> None:
    server: Running = start()
    user = next(iter(server.live.state.behaviour.users))
    path = tmp_path / "running.toml"
    path.write_text(f'store = "{server.trained.settings.store}"\n', encoding="utf-8")
    assert run(path, "erase", user).exit_code == 0
    server.live.refresh()
    assert user not in server.live.state.behaviour.users


@pytest.mark.parametrize("name", ["", "x" * 129])
def test_a_name_that_cannot_be_one_is_refused(config: Path, name: str) -> None:
    for word in ("export", "erase"):
        with pytest.raises(InputError, match="A user id has 1 to 128 bytes"):
            run(config, word, name)
