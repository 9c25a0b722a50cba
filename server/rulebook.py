"""The rules that are in force: one file, looked at again while the server runs."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from indexer.errors import ConfigError
from server.rule_file import read_rules
from server.rules import NOTHING, Applied, Rule, Rules

logger = logging.getLogger(__name__)


class _Held(NamedTuple):
    """Rules as they were written, and what a release with these columns can follow of them."""

    written: Sequence[Rule]
    columns: Mapping[str, str]
    rules: Rules


class Rulebook:
    """The rules of a file; none where there is no file. Safe to call from several threads, of which one rereads.

    Rules are held against the columns of a release when that is first asked for. Nobody waits for a lock: each request
    names the columns that it was checked with, and two that come at once may both do it.
    """

    def __init__(self, path: Path | None) -> None:
        """Raises `ConfigError` where the file cannot be used."""
        self._path = path
        # Looked at before the file is read: what is written meanwhile is another change.
        self._stamp = None if path is None else _stamp(path)
        self._written: Sequence[Rule] = () if path is None else read_rules(path)
        self._held = _Held((), {}, Rules((), {}))
        # Why the file as it is now is not in force; empty where it is.
        self._refused = ""

    def reread(self) -> bool:
        """Take in the file if it has changed; returns whether it was. One that cannot be used is told in the log."""
        if self._path is None or (stamp := _stamp(self._path)) == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._written, self._refused = read_rules(self._path), ""
        except ConfigError as error:
            self._refused = str(error)
            logger.warning("%s\nThe rules from before stay in force.", error)
            return False
        logger.info("%d rules were read from %s", len(self._written), self._path)
        return True

    def of(self, columns: Mapping[str, str]) -> Rules:
        """The rules that a release with these columns, and their types, can follow."""
        held, written = self._held, self._written
        if held.written is not written or held.columns is not columns:
            held = self._held = _Held(written, columns, Rules(written, columns))
        return held.rules

    def applied(self, columns: Mapping[str, str], kind: str, query: str) -> Applied:
        """What holds now for a request of a kind (`rules.KINDS`); `query` is empty where it has no words."""
        return self.of(columns).applied(kind, query, time.time()) if self._written else NOTHING

    def faults(self, columns: Mapping[str, str]) -> list[str]:
        """What is wrong: why a changed file is not in force, and of the rules out of force "name: why"."""
        return [*([self._refused] if self._refused else []), *self.of(columns).faults]

    def tell(self, columns: Mapping[str, str]) -> None:
        """Tell in the log which rules a release with these columns cannot follow."""
        for fault in self.of(columns).faults:
            logger.warning("a rule is out of force: %s", fault)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
