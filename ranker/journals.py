"""Which journal a shop has, PostgreSQL's where one is configured, else its store's file; and the log it is part of."""

from contextlib import closing
from pathlib import Path

import polars as pl
from pydantic import SecretStr

from indexer.canonical import read_events
from indexer.errors import ConfigError
from ranker.journal import Journal
from ranker.sqlite_journal import FILE, SqliteJournal


def open_journal(store: Path, uri: SecretStr) -> Journal:
    """The journal at a PostgreSQL connection URI or, where that is empty, in the store; made where there is none.

    Raises `JournalError` where it cannot be reached, `SnapshotError` where it cannot be used, and `ConfigError` without
    psycopg.
    """
    if not uri:
        return SqliteJournal(store / FILE)
    # Imported where it is wanted: psycopg is an extra.
    try:
        from ranker.postgres_journal import PostgresJournal
    except ImportError as error:
        raise ConfigError(
            f"journal names a PostgreSQL database, for which psycopg is missing ({error}): "
            "pip install -e '.[postgres]', or pip install 'psycopg[binary]'."
        ) from error
    return PostgresJournal(uri)


def kept_journal(store: Path, uri: SecretStr) -> Journal | None:
    """The same, to be read; None where it is a file that nobody has made yet."""
    return open_journal(store, uri) if uri or (store / FILE).exists() else None


def read_log(path: Path | None, store: Path, uri: SecretStr, up_to: int | None = None) -> pl.DataFrame | None:
    """The whole log in time order: imported events and the journal's `up_to` an entry. None where there is neither.

    Of a user who was erased the imported events up to then are left out.
    """
    frames = [] if path is None else [read_events(path)]
    if journal := kept_journal(store, uri):
        with closing(journal):
            erased = journal.erased()
            frames = [*(erased.dropped(frame) for frame in frames), journal.read(up_to=up_to)]
    if not frames:
        return None
    return pl.concat(frames).sort("event_time", maintain_order=True)
