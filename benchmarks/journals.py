"""What a journal costs in SQLite and in PostgreSQL: to write events, to ask for news, and until another process knows.

python benchmarks/journals.py --postgres postgresql://user@host/empty_database
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import SecretStr
from result import distribution, environment, versions, write_result

from ranker.journal import Entry, Journal, Position
from ranker.journals import open_journal

# Times that `changed` is asked for one figure: once takes less than a clock can tell.
_ASKED = 1_000
# Seconds between two events of the other process, and between two looks at whether there is one.
_APART, _LOOK = 0.02, 0.0001


def batches(name: str, size: int, count: int) -> Iterator[list[list[Entry]]]:
    """So many batches of so many events of one product, as a click is."""
    for batch in range(count):
        names = [f"{name}-{size}-{batch}-{number}" for number in range(size)]
        yield [[Entry(n, 0, 1, "click", f"u-{n}", "session", "t" * 40, "red boots", "P123", 3)] for n in names]


def times(works: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds of each."""
    taken = []
    for work in works:
        begin = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - begin))
    return taken


def appended(journal: Journal, size: int, count: int) -> list[float]:
    """Milliseconds of each of `count` writes of `size` events, on disk when they return."""
    return times([lambda batch=batch: journal.append(batch) for batch in batches("mine", size, count)])  # type: ignore[misc]


def asked(journal: Journal, count: int) -> list[float]:
    """Milliseconds to ask whether anything changed, where nothing did."""

    def ask() -> None:
        for _ in range(_ASKED):
            journal.changed()

    return [taken / _ASKED for taken in times([ask] * count)]


def read(journal: Journal, other: Journal, count: int) -> list[float]:
    """Milliseconds to read one event that somebody else wrote."""
    taken, position = list[float](), journal.position()
    for batch in batches("read", 1, count):
        other.append(batch)
        taken += times([lambda at=position: journal.news(at)])  # type: ignore[misc]
        position = Position(position.sequence + 1)
    return taken


def told(journal: Journal, store: Path, uri: SecretStr, count: int) -> list[float]:
    """Milliseconds from when another process has written an event until `changed` says so here."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    writer = context.Process(target=write, args=(store, uri, count, theirs))
    writer.start()
    ours.recv()
    seen, last = list[float](), journal.sequence()
    ours.send(None)
    while len(seen) < count:
        while not journal.changed():
            time.sleep(_LOOK)
        now = time.monotonic()
        # It may be told of what was there before.
        seen += [now] * (journal.sequence() - last - len(seen))
    written: list[float] = ours.recv()
    writer.join()
    return [1e3 * (mine - theirs) for mine, theirs in zip(seen, written, strict=True)]


def write(store: Path, uri: SecretStr, count: int, pipe: Connection) -> None:
    """Write events one after the other, and tell when each was on disk."""
    with closing(open_journal(store, uri)) as journal:
        pipe.send(None)
        pipe.recv()
        written = []
        for batch in batches("other", 1, count):
            time.sleep(_APART)
            journal.append(batch)
            written.append(time.monotonic())
        pipe.send(written)


def measured(name: str, store: Path, uri: SecretStr, count: int) -> dict[str, Any]:
    """The row of one journal: distributions in milliseconds."""
    with closing(open_journal(store, uri)) as journal, closing(open_journal(store, uri)) as other:
        # Connections are opened, files made.
        appended(other, 1, 1)
        journal.position()
        costs = {
            "append_1": appended(other, 1, count),
            "append_100": appended(other, 100, count),
            "news": read(journal, other, count),
            "told": told(journal, store, uri, count),
        }
        time.sleep(0.1)
        journal.changed()
        costs["changed"] = asked(journal, count)
    return {"journal": name, **{what: distribution(np.array(taken)) for what, taken in costs.items()}}


def lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table: a row for each journal, medians and 99th percentiles in milliseconds."""
    names = ("append_1", "append_100", "news", "told")
    made = ["| | one event | 100 events | news of one | until told | `changed` |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells = [f"{row[name]['p50']:.2f}, {row[name]['p99']:.2f}" for name in names]
        made.append(f"| {row['journal']} | {' | '.join(cells)} | {1e3 * row['changed']['p50']:.1f} µs |")
    return made


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", default="", help="URI of an empty database of a server with fsync; else SQLite.")
    parser.add_argument("--folder", type=Path, help="Where SQLite's file goes: the disk matters. A temporary folder.")
    parser.add_argument("--count", type=int, default=300, help="How often each is done (default 300).")
    parser.add_argument("--out", type=Path, help="Where the JSON goes; by default only the table is printed.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        rows = [measured("SQLite", Path(folder), SecretStr(""), given.count)]
        if given.postgres:
            rows.append(measured("PostgreSQL", Path(folder), SecretStr(given.postgres), given.count))
    print("\n".join(lines(rows)))
    if given.out:
        # The URI may hold a password.
        parameters = {name: value for name, value in vars(given).items() if name not in ("postgres", "folder")}
        body = {**environment(), "rows": rows}
        body["versions"] |= versions(["psycopg"])
        write_result(given.out, "journals", parameters, body)


if __name__ == "__main__":
    main()
