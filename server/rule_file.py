"""A merchandiser's rules as a TOML file: read, checked, and told of by the rule's name where something is wrong."""

import contextlib
import datetime
import math
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    StrictFloat,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from indexer.config import Table
from indexer.errors import ConfigError
from indexer.text import normalise, query_key, tokens
from server.checks import MOST_QUERY_CHARACTERS
from server.config import nearest
from server.filters import Equals, Filter, In, Range, Scalar
from server.rules import KINDS, SEARCH, Boost, Rule, both, type_of

MOST_RULES, MOST_PINS = 1_000, 100
# What a boost may multiply; beyond it nothing moves further.
_LEAST_TIMES, _MOST_TIMES = 0.001, 1_000.0
_MOST_NAME = 1_000
_BOUNDS = ("least", "most")
# Pydantic's faults in the words of a TOML file, by their types.
_WORDS = {
    "missing": "must be given",
    "model_type": "must be a table",
    "tuple_type": "must be a list",
    "too_long": "is too long: at most {max_length:,} are accepted",
}


def _moment(value: object) -> float:
    """A TOML date, which is its beginning in UTC, or date-time, in Unix seconds."""
    if isinstance(value, datetime.datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value} says no offset; write {value.isoformat()}Z for UTC")
        return value.timestamp()
    if not isinstance(value, datetime.date):
        raise ValueError("must be a date such as 2026-06-01, or 2026-06-01T08:00:00+02:00, without quotes")
    return datetime.datetime(value.year, value.month, value.day, tzinfo=datetime.UTC).timestamp()


def _condition(value: object) -> Filter:
    """A table of columns and what each must have, all of which must hold."""
    if not isinstance(value, dict) or not value:
        raise ValueError('must be a table of columns and values, such as { brand = "Acme" }')
    made = both([_part(column, wanted) for column, wanted in value.items()])
    assert made is not None
    return made


def _part(column: str, wanted: object) -> Filter:
    match wanted:
        case dict():
            return _range(column, wanted)
        case list():
            values = [_scalar(column, each) for each in wanted]
            if len({type_of(each) for each in values}) != 1:
                raise ValueError(f"{column}: a list needs one value or more, all of one type")
            return In(column, values)
        case _:
            return Equals(column, _scalar(column, wanted))


def _scalar(column: str, value: object) -> Scalar:
    if isinstance(value, str | bool):
        return value
    return _number(column, value, "a string, a number, true, false, a list of such, or { least = 1, most = 2 }")


def _number(column: str, value: object, wanted: str) -> float:
    # TOML's whole numbers may be larger than any float.
    with contextlib.suppress(OverflowError):
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    raise ValueError(f"{column}: {value!s:.64} cannot be compared with; give {wanted}")


def _range(column: str, bounds: Mapping[str, object]) -> Range:
    if unknown := sorted(bounds.keys() - set(_BOUNDS)):
        raise ValueError(f"{column}: {nearest(unknown[0], _BOUNDS)}")
    numbers = {name: _number(f"{column}.{name}", value, "a number") for name, value in bounds.items()}
    least, most = (numbers.get(name) for name in _BOUNDS)
    if least is None and most is None:
        raise ValueError(f"{column}: is empty; give least, most or both")
    if least is not None and most is not None and least > most:
        raise ValueError(f"{column}: no number is at least {least:g} and at most {most:g}")
    return Range(column, least, most)


def _some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    # An empty list is no way to say "none": a rule whose queries were deleted would hold for every request.
    if not values:
        raise ValueError("is empty; give one, or leave it out")
    return values


Moment = Annotated[float, PlainValidator(_moment)]
Condition = Annotated[Filter, PlainValidator(_condition)]
Strings = Annotated[tuple[StrictStr, ...], AfterValidator(_some)]


class _Boost(Table):
    where: Condition
    times: StrictFloat = Field(ge=_LEAST_TIMES, le=_MOST_TIMES)


class _Rule(Table):
    """One `[[rule]]` as it is written."""

    name: StrictStr = Field(min_length=1, max_length=_MOST_NAME)
    on: Strings | None = None
    queries: Strings | None = None
    words: Strings | None = None
    begins: Moment = Field(float("-inf"), alias="from")
    ends: Moment = Field(float("inf"), alias="until")
    pin: Annotated[Strings, Field(max_length=MOST_PINS)] | None = None
    hide: Condition | None = None
    only: Condition | None = None
    boost: Annotated[tuple[_Boost, ...], AfterValidator(_some)] | None = None
    rewrite: StrictStr | None = Field(None, max_length=MOST_QUERY_CHARACTERS)
    redirect: StrictStr | None = Field(None, min_length=1)

    @field_validator("on")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise ValueError(f"there is no {unknown[0]!r}; there are {', '.join(KINDS)}")
        return kinds

    @field_validator("queries")
    @classmethod
    def _asked(cls, queries: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(normalise, queries)):
            raise ValueError("a blank query is never asked; take it out")
        return queries

    @field_validator("words")
    @classmethod
    def _words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if blank := [word for word in words if not tokens(normalise(word))]:
            raise ValueError(f"{blank[0]!r} holds no word; give one")
        return words

    @field_validator("rewrite")
    @classmethod
    def _searched(cls, query: str) -> str:
        if not normalise(query):
            raise ValueError("is blank; give the query to search")
        return query

    @field_validator("pin")
    @classmethod
    def _distinct(cls, products: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [product for product, times in Counter(products).items() if times > 1]:
            raise ValueError(f"{twice[0]!r} is there twice; a product has one place")
        return products

    @model_validator(mode="after")
    def _together(self) -> "_Rule":
        asked = self.queries or self.words
        if asked and self.on not in (None, (SEARCH,)):
            raise ValueError('queries and words are those of a search; leave on out, or write on = ["search"]')
        if (self.rewrite or self.redirect) and not asked:
            raise ValueError("rewrite and redirect need queries or words that say which searches are meant")
        if self.begins >= self.ends:
            raise ValueError("from must be before until")
        if not (self.pin or self.hide or self.only or self.boost or self.rewrite or self.redirect):
            raise ValueError("does nothing; give pin, hide, only, boost, rewrite or redirect")
        return self

    def rule(self) -> Rule:
        """What it says."""
        asked = self.queries or self.words
        return Rule(
            name=self.name,
            on=frozenset({SEARCH} if asked else self.on or KINDS),
            queries=frozenset(query_key(query) for query in self.queries or ()),
            words=frozenset(token for word in self.words or () for token in tokens(normalise(word))),
            begins=self.begins,
            ends=self.ends,
            pin=self.pin or (),
            hide=self.hide,
            only=self.only,
            boosts=tuple(Boost(boost.where, boost.times) for boost in self.boost or ()),
            rewrite=self.rewrite or "",
            redirect=self.redirect or "",
        )


class _File(Table):
    rule: tuple[_Rule, ...] = Field((), max_length=MOST_RULES)


def read_rules(path: Path) -> list[Rule]:
    """The rules of a file, in its order. Raises `ConfigError`, which tells every fault with its rule's name."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}. Mend server.rules, or leave it out.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}.") from error
    try:
        rules = [each.rule() for each in _File.model_validate(raw).rule]
    except ValidationError as error:
        raise _unusable(path, [_told(each, raw) for each in error.errors()]) from error
    if twice := [name for name, times in Counter(rule.name for rule in rules).items() if times > 1]:
        raise _unusable(path, [f"rule {name!r}: is there more than once; rename one" for name in twice])
    return rules


def _unusable(path: Path, faults: Sequence[str]) -> ConfigError:
    return ConfigError(f"{path} cannot be used:\n" + "\n".join(f"  {fault}" for fault in faults))


def _told(error: Any, raw: Mapping[str, Any]) -> str:
    """One fault in words, with the rule that it is in; for an unknown key, with the nearest known one."""
    first, *inside = error["loc"]
    message = _message(error)
    if not inside:
        return f"{first}: {message}"
    number, *place = inside
    written = raw["rule"][number]
    name = written.get("name") if isinstance(written, dict) else None
    which = f"rule {name!r}" if isinstance(name, str) else f"rule {number + 1}, without a name"
    return ": ".join([which, *([".".join(map(str, place))] if place else []), message])


def _message(error: Any) -> str:
    match error["type"]:
        case "value_error":
            return str(error["ctx"]["error"])
        case "extra_forbidden":
            models: dict[int, type[Table]] = {1: _File, 3: _Rule}
            return nearest(str(error["loc"][-1]), _keys(models.get(len(error["loc"]), _Boost)))
        case kind if kind in _WORDS:
            return _WORDS[kind].format(**error.get("ctx", {}))
        case _:
            return f"{error['msg']} (got {error['input']!s:.64})"


def _keys(model: type[Table]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
