"""Answers to protobuf, for the rpcs that reply alike."""

import uuid
from typing import Any

from google.protobuf.duration_pb2 import Duration
from vitrine.v1 import filter_pb2, hit_pb2, product_pb2

from server import pages
from server.pipeline import Answer, Hit
from server.state import State

# Canonical product columns that have a field of their own; all others are attributes.
_FIELDS = ("product_id", "title", "category", "brand", "price", "in_stock")


def ranked(request: Any, offset: int, answer: Answer) -> dict[str, Any]:
    """The fields that every ranked response has."""
    return {
        "hits": hits(answer, offset),
        "next_page_token": pages.token_after(request, offset, answer),
        "info": info(answer, request.request_id),
    }


def product(state: State, row: int) -> product_pb2.Product:
    """The product of a row."""
    columns = state.snapshot.products.slice(row, 1).to_pylist()[0]
    made = product_pb2.Product(id=columns["product_id"], title=columns["title"])
    for name, value in columns.items():
        if value is None or name in ("product_id", "title"):
            continue
        if name in _FIELDS:
            setattr(made, name, value)
        else:
            made.attributes[name].CopyFrom(_value(value))
    return made


def _value(value: Any) -> filter_pb2.Value:
    if isinstance(value, bool):
        return filter_pb2.Value(bool_value=value)
    if isinstance(value, (int, float)):
        return filter_pb2.Value(number_value=value)
    return filter_pb2.Value(string_value=str(value))


def hits(answer: Answer, offset: int) -> list[hit_pb2.Hit]:
    """The hits of a page."""
    return [_hit(answer.state, hit, offset + i + 1) for i, hit in enumerate(answer.hits)]


def _hit(state: State, hit: Hit, rank: int) -> hit_pb2.Hit:
    return hit_pb2.Hit(
        product=product(state, hit.row),
        rank=rank,
        score=hit.score,
        recall_sources=[
            hit_pb2.RecallSource(channel=source.channel.upper(), rank=source.rank, score=source.score)
            for source in hit.sources
        ],
        member_scores=hit_pb2.MemberScores(network=hit.network, trees=hit.trees, recall=hit.recall),
    )


def versions(state: State) -> hit_pb2.Versions:
    """What answers."""
    return hit_pb2.Versions(
        release=str(state.release.number),
        index=state.snapshot.id,
        model=state.model.id,
        encoder=state.encoder.fingerprint,
    )


def info(answer: Answer, request_id: str) -> hit_pb2.AnswerInfo:
    """What every ranked answer carries beside its hits."""
    return hit_pb2.AnswerInfo(
        attribution_token=f"{answer.state.release.number}.{uuid.uuid4().hex}",
        request_id=request_id or uuid.uuid4().hex,
        versions=versions(answer.state),
        timings=[hit_pb2.StageTiming(stage=stage, duration=_duration(spent)) for stage, spent in answer.timings],
        degraded=[hit_pb2.Degradation(stage=stage, reason=reason) for stage, reason in answer.degraded],
        candidates=answer.candidates,
    )


def _duration(spent: float) -> Duration:
    return Duration(seconds=int(spent), nanos=int(spent % 1 * 1e9))
