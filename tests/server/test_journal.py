"""The journal under a kill, under two writers, and under a row that cannot be written."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from databases import Kept

from indexer.errors import SnapshotError
from ranker.journal import Entry, Journal
from ranker.sqlite_journal import FILE, SqliteJournal

# Appends batches of three events of two products for ever, and prints the number of each batch that was acknowledged.
WRITER = """
import sys
from pathlib import Path
from pydantic import SecretStr
from ranker.journal import Entry
from ranker.journals import open_journal

journal = open_journal(Path(sys.argv[1]), SecretStr(sys.argv[2]))
name, least = sys.argv[3], int(sys.argv[4])
number = 0
while least == 0 or number < least:
    names = [f"{name}-{number}-{i}" for i in range(3)]
    rows = [[Entry(n, i, 1, "click", "u", None, None, None, "p") for i in range(2)] for n in names]
    assert journal.append(rows) == [True] * 3
    print(number, flush=True)
    number += 1
journal.close()
"""

# Opens the journal when its standard input ends.
MAKER = """
import sys
from pathlib import Path
from pydantic import SecretStr
from ranker.journals import open_journal

print("ready", flush=True)
sys.stdin.read()
open_journal(Path(sys.argv[1]), SecretStr(sys.argv[2])).close()
"""


def entry(event_id: str, item: int = 0) -> Entry:
    return Entry(event_id, item, 1, "click", "u", None, None, None, "p")


def writer(kept: Kept, name: str, least: int = 0) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(kept.store), kept.uri.get_secret_value(), name, str(least)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_loses_nothing_that_was_acknowledged(kept: Kept, seed: int) -> None:
    with writer(kept, "a") as process:
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline())]
        time.sleep(random.Random(seed).uniform(0.02, 0.3))
        os.kill(process.pid, signal.SIGKILL)
        # A line the kill cut short was not acknowledged whole.
        acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    journal = kept.open()
    found = journal.read()["event_id"].to_list()
    known = {f"a-{number}-{i}" for number in acknowledged for i in range(3)}
    assert known <= set(found)
    # Whole batches only, and at most the one that was on its way.
    assert len(found) in (6 * len(acknowledged), 6 * (len(acknowledged) + 1))
    assert journal.append([[entry("after")]]) == [True]


@pytest.mark.parametrize("number", range(5))
def test_processes_may_make_the_journal_at_once(kept: Kept, number: int) -> None:
    command = [sys.executable, "-c", MAKER, str(kept.store), kept.uri.get_secret_value()]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for process in makers:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in makers:
        assert process.stdin is not None
        process.stdin.close()
    for process in makers:
        with process:
            assert process.wait(60) == 0


def test_two_processes_may_append(kept: Kept) -> None:
    writers = [writer(kept, name, least=40) for name in "ab"]
    for process in writers:
        with process:
            process.communicate(timeout=60)
        assert process.returncode == 0
    journal = kept.open()
    found = journal.read()["event_id"].to_list()
    assert sorted(found) == sorted(
        f"{name}-{n}-{i}" for name in "ab" for n in range(40) for i in range(3) for _ in "12"
    )
    assert journal.sequence() == len(found) == 480


@pytest.mark.parametrize(
    "bad",
    [
        [entry("e2")._replace(product_id=None)],  # type: ignore[arg-type]
        [entry("e2")._replace(event_time=2**63)],
        [entry("e2")._replace(query=object())],  # type: ignore[arg-type]
        [entry("e2"), entry("e2")],
        [],
    ],
    ids=["no product", "a time beyond 64 bits", "no text", "one item twice", "no item"],
)
def test_a_row_that_cannot_be_written_takes_its_batch_back(
    journal: Journal, refused: tuple[type[Exception], ...], bad: list[Entry]
) -> None:
    with pytest.raises(refused):
        journal.append([[entry("e1")], bad, [entry("e3")]])
    assert (journal.sequence(), journal.read().is_empty()) == (0, True)
    assert journal.append([[entry("e1")], [entry("e3")]]) == [True, True]


def test_a_journal_of_a_newer_program_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / FILE
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 5")
    with pytest.raises(SnapshotError, match="version 5; this program reads versions up to 4"):
        SqliteJournal(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
        assert connection.execute("PRAGMA user_version").fetchone() == (5,)


def test_what_is_no_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(SnapshotError, match=r"journal\.sqlite cannot be used"):
        SqliteJournal(path)
    assert path.read_bytes() == b"not a database " * 100
