"""Answers to protobuf, for the rpcs that reply alike."""

import uuid
from collections.abc import Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration
from vitrine.v1 import hit_pb2

from server import pages
from server.hits import asked_of, serialised
from server.pipeline import Answer
from server.rules import Rule
from server.state import State


def ranked(
    request: Any,
    offset: int,
    answer: Answer,
    response: Any,
    explanations: Sequence[hit_pb2.Explanation] = (),
    **others: Any,
) -> bytes:
    """A ranked `response` (its type), serialised; `others` are fields that not every one has.

    `explanations` are the hits', or none.
    """
    rendered, asked = answer.offer.rendered, asked_of(request.read_mask.paths)
    rest = response(
        next_page_token=pages.token_after(request, offset, answer), info=info(answer, request.request_id), **others
    )
    # A message is its fields one after the other: these two parts are one message.
    written = serialised(answer.hits, offset + 1, rendered, asked) + bytes(rest.SerializeToString())
    if not explanations:
        return written
    whole = response.FromString(written)
    for hit, explanation in zip(whole.hits, explanations, strict=True):
        hit.explanation.CopyFrom(explanation)
    return bytes(whole.SerializeToString())


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
        applied_rules=[_applied(rule, answer) for rule in answer.applied.rules],
    )


def _applied(rule: Rule, answer: Answer) -> hit_pb2.AppliedRule:
    return hit_pb2.AppliedRule(
        name=rule.name,
        pinned_product_ids=[product for product in answer.pinned if answer.applied.pins[product] == rule.name],
        rewritten_query=rule.rewrite if rule is answer.applied.rewriting else "",
    )


def _duration(spent: float) -> Duration:
    return Duration(seconds=int(spent), nanos=int(spent % 1 * 1e9))
