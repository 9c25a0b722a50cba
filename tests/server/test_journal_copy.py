"""A shop that moves: what its file holds is in the database afterwards, under the same numbers."""

import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from indexer.errors import ConfigError, InputError
from ranker.changes import Change
from ranker.journal import Entry, Position
from ranker.journals import open_journal
from ranker.sqlite_journal import FILE, SqliteJournal
from ranker.upserts import Upsert
from server.cli import app


def entry(name: str, user: str | None = "ann", item: int = 0) -> Entry:
    return Entry(name, item, 5, "click", user, "s", "t\\oken", "red\t靴\n", f"p{item}", 3, 1.0, None, 2.5)


@pytest.fixture
def config(tmp_path: Path, database: str) -> Path:
    path = tmp_path / "vitrine.toml"
    path.write_text(f'store = "store"\njournal = "{database}"\n')
    return path


def copy(config: Path) -> Result:
    return CliRunner().invoke(app, ["journal", "copy", "--config", str(config)], catch_exceptions=False)


def filled(store: Path) -> SqliteJournal:
    journal = SqliteJournal(store / FILE)
    journal.append([[entry("e1"), entry("e1", item=1)], [entry("e2", "bob")], [entry("e3", "cat")]])
    journal.erase("ann", lambda: 7.0)
    journal.erase("nobody", lambda: 8.0)
    journal.append([[entry("e4", None)]])
    journal.change([Change("A", 1.5, 10, False, 20), Change("B", deleted_time=5), Change("A", 2.5, 30, True, 30)])
    vector = np.linspace(-1, 1, 8, dtype=np.float32)
    journal.upsert(
        [Upsert("鞋", 10, {"title": "靴", "size": 42.0, "new": True}, "hash", vector), Upsert("B", 9, {"title": "b"})]
    )
    return journal


def test_everything_is_there_under_the_same_numbers(tmp_path: Path, config: Path, database: str) -> None:
    with closing(filled(tmp_path / "store")) as here:
        told = " ".join(copy(config).output.split())
        assert "entries up to number 5, erasures up to 2, changes up to 5, upserts up to 2." in told
        assert "remove it once the servers run" in told
        with closing(open_journal(tmp_path, SecretStr(database))) as there:
            assert there.position() == here.position() == Position(5, 2, 5, 2)
            for after in (Position(), Position(3, 1, 3, 1)):
                mine, theirs = here.news(after), there.news(after)
                assert theirs.events.equals(mine.events)
                assert theirs.changes == mine.changes
                assert [each[:4] for each in theirs.upserts] == [each[:4] for each in mine.upserts]
                assert str(theirs.upserts) == str(mine.upserts)
            assert there.erased().moment("ann") == here.erased().moment("ann") == 7_000_000
            assert there.erased().moment("bob") is None
            # It goes on from there, under the same key.
            assert there.append([[entry("e2")], [entry("e5")]]) == [False, True]
            assert there.erase("nobody", lambda: 9.0) == 0
            assert there.erased().moment("nobody") == 9_000_000
            assert there.position() == Position(6, 3, 5, 2)


def test_an_empty_journal_is_copied_too(tmp_path: Path, config: Path, database: str) -> None:
    SqliteJournal(tmp_path / "store" / FILE).close()
    assert copy(config).exit_code == 0
    with closing(open_journal(tmp_path, SecretStr(database))) as there:
        assert there.position() == Position()


def test_a_database_that_holds_anything_is_left_as_it_is(tmp_path: Path, config: Path, database: str) -> None:
    filled(tmp_path / "store").close()
    with closing(open_journal(tmp_path, SecretStr(database))) as there:
        there.change([Change("A", 9.0, 1)])
        with pytest.raises(InputError, match="is not empty") as caught:
            copy(config)
        assert caught.value.exit_code == 3
        assert (there.position(), there.changes()) == (Position(0, 0, 1), [Change("A", 9.0, 1)])


def test_there_must_be_a_file_and_a_database(tmp_path: Path, config: Path) -> None:
    with pytest.raises(InputError, match=r"journal\.sqlite does not exist"):
        copy(config)
    config.write_text('store = "store"\n')
    with pytest.raises(ConfigError, match="names no database: set journal"):
        copy(config)


def test_what_postgresql_cannot_hold_is_named(tmp_path: Path, config: Path) -> None:
    with closing(SqliteJournal(tmp_path / "store" / FILE)) as here:
        here.append([[entry("e\0")]])
    with pytest.raises(InputError, match=r"cannot be held by PostgreSQL: .*NUL"):
        copy(config)


def test_without_psycopg_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "psycopg" or name.startswith("ranker.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"psycopg is missing .*pip install -e '\.\[postgres\]'") as caught:
        open_journal(tmp_path, SecretStr("postgresql:///shop"))
    assert caught.value.exit_code == 2
