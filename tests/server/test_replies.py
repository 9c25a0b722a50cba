"""Answers in the contract: every column in its place, durations whole."""

from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest

from server import replies
from server.pipeline import Answer, Hit, Source


def state(**columns: Any) -> Any:
    frame = pl.DataFrame({"product_id": ["p1"], "title": ["Boot"], **columns})
    return SimpleNamespace(
        snapshot=SimpleNamespace(products=frame.to_arrow(), id="index"),
        release=SimpleNamespace(number=3),
        model=SimpleNamespace(id="model"),
        encoder=SimpleNamespace(fingerprint="encoder"),
    )


def test_a_columns_type_is_kept_and_what_is_absent_is_unset() -> None:
    made = replies.product(
        state(
            category=["Shoes"],
            brand=pl.Series([None], dtype=pl.String),
            price=[0.0],
            in_stock=[False],
            colour=["red"],
            weight=[1.5],
            pieces=[3],
            organic=[False],
            note=pl.Series([None], dtype=pl.String),
        ),
        0,
    )
    assert (made.id, made.title, made.category, made.price, made.in_stock) == ("p1", "Boot", "Shoes", 0.0, False)
    # Nought and no are values; only brand says nothing.
    assert [made.HasField(name) for name in ("category", "brand", "price", "in_stock")] == [True, False, True, True]
    kinds = {name: value.WhichOneof("kind") for name, value in made.attributes.items()}
    assert kinds == {
        "colour": "string_value",
        "weight": "number_value",
        "pieces": "number_value",
        "organic": "bool_value",
    }
    assert (made.attributes["pieces"].number_value, made.attributes["organic"].bool_value) == (3.0, False)


def test_a_hit_and_its_place_on_the_page() -> None:
    hit = Hit(0, 0.5, [Source("dense", 2, 0.9), Source("related", 7, -0.1)], 0.03, None, -1.25)
    answer = Answer(cast(Any, state()), [hit], 1, [("wait", 0.0)], [])
    (made,) = replies.hits(answer, 24)
    assert (made.rank, made.score, made.product.id) == (25, 0.5, "p1")
    assert [(s.channel, s.rank, s.score) for s in made.recall_sources] == [(1, 2, 0.9), (5, 7, -0.1)]
    assert not made.member_scores.HasField("network")
    assert (made.member_scores.trees, made.member_scores.recall) == (-1.25, 0.03)


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
