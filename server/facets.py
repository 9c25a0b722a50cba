"""Facets: what the candidates of an answer have in a column, counted."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from vitrine.v1 import facet_pb2, filter_pb2

from indexer.arrays import Ints
from server import conditions
from server.faults import ViolationError

_MOST_FACETS = 20
_DEFAULT_VALUES, _MOST_VALUES = 20, 100


class Facet(NamedTuple):
    """The values of a column, most frequent first, or its least and greatest number; and how many have none."""

    column: str
    counts: Sequence[tuple[str | bool, int]] = ()
    extent: tuple[float, float] | None = None
    missing: int = 0


def asked(specs: Sequence[facet_pb2.FacetSpec], columns: Mapping[str, str]) -> list[tuple[str, int]]:
    """Checked facets: columns, and how many values of each are told. Raises `ViolationError`."""
    if len(specs) > _MOST_FACETS:
        raise ViolationError("facets", f"has {len(specs)} columns; at most {_MOST_FACETS} are counted")
    for place, spec in enumerate(specs):
        conditions.column(spec.column, f"facets[{place}]", columns)
        if spec.limit < 0:
            raise ViolationError(f"facets[{place}].limit", "is negative; 0 gives the default")
    return [(spec.column, min(spec.limit or _DEFAULT_VALUES, _MOST_VALUES)) for spec in specs]


def facets(columns: Iterable[tuple[str, int]], products: pa.Table, rows: Ints) -> list[Facet]:
    """What `rows` of a catalogue have in each of `columns`, of which at most so many values are told."""
    return [_facet(name, products.column(name).take(pa.array(rows)), most) for name, most in columns]


def _facet(name: str, values: pa.ChunkedArray, most: int) -> Facet:
    known = values.drop_null()
    missing = len(values) - len(known)
    if pa.types.is_integer(known.type) or pa.types.is_floating(known.type):
        extent = pc.min_max(known)
        least, greatest = extent["min"].as_py(), extent["max"].as_py()
        return Facet(name, extent=None if least is None else (float(least), float(greatest)), missing=missing)
    counts = [(each["values"], each["counts"]) for each in pc.value_counts(known).to_pylist()]
    if not pa.types.is_boolean(known.type):
        counts = [(str(value), count) for value, count in counts]
    return Facet(name, sorted(counts, key=lambda each: (-each[1], each[0]))[:most], missing=missing)


def told(counted: Sequence[Facet]) -> list[facet_pb2.Facet]:
    """Facets in the contract."""
    return [
        facet_pb2.Facet(
            column=facet.column,
            counts=[facet_pb2.Facet.Count(value=_value(value), count=count) for value, count in facet.counts],
            min=facet.extent and facet.extent[0],
            max=facet.extent and facet.extent[1],
            missing=facet.missing,
        )
        for facet in counted
    ]


def _value(value: str | bool) -> filter_pb2.Value:
    return filter_pb2.Value(bool_value=value) if isinstance(value, bool) else filter_pb2.Value(string_value=value)
