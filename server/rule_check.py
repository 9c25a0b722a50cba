"""The command that looks at a file of rules: `vitrine rules check`."""

import time
from collections.abc import Mapping, Sequence, Set
from contextlib import closing
from typing import NamedTuple

import typer
from rich.console import Console

from indexer.errors import ConfigError
from indexer.snapshot import IndexSnapshot
from indexer.store import Store
from ranker.journals import kept_journal
from server import rule_table
from server.assortment import catalogue_moment
from server.config import Settings, load_settings
from server.filters import column_types
from server.options import DEFAULT, Config
from server.release import Releases
from server.rule_file import read_rules
from server.rules import Rule, unfit

rules = typer.Typer(help="The rules of a merchandiser.", no_args_is_help=True)
rules.callback()(lambda: None)
out = Console(markup=False, emoji=False)


class _Shop(NamedTuple):
    """What rules are held against: the columns of the live release and their types, and all products that are known."""

    release: int
    columns: Mapping[str, str]
    products: Set[str]


@rules.command("check")
def check(path: Config = DEFAULT) -> None:
    """Read the file of rules, hold it against the live release, and show what each does and whether it is in force.

    Exit code 2 where the file cannot be used. Columns and products that the release does not have are warnings.
    """
    settings = load_settings(path)
    if settings.server.rules is None:
        raise ConfigError(f"{path} names no file of rules: set server.rules.")
    written = read_rules(settings.server.rules)
    shop = _shop(settings)
    unfits = {rule.name: unfit(rule, shop.columns) if shop else "" for rule in written}
    now = time.time()
    states = [_state(rule, unfits[rule.name], now) for rule in written]
    rule_table.show(out, str(settings.server.rules), list(zip(written, states, strict=True)))
    _warn(written, unfits, shop)


def _state(rule: Rule, why: str, now: float) -> str:
    if why:
        return "out of force"
    if rule.is_due(now):
        return "in force"
    return "to come" if now < rule.begins else "over"


def _warn(written: Sequence[Rule], unfits: Mapping[str, str], shop: _Shop | None) -> None:
    """What cannot be done of the rules as long as this release is live."""
    if shop is None:
        out.print("No release is live: columns and products were not looked at.", soft_wrap=True)
        return
    for rule in written:
        if why := unfits[rule.name]:
            out.print(f"warning: rule {rule.name} is out of force: {why}", soft_wrap=True)
        if unknown := [product for product in rule.pin if product not in shop.products]:
            told = f"{', '.join(unknown)}: release {shop.release} does not hold it, and pins nothing in its place"
            out.print(f"warning: rule {rule.name} pins {told}", soft_wrap=True)


def _shop(settings: Settings) -> _Shop | None:
    """None where no release is live."""
    store = Store(settings.store)
    release = Releases(store).current()
    if release is None:
        return None
    # It is read and not searched: it need not be copied to a card.
    snapshot = IndexSnapshot(store, release.index, settings.indexer.model_copy(update={"device": "cpu"}))
    since = _upserted(settings, catalogue_moment(snapshot.manifest))
    return _Shop(release.number, column_types(snapshot.products), {*snapshot.ids, *since})


def _upserted(settings: Settings, since: int) -> list[str]:
    """The products that came after a catalogue file, which a server finds without another release."""
    if not (journal := kept_journal(settings.store, settings.journal)):
        return []
    with closing(journal):
        return [each.product_id for each in journal.upserts(since)]
