"""The command that takes a shop's journal from its store to PostgreSQL: `vitrine journal copy`."""

from contextlib import closing

import typer
from rich.console import Console

from indexer.errors import ConfigError, InputError
from ranker.journals import open_journal
from ranker.sqlite_journal import FILE, SqliteJournal
from server.config import load_settings
from server.options import DEFAULT, Config

journal = typer.Typer(help="Where events and changes to the catalogue are kept.", no_args_is_help=True)
journal.callback()(lambda: None)
out = Console(markup=False, emoji=False)


@journal.command("copy")
def copy(path: Config = DEFAULT) -> None:
    """Copy the journal of the store into the PostgreSQL database that `journal` names, which must hold none yet.

    Stop the servers first: what they write meanwhile is not copied. The file stays as it is.
    """
    settings = load_settings(path)
    file = settings.store / FILE
    if not settings.journal:
        raise ConfigError(f"{path} names no database: set journal.")
    if not file.exists():
        raise InputError(f"{file} does not exist: there is nothing to copy, and a server may be started.")
    with closing(open_journal(settings.store, settings.journal)) as there, closing(SqliteJournal(file)) as here:
        from ranker.postgres_journal import PostgresJournal

        assert isinstance(there, PostgresJournal)
        with here.whole() as whole:
            there.take_over(whole)
        position = there.position()
    out.print(
        f"Copied to {there.name}: entries up to number {position.sequence}, erasures up to {position.erasures}, "
        f"changes up to {position.changes}, upserts up to {position.upserts}.",
        soft_wrap=True,
    )
    out.print(
        f"{file} is no longer read, and what is erased from now on stays in it: remove it once the servers run.",
        soft_wrap=True,
    )
