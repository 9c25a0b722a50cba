"""Answers in the contract: every column in its place, durations whole."""

from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from vitrine.v1 import hit_pb2

from server import replies
from server.pipeline import Answer, Hit, Source
from server.shelf import Shelf


def state() -> Any:
    frame = pl.DataFrame({"product_id": ["p1"], "title": ["Boot"], "price": [2.5], "colour": ["red"]})
    return SimpleNamespace(
        snapshot=SimpleNamespace(id="index"),
        shelf=Shelf(frame.to_arrow()),
        release=SimpleNamespace(number=3),
        model=SimpleNamespace(id="model"),
        encoder=SimpleNamespace(fingerprint="encoder"),
    )


def test_a_hit_and_its_place_on_the_page() -> None:
    hit = Hit(0, 0.5, [Source("dense", 2, 0.9), Source("related", 7, -0.1)], 0.03, None, -1.25)
    answer = Answer(cast(Any, state()), [hit], 1, [("wait", 0.0)], [])
    (made,) = replies.hits(answer, 24)
    assert (made.rank, made.score, made.product.id) == (25, 0.5, "p1")
    assert [(s.channel, s.rank, s.score) for s in made.recall_sources] == [(1, 2, 0.9), (5, 7, -0.1)]
    assert not made.member_scores.HasField("network")
    assert (made.member_scores.trees, made.member_scores.recall) == (-1.25, 0.03)


@pytest.mark.parametrize(
    "paths",
    [
        ["score"],
        ["rank", "recall_sources"],
        ["product.id", "score"],
        ["member_scores.trees"],
        ["product.price", "product.brand", "product.attributes"],
        ["product", "product.id"],
    ],
)
def test_a_mask_leaves_out_what_it_does_not_name(paths: list[str]) -> None:
    hit = Hit(0, 0.5, [Source("dense", 2, 0.9)], 0.03, None, -1.25)
    answer = Answer(cast(Any, state()), [hit], 1, [("wait", 0.0)], [])
    (whole,), (made,) = replies.hits(answer, 0), replies.hits(answer, 0, paths)
    wanted = hit_pb2.Hit()
    FieldMask(paths=paths).MergeMessage(whole, wanted)
    assert made == wanted
    assert whole.product.price == 2.5


@pytest.mark.parametrize("spent", [0.0, 1e-7, 0.0123456, 0.9999999999, 1.5, 60.25])
def test_what_every_answer_tells(spent: float) -> None:
    answer = Answer(cast(Any, state()), [], 7, [("wait", spent)], [("score", "late")])
    told = replies.info(answer, "")
    assert told.timings[0].duration.ToNanoseconds() == pytest.approx(spent * 1e9, abs=2)
    assert [(d.stage, d.reason) for d in told.degraded] == [("score", "late")]
    versions = told.versions
    assert (versions.release, versions.index, versions.model, versions.encoder) == ("3", "index", "model", "encoder")
    assert told.attribution_token.startswith("3.")
    assert (len(told.request_id), told.candidates) == (32, 7)
    assert replies.info(answer, "mine").request_id == "mine"
