"""The command that takes a shop's journal from its store to PostgreSQL: `vitrine journal copy`."""

import typer
from rich.console import Console

from indexer.errors import ConfigError
from ranker.journals import copy_journal
from ranker.sqlite_journal import FILE
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
    if not settings.journal:
        raise ConfigError(f"{path} names no database: set journal.")
    name, position = copy_journal(settings.store, settings.journal)
    out.print(
        f"Copied to {name}: entries up to number {position.sequence}, erasures up to {position.erasures}, "
        f"changes up to {position.changes}, upserts up to {position.upserts}.",
        soft_wrap=True,
    )
    kept = "is no longer read, and keeps what is erased from now on: remove it once the servers run."
    out.print(f"{settings.store / FILE} {kept}", soft_wrap=True)
