"""Answers to protobuf, for the rpcs that reply alike."""

import uuid
from collections.abc import Mapping, Sequence, Set
from typing import Any

from google.protobuf.duration_pb2 import Duration
from vitrine.v1 import hit_pb2

from server import pages
from server.pipeline import Answer, Hit
from server.state import State

_FIELDS = tuple(hit_pb2.Hit.DESCRIPTOR.fields_by_name)
# Fields of a product that are never absent.
_ALWAYS = frozenset({"id", "title"})
_CHANNELS = {name.lower(): number for name, number in hit_pb2.RecallSource.Channel.items()}


def ranked(request: Any, offset: int, answer: Answer) -> dict[str, Any]:
    """The fields that every ranked response has."""
    return {
        "hits": hits(answer, offset, request.read_mask.paths),
        "next_page_token": pages.token_after(request, offset, answer),
        "info": info(answer, request.request_id),
    }


def hits(answer: Answer, offset: int, paths: Sequence[str] = ()) -> list[hit_pb2.Hit]:
    """The hits of a page, with the fields that `paths` name; all fields where it is empty."""
    asked: dict[str, set[str]] = {}
    for path in paths or _FIELDS:
        field, _, inside = path.partition(".")
        asked.setdefault(field, set()).add(inside)
    return [_hit(answer.state, hit, rank, asked) for rank, hit in enumerate(answer.hits, offset + 1)]


def _hit(state: State, hit: Hit, rank: int, asked: Mapping[str, Set[str]]) -> hit_pb2.Hit:
    made = hit_pb2.Hit()
    if "rank" in asked:
        made.rank = rank
    if "score" in asked:
        made.score = hit.score
    if "product" in asked:
        made.product.CopyFrom(_part(state.shelf[hit.row], asked["product"]))
    if "recall_sources" in asked:
        for source in hit.sources:
            made.recall_sources.add(channel=_CHANNELS[source.channel], rank=source.rank, score=source.score)
    if "member_scores" in asked:
        scores = hit_pb2.MemberScores(network=hit.network, trees=hit.trees, recall=hit.recall)
        made.member_scores.CopyFrom(_part(scores, asked["member_scores"]))
    return made


def _part(whole: Any, names: Set[str]) -> Any:
    """The named fields of a message; all of it where one of the names is empty. `FieldMask` takes longer."""
    if "" in names:
        return whole
    made = type(whole)()
    for name in names:
        if name == "attributes":
            made.attributes.MergeFrom(whole.attributes)
        elif name in _ALWAYS or whole.HasField(name):
            setattr(made, name, getattr(whole, name))
    return made


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
