"""The commands about one user's data: export and erase."""

import sys
from contextlib import closing
from pathlib import Path
from typing import Annotated

import polars as pl
import typer
from rich.console import Console

from indexer.canonical import EVENTS
from indexer.errors import InputError
from ranker.journals import open_journal, read_log
from server.checks import MOST_ID_BYTES
from server.config import load_settings
from server.options import DEFAULT, Config

user = typer.Typer(help="What is kept of one user.", no_args_is_help=True)
out = Console(markup=False, emoji=False)

User = Annotated[str, typer.Argument(help="The user id.")]


@user.command("export")
def export(
    name: User,
    path: Config = DEFAULT,
    to: Annotated[Path | None, typer.Option("--out", "-o", help="A file instead of the terminal.")] = None,
) -> None:
    """Write every event of a user, imported ones and the journal's, as JSON Lines in time order.

    Events that name no user are among them where they are of a session in which the user was known.
    """
    settings = load_settings(path)
    events = read_log(settings.ranker.events, settings.store, settings.journal)
    if events is None:
        events = pl.DataFrame(schema=EVENTS)
    mine = pl.col("user_id") == _checked(name)
    sessions = events.filter(mine)["session_id"].drop_nulls()
    events = events.filter(mine | (pl.col("user_id").is_null() & pl.col("session_id").is_in(sessions.implode())))
    lines = events.with_columns(pl.col("event_time").dt.to_string("iso:strict")).write_ndjson()
    if to is None:
        sys.stdout.write(lines)
    else:
        to.write_text(lines, encoding="utf-8")


@user.command("erase")
def erase(name: User, path: Config = DEFAULT) -> None:
    """Erase a user from the journal, and leave the user's imported events up to now unread from now on.

    A running server forgets the user before its next answer. It may be run while a rebuild runs, whose model then still
    counts the user; the next one does not.
    """
    settings = load_settings(path)
    with closing(open_journal(settings.store, settings.journal)) as journal:
        removed = journal.erase(_checked(name))
    out.print(f"Entries removed from {journal.name}: {removed}.")
    if settings.ranker.events is not None:
        out.print(f"{settings.ranker.events} is yours to mend: what it tells of this user up to now is no longer read.")


def _checked(name: str) -> str:
    if not 0 < len(name.encode()) <= MOST_ID_BYTES:
        raise InputError(f"A user id has 1 to {MOST_ID_BYTES} bytes, and this one has {len(name.encode())}.")
    return name
