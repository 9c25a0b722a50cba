"""`vitrine doctor`: what the machine has, what each stage will use of it, and why not more."""

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from indexer.errors import ConfigError, SnapshotError
from indexer.store import Store
from server import tables
from server.config import Settings, load_settings
from server.machine import Machine, look
from server.options import DEFAULT, AsJson, Config
from server.uses import uses


def doctor(path: Config = DEFAULT, as_json: AsJson = False) -> None:
    """Show what this machine has, what each stage will use of it, and why not more.

    Works without a configuration too. Exit code 2 where the configuration asks for what is not there.
    """
    settings = Settings.model_validate({}) if path == DEFAULT and not path.exists() else load_settings(path)
    machine = look(settings.store)
    found = uses(machine, settings, _newest_index(settings))
    if as_json:
        print(json.dumps({"machine": _plain(machine), "uses": [use._asdict() for use in found]}, indent=2))
    else:
        tables.machine(Console(), machine)
        tables.uses(Console(), found)
    if faults := dict.fromkeys(use.why for use in found if use.fault):
        raise ConfigError(" ".join(faults))


def _newest_index(settings: Settings) -> Mapping[str, Any] | None:
    store = Store(settings.store)
    try:
        return store.manifest("indexes", store.latest("indexes"))
    except SnapshotError:
        return None


def _plain(machine: Machine) -> dict[str, Any]:
    cards = [card._asdict() | {"memory": card.memory._asdict()} for card in machine.cards]
    return machine._asdict() | {
        "cards": cards,
        "memory": machine.memory._asdict(),
        "disk": machine.disk._asdict(),
    }
