"""Rules as a table, for the people who write them."""

import math
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from server.filters import All, Equals, Filter, In, Range
from server.rules import KINDS, Rule


def show(console: Console, title: str, listed: Sequence[tuple[Rule, str]]) -> None:
    """Rules, each with whether it is in force."""
    table = Table("rule", "for", "when", "does", "now", title=title)
    for column in table.columns:
        column.overflow = "fold"
    for rule, state in listed:
        table.add_row(rule.name, _asked(rule), _window(rule), _done(rule), state)
    console.print(table)


def _asked(rule: Rule) -> str:
    """What a rule holds for."""
    queries = [f"“{query}”" for query in sorted(rule.queries)]
    words = [f"with {' and '.join(sorted(rule.words))}"] if rule.words else []
    kinds = [kind for kind in KINDS if kind in rule.on]
    return f"search {', '.join(queries + words)}" if queries or words else f"every {', '.join(kinds)}"


def _window(rule: Rule) -> str:
    begins = [f"from {_minute(rule.begins)}"] if math.isfinite(rule.begins) else []
    ends = [f"until {_minute(rule.ends)}"] if math.isfinite(rule.ends) else []
    return " ".join([*begins, *ends]) or "always"


def _minute(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(moment))


def _done(rule: Rule) -> str:
    """What a rule does, a line for each."""
    lines = {
        f"searches “{rule.rewrite}”": rule.rewrite,
        f"redirects to {rule.redirect}": rule.redirect,
        f"pins {', '.join(rule.pin)}": rule.pin,
        f"hides {rule.hide and _condition(rule.hide)}": rule.hide,
        f"shows only {rule.only and _condition(rule.only)}": rule.only,
    }
    boosts = [f"moves {_condition(boost.where)} × {boost.times:g}" for boost in rule.boosts]
    return "\n".join([*(line for line, given in lines.items() if given), *boosts])


def _condition(condition: Filter) -> str:
    """A condition of a rule in a line."""
    match condition:
        case Equals(column, value):
            return f"{column} {value}"
        case In(column, values):
            return f"{column} {' or '.join(map(str, values))}"
        case Range(column, least, most):
            signs = (("≥", least), ("≤", most))
            return f"{column} {' and '.join(f'{sign} {bound:g}' for sign, bound in signs if bound is not None)}"
        case All(parts):
            return ", ".join(map(_condition, parts))
        case _:
            return str(condition)
