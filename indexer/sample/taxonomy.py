"""The words of the sample shop, coded: departments, types, brands and attributes, each in English and Chinese."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SLOTS = ("feature", "material", "colour", "size")
COLOUR, SIZE = SLOTS.index("colour"), SLOTS.index("size")
NONE = -1  # the code of "has no such thing"


@dataclass(frozen=True)
class Words:
    """The names of codes 0, 1, ... in both languages."""

    en: tuple[str, ...]
    zh: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.en)

    def name(self, codes: Ints, zh: Bools | bool = False) -> pl.Series:
        """The word of each code, Chinese where `zh`, null where the code is `NONE`."""
        places = pl.Series(codes + len(self) * np.asarray(zh), dtype=pl.Int64)
        return pl.Series(self.en + self.zh).gather(places.set(pl.Series(codes == NONE), None))


@dataclass(frozen=True)
class Taxonomy:
    """Every array is indexed by a type, brand or attribute code. `choices` is [types, slots, width], `NONE` padded."""

    departments: Words
    types: Words
    type_department: Ints
    type_prices: Floats
    type_consumable: Bools
    choices: Ints
    brands: Words
    brand_codes: tuple[str, ...]
    brand_department: Ints
    brand_tier: Floats
    attributes: Words
    attribute_slot: Ints
    lines: Words


@cache
def load_taxonomy() -> Taxonomy:
    """The taxonomy of `taxonomy.toml`."""
    text = (files("indexer.sample") / "taxonomy.toml").read_text(encoding="utf-8")
    return _code(tomllib.loads(text))


def _code(data: dict[str, Any]) -> Taxonomy:
    departments = data["department"]
    types = [(place, entry) for place, department in enumerate(departments) for entry in department["types"]]
    brands = [(place, brand) for place, entry in enumerate(departments) for brand in _split(entry["brands"])]
    words = {slot: {name: _split(text) for name, text in data[slot].items()} for slot in SLOTS}
    coded = {(slot, *pair): None for slot in SLOTS for pairs in words[slot].values() for pair in pairs}
    codes = {key: code for code, key in enumerate(coded)}
    choices = [
        [[codes[(slot, *pair)] for pair in words[slot][entry[slot]]] if slot in entry else [] for slot in SLOTS]
        for _, entry in types
    ]
    return Taxonomy(
        departments=_words([_split(entry["name"])[0] for entry in departments]),
        types=_words([_split(entry["name"])[0] for _, entry in types]),
        type_department=np.array([place for place, _ in types]),
        type_prices=np.array([entry["price"] for _, entry in types], dtype=np.float64),
        type_consumable=np.array([entry.get("consumable", False) for _, entry in types]),
        choices=_pad(choices),
        brands=_words([brand for _, brand in brands]),
        brand_codes=tuple(brand[2] for _, brand in brands),
        brand_department=np.array([place for place, _ in brands]),
        brand_tier=np.concatenate([np.linspace(0.75, 1.4, len(_split(entry["brands"]))) for entry in departments]),
        attributes=_words([key[1:] for key in codes]),
        attribute_slot=np.array([SLOTS.index(key[0]) for key in codes]),
        lines=_words(_split(data["lines"])),
    )


def _split(text: str) -> list[tuple[str, ...]]:
    return [tuple(item.split("=")) for item in text.split(", ")]


def _words(entries: Sequence[tuple[str, ...]]) -> Words:
    return Words(tuple(entry[0] for entry in entries), tuple(entry[1] or entry[0] for entry in entries))


def _pad(choices: list[list[list[int]]]) -> Ints:
    width = max(len(codes) for slots in choices for codes in slots)
    return np.array([[codes + [NONE] * (width - len(codes)) for codes in slots] for slots in choices])
