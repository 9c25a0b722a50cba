"""Answers to protobuf, for the rpcs that reply alike."""

import uuid
from collections.abc import Sequence, Set
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from vitrine.v1 import hit_pb2

from server import pages
from server.pipeline import Answer, Hit
from server.state import State

_FIELDS = frozenset(hit_pb2.Hit.DESCRIPTOR.fields_by_name)
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
    asked = {path.partition(".")[0] for path in paths} or _FIELDS
    made = [_hit(answer.state, hit, rank, asked) for rank, hit in enumerate(answer.hits, offset + 1)]
    return [_masked(hit, paths) for hit in made] if any("." in path for path in paths) else made


def _hit(state: State, hit: Hit, rank: int, asked: Set[str]) -> hit_pb2.Hit:
    made = hit_pb2.Hit()
    if "rank" in asked:
        made.rank = rank
    if "score" in asked:
        made.score = hit.score
    if "product" in asked:
        made.product.CopyFrom(state.shelf[hit.row])
    if "recall_sources" in asked:
        for source in hit.sources:
            made.recall_sources.add(channel=_CHANNELS[source.channel], rank=source.rank, score=source.score)
    if "member_scores" in asked:
        made.member_scores.CopyFrom(hit_pb2.MemberScores(network=hit.network, trees=hit.trees, recall=hit.recall))
    return made


def _masked(hit: hit_pb2.Hit, paths: Sequence[str]) -> hit_pb2.Hit:
    made = hit_pb2.Hit()
    FieldMask(paths=paths).MergeMessage(hit, made)
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
