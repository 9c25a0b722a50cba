"""The products of a page as arrays, and as protobuf's bytes, which one compiled loop writes.

Messages made in Python take ten times as long. The encoding is that of https://protobuf.dev/programming-guides/encoding.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.extending import register_jitable
from vitrine.v1 import hit_pb2, product_pb2

from indexer.arrays import Array, Bytes, Doubles, Ints, Mask
from indexer.machine_code import machine_code
from indexer.rendered import Rendered
from ranker.recall import Channel

_VARINT, _DOUBLE, _MESSAGE = 0, 1, 2


def _key(message: Any, field: str, kind: int) -> int:
    return int(message.DESCRIPTOR.fields_by_name[field].number << 3 | kind)


# Every ranked response has its hits in field 1, and what is written here is a part of any of them.
_HIT = 1 << 3 | _MESSAGE
_PRODUCT = _key(hit_pb2.Hit, "product", _MESSAGE)
_RANK = _key(hit_pb2.Hit, "rank", _VARINT)
_SCORE = _key(hit_pb2.Hit, "score", _DOUBLE)
_SOURCES = _key(hit_pb2.Hit, "recall_sources", _MESSAGE)
_MEMBERS = _key(hit_pb2.Hit, "member_scores", _MESSAGE)
_SOURCE_CHANNEL = _key(hit_pb2.RecallSource, "channel", _VARINT)
_SOURCE_RANK = _key(hit_pb2.RecallSource, "rank", _VARINT)
_SOURCE_SCORE = _key(hit_pb2.RecallSource, "score", _DOUBLE)
_MEMBER = tuple(_key(hit_pb2.MemberScores, name, _DOUBLE) for name in ("network", "trees", "recall"))
# Bytes of a key and a length; of a hit, besides its product and its sources; of a source.
_HEAD = 6
_MOST_HIT = 2 * _HEAD + _HEAD + 9 + 2 + 3 * 9
_MOST_SOURCE = 2 + 2 + _HEAD + 9

_CHANNELS = {name.lower(): number for name, number in hit_pb2.RecallSource.Channel.items()}
_FIELDS = tuple(hit_pb2.Hit.DESCRIPTOR.fields_by_name)
# Fields of a product that are never absent.
_ALWAYS = frozenset({"id", "title"})
_ID = frozenset({"id"})

# The asked fields of a hit, each with its asked parts; "" stands for the whole.
Asked = Mapping[str, Set[str]]


@dataclass(frozen=True)
class Hits:
    """The products of a page, best first: arrays [hits]. A member's scores are None where it was not run.

    `places` [channels, hits] is each hit's rank in each recall channel, 0 where the channel did not propose it, and
    `proposed` [channels, hits] the channel's own score of it.
    """

    rows: Ints
    scores: Doubles
    recall: Doubles
    network: Doubles | None
    trees: Doubles | None
    channels: Sequence[str]
    places: Ints
    proposed: Doubles

    def __len__(self) -> int:
        return len(self.rows)


def proposals(rows: Ints, channels: Sequence[Channel]) -> tuple[Ints, Doubles]:
    """The `places` and `proposed` of a page of these rows."""
    places, proposed = np.empty((len(channels), len(rows)), np.int64), np.empty((len(channels), len(rows)))
    for i, channel in enumerate(channels):
        places[i], proposed[i] = _proposed(rows, channel.rows, channel.scores)
    return places, proposed


@machine_code
def _proposed(rows: Ints, among: Ints, scores: Doubles) -> tuple[Ints, Doubles]:
    places, proposed = np.zeros(len(rows), np.int64), np.zeros(len(rows))
    for i in range(len(rows)):
        for at in range(len(among)):
            if among[at] == rows[i]:
                places[i] = at + 1
                proposed[i] = scores[at]
                break
    return places, proposed


def asked_of(paths: Sequence[str]) -> Asked:
    """What a read mask asks for: all fields where it is empty."""
    asked: dict[str, set[str]] = {}
    for path in paths or _FIELDS:
        field, _, inside = path.partition(".")
        asked.setdefault(field, set()).add(inside)
    return asked


def explained(request: Any) -> bool:
    """Whether a request asks why, and its read mask does not leave the answer to that out."""
    return bool(request.explain) and "explanation" in asked_of(request.read_mask.paths)


def serialised(hits: Hits, rank: int, rendered: Rendered, asked: Asked) -> bytes:
    """The `hits` of a ranked response; the first has rank `rank`. Other fields' bytes may follow."""
    if not len(hits):
        return b""  # A page beyond the end, whose rank may be beyond any number of 64 bits.
    parts = asked.get("member_scores", frozenset())
    members = dict(zip(("network", "trees", "recall"), (hits.network, hits.trees, hits.recall), strict=True))
    shown = [(name in parts or "" in parts) and scores is not None for name, scores in members.items()]
    values = [np.zeros(len(hits)) if scores is None else scores for scores in members.values()]
    written: Bytes = _written(
        *_products(hits.rows, rendered, asked.get("product")),
        rank,
        hits.scores.view(np.uint64),
        np.array([_CHANNELS[name] for name in hits.channels], np.int64),
        hits.places,
        hits.proposed.view(np.uint64),
        np.array(values).view(np.uint64),
        np.array(shown),
        np.array([field in asked for field in ("product", "rank", "score", "recall_sources", "member_scores")]),
    )
    return written.tobytes()


def _products(rows: Ints, rendered: Rendered, names: Set[str] | None) -> tuple[Array, Ints, Ints]:
    """Bytes that hold the products' messages, and where each begins and ends in them."""
    whole = names is None or "" in names
    if rendered.holds(rows):
        starts = rendered.offsets[rows]
        if whole and rendered.as_built(rows):
            return rendered.messages, starts, rendered.offsets[rows + 1]
        if names == _ID and (lengths := rendered.messages[starts + 1]).max() < 128:
            # The id is the first field of the message: its key, its length in one byte, its text.
            return rendered.messages, starts, starts + 2 + lengths
    products = map(rendered.product, rows.tolist())
    asked = products if names is None or whole else (_part(product, names) for product in products)
    parts = [product.SerializeToString(deterministic=True) for product in asked]
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), ends[:-1], ends[1:]


def _part(whole: product_pb2.Product, names: Set[str]) -> product_pb2.Product:
    """The named fields of a product. `FieldMask` takes longer."""
    made = product_pb2.Product()
    for name in names:
        if name == "attributes":
            made.attributes.MergeFrom(whole.attributes)
        elif name in _ALWAYS or whole.HasField(name):
            setattr(made, name, getattr(whole, name))
    return made


@machine_code
def _written(
    messages: Bytes,
    starts: Ints,
    ends: Ints,
    rank: int,
    scores: Array,
    channels: Ints,
    places: Ints,
    proposed: Array,
    members: Array,
    shown: Mask,
    fields: Mask,
) -> Bytes:
    """Doubles come as their bits, uint64. A field that holds its default is left out, as protobuf does."""
    product, ranked, scored, sourced, membered = fields
    most = 0
    for hit in range(len(scores)):
        most += _MOST_HIT + ends[hit] - starts[hit] + len(channels) * _MOST_SOURCE
    out = np.empty(most, np.uint8)
    at = 0
    for hit in range(len(scores)):
        # A length stands before what it measures: the hit is written where its longest head would end, and moved.
        begin = at + _HEAD
        end = begin
        if product:
            length = ends[hit] - starts[hit]
            end = _varint(out, end, _PRODUCT)
            end = _varint(out, end, length)
            out[end : end + length] = messages[starts[hit] : ends[hit]]
            end += length
        if ranked:
            end = _varint(out, end, _RANK)
            end = _varint(out, end, rank + hit)
        if scored and scores[hit]:
            end = _double(out, end, _SCORE, scores[hit])
        if sourced:
            for channel in range(len(channels)):
                place = places[channel, hit]
                if place:
                    head = end
                    # No source is longer than 127 bytes: its length is one.
                    end = _varint(out, head + 2, _SOURCE_CHANNEL)
                    end = _varint(out, end, channels[channel])
                    end = _varint(out, end, _SOURCE_RANK)
                    end = _varint(out, end, place)
                    if proposed[channel, hit]:
                        end = _double(out, end, _SOURCE_SCORE, proposed[channel, hit])
                    _varint(out, head, _SOURCES)
                    _varint(out, head + 1, end - head - 2)
        if membered:
            head = end
            end = head + 2
            for member in range(len(_MEMBER)):
                if shown[member]:
                    end = _double(out, end, _MEMBER[member], members[member, hit])
            _varint(out, head, _MEMBERS)
            _varint(out, head + 1, end - head - 2)
        at = _varint(out, at, _HIT)
        at = _varint(out, at, end - begin)
        for byte in range(begin, end):
            out[at] = out[byte]
            at += 1
    return out[:at]


def _varint(out: Bytes, at: int, value: int) -> int:
    """Write a number that is not negative; returns the place after it."""
    while value >= 128:
        out[at] = value & 127 | 128
        value >>= 7
        at += 1
    out[at] = value
    return at + 1


def _double(out: Bytes, at: int, key: int, bits: np.uint64) -> int:
    out[at] = key
    for byte in range(8):
        out[at + 1 + byte] = (bits >> np.uint64(8 * byte)) & np.uint64(255)
    return at + 9


# Called rather than put above the functions, whose types it would hide from the type checker.
register_jitable(_varint)
register_jitable(_double)
