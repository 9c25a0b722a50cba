"""Which journal a shop has, PostgreSQL's where one is configured, else its store's file; and the log it is part of."""

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from pydantic import SecretStr

from indexer.canonical import read_events
from indexer.errors import ConfigError, InputError
from ranker.journal import Journal, Position
from ranker.sqlite_journal import FILE, SqliteJournal

if TYPE_CHECKING:
    from ranker.postgres_journal import PostgresJournal


def open_journal(store: Path, uri: SecretStr) -> Journal:
    """The journal at a PostgreSQL connection URI or, where that is empty, in the store; made where there is none.

    Raises `JournalError` where it cannot be reached, `SnapshotError` where it cannot be used, and `ConfigError` without
    psycopg.
    """
    return _postgres_journal(uri) if uri else SqliteJournal(store / FILE)


def kept_journal(store: Path, uri: SecretStr) -> Journal | None:
    """The same, to be read; None where it is a file that nobody has made yet."""
    return open_journal(store, uri) if uri or (store / FILE).exists() else None


def copy_journal(store: Path, uri: SecretStr) -> tuple[str, Position]:
    """Copy the store's journal into the database at a URI; returns its name for people, and where it ends.

    Raises `InputError` where the store has none or the database has one that is not empty, and as `open_journal` does.
    """
    if not (store / FILE).exists():
        raise InputError(f"{store / FILE} does not exist: there is nothing to copy, and a server may be started.")
    with closing(_postgres_journal(uri)) as there, closing(SqliteJournal(store / FILE)) as here:
        with here.whole() as whole:
            there.take_over(whole)
        return there.name, there.position()


def read_log(path: Path | None, store: Path, uri: SecretStr, up_to: int | None = None) -> pl.DataFrame | None:
    """The whole log in time order: imported events and the journal's `up_to` an entry. None where there is neither.

    Of a user who was erased the imported events up to then are left out, and of an event that is in both what was
    imported: a shop that writes its events as they happen may export them with all others.
    """
    frames = [] if path is None else [read_events(path)]
    if journal := kept_journal(store, uri):
        with closing(journal):
            erased, written = journal.erased(), journal.read(up_to=up_to)
        frames = [*(_not_written(erased.dropped(frame), written["event_id"]) for frame in frames), written]
    if not frames:
        return None
    return pl.concat(frames).sort("event_time", maintain_order=True)


def _not_written(imported: pl.DataFrame, written: pl.Series) -> pl.DataFrame:
    if written.is_empty():
        return imported
    return imported.filter(~pl.col("event_id").is_in(written.implode()).fill_null(False))


def _postgres_journal(uri: SecretStr) -> "PostgresJournal":
    # Imported where it is wanted: psycopg is an extra.
    try:
        from ranker.postgres_journal import PostgresJournal
    except ImportError as error:
        raise ConfigError(
            f"journal names a PostgreSQL database, for which psycopg is missing ({error}): "
            "pip install -e '.[postgres]', or pip install 'psycopg[binary]'."
        ) from error
    return PostgresJournal(uri)
