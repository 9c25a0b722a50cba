"""What differs between two readings of a catalogue."""

from typing import NamedTuple

import polars as pl

_ID = "product_id"


class Difference(NamedTuple):
    """Products that came, that went, and that stayed with another value in some column."""

    new: int
    dropped: int
    changed: int


def difference(before: pl.DataFrame, after: pl.DataFrame) -> Difference:
    """From canonical products to later ones, whatever their order. A column more or less changes every product."""
    stayed = after.join(before, on=_ID, how="semi").sort(_ID)
    were = before.join(after, on=_ID, how="semi").sort(_ID)
    return Difference(len(after) - len(stayed), len(before) - len(stayed), _changed(were, stayed))


def _changed(were: pl.DataFrame, stayed: pl.DataFrame) -> int:
    if were.schema != stayed.schema:
        return len(stayed)
    differs = [pl.col(name).ne_missing(were[name]) for name in stayed.columns]
    return int(stayed.select(pl.any_horizontal(differs).sum()).item())
