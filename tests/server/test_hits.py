"""The bytes of a page are those that protobuf itself would write."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from vitrine.v1 import hit_pb2, recommend_service_pb2, search_service_pb2

from indexer.rendered import Inventory, Rendered, open_rendered, write_rendered
from ranker.recall import Channel
from server.hits import Hits, asked_of, proposals, serialised

RESPONSES = (
    search_service_pb2.SearchResponse,
    search_service_pb2.SimilarResponse,
    recommend_service_pb2.RecommendResponse,
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    folder = tmp_path_factory.mktemp("rendered")
    # Lengths on both sides of 128 and 16,384, where a length takes one byte more.
    lengths = [1, 90, 100, 110, 120, 16_300, 16_400]
    columns = {
        # The last id's length takes two bytes.
        "product_id": [*(f"p{i}" for i in range(6)), "p" * 128],
        "title": ["靴" + "x" * n for n in lengths],
        "price": [None, 0.0, *range(1, 6)],
        "colour": [None, *["red"] * 6],
    }
    write_rendered(pl.DataFrame(columns), folder)
    return open_rendered(folder)


def drawn(seed: int, **given: Any) -> Hits:
    """A page with zeros, absent sources and both signs."""
    rng, n = np.random.default_rng(seed), int(given.pop("n", 7))

    def values(*shape: int) -> np.ndarray:
        return rng.normal(size=shape) * (rng.random(shape) > 0.3)

    made = Hits(
        rows=rng.permutation(7)[:n],
        scores=values(n),
        recall=values(n),
        network=values(n),
        trees=values(n),
        channels=["dense", "lexical", "covisited"],
        places=rng.integers(1, 300, (3, n)) * (rng.random((3, n)) > 0.4),
        proposed=values(3, n),
    )
    return replace(made, **given)


def message(hits: Hits, rank: int, rendered: Rendered) -> Any:
    """The page by protobuf's own means."""
    made = search_service_pb2.SearchResponse()
    for i in range(len(hits)):
        hit = made.hits.add(rank=rank + i, score=hits.scores[i], product=rendered.product(int(hits.rows[i])))
        for channel, place, score in zip(hits.channels, hits.places[:, i], hits.proposed[:, i], strict=True):
            if place:
                hit.recall_sources.add(channel=channel.upper(), rank=place, score=score)
        hit.member_scores.recall = hits.recall[i]
        if hits.network is not None:
            hit.member_scores.network = hits.network[i]
        if hits.trees is not None:
            hit.member_scores.trees = hits.trees[i]
    return made


@pytest.mark.parametrize("rank", [1, 97, 9_990])
@pytest.mark.parametrize("given", [{}, {"network": None}, {"network": None, "trees": None}, {"n": 0}, {"n": 1}])
def test_a_page_is_what_protobuf_writes(rendered: Rendered, rank: int, given: dict[str, Any]) -> None:
    for seed in range(5):
        hits = drawn(seed, **given)
        expected = message(hits, rank, rendered).SerializeToString(deterministic=True)
        assert serialised(hits, rank, rendered, asked_of([])) == expected


def test_an_empty_page_may_begin_anywhere(rendered: Rendered) -> None:
    assert serialised(drawn(0, n=0), 10**30, rendered, asked_of([])) == b""


def test_a_page_that_no_channel_proposed(rendered: Rendered) -> None:
    hits = drawn(0, channels=[], places=np.empty((0, 7), np.int64), proposed=np.empty((0, 7)))
    assert serialised(hits, 1, rendered, asked_of([])) == message(hits, 1, rendered).SerializeToString()


@pytest.mark.parametrize(
    "paths",
    [
        ["score"],
        ["rank", "recall_sources"],
        ["product.id"],
        ["product.id", "score"],
        ["product.brand"],
        ["member_scores.trees"],
        ["member_scores.network", "member_scores.recall"],
        ["product.price", "product.brand", "product.attributes"],
        ["product", "product.id"],
        ["product.attributes"],
    ],
)
def test_a_mask_leaves_out_what_it_does_not_name(rendered: Rendered, paths: list[str]) -> None:
    hits = drawn(1)
    found = search_service_pb2.SearchResponse.FromString(serialised(hits, 25, rendered, asked_of(paths)))
    for whole, made in zip(message(hits, 25, rendered).hits, found.hits, strict=True):
        wanted = hit_pb2.Hit()
        FieldMask(paths=paths).MergeMessage(whole, wanted)
        if any(path.startswith("product") for path in paths):
            wanted.product.SetInParent()
        assert made == wanted


def test_ids_are_cut_from_the_products(rendered: Rendered) -> None:
    for rows in ([0, 3, 5], [0, 6]):
        hits = drawn(1, n=len(rows), rows=np.array(rows))
        page = search_service_pb2.SearchResponse.FromString(serialised(hits, 1, rendered, asked_of(["product.id"])))
        assert [hit.product for hit in page.hits] == [
            type(hit.product)(id=rendered.product(row).id) for hit, row in zip(page.hits, rows, strict=True)
        ]


@pytest.fixture
def changed(rendered: Rendered) -> Rendered:
    """Row 0 gets a price, row 2 another one and stock, row 6 stock; 9 is what no other row may show."""
    price, in_stock = np.full(7, 9.0), np.ones(7)
    price[[0, 2]], in_stock[[2, 6]] = (0.5, 7.25), (0.0, 1.0)
    return rendered.stocked(Inventory(price, in_stock, *(np.isin(np.arange(7), rows) for rows in ((0, 2), (2, 6)))))


def test_a_page_shows_live_prices_and_stock(rendered: Rendered, changed: Rendered) -> None:
    hits = drawn(3)
    expected = message(hits, 1, rendered)
    for hit, row in zip(expected.hits, hits.rows.tolist(), strict=True):
        if row in (0, 2):
            hit.product.price = {0: 0.5, 2: 7.25}[row]
        if row in (2, 6):
            hit.product.in_stock = row == 6
    assert serialised(hits, 1, changed, asked_of([])) == expected.SerializeToString(deterministic=True)
    page = search_service_pb2.SearchResponse.FromString(
        serialised(hits, 1, changed, asked_of(["product.price", "product.in_stock"]))
    )
    for hit, whole in zip(page.hits, expected.hits, strict=True):
        assert not hit.product.id
        for field in ("price", "in_stock"):
            assert hit.product.HasField(field) == whole.product.HasField(field)
            assert getattr(hit.product, field) == getattr(whole.product, field)


def test_a_page_without_a_change_is_copied_as_ever(
    rendered: Rendered, changed: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = drawn(4, n=3, rows=np.array([1, 3, 5]))
    expected = serialised(hits, 1, rendered, asked_of([]))
    monkeypatch.setattr(Rendered, "product", None)
    assert serialised(hits, 1, changed, asked_of([])) == expected


@pytest.mark.parametrize("response", RESPONSES)
def test_what_follows_joins_the_hits(rendered: Rendered, response: Any) -> None:
    hits, rest = drawn(2), response(next_page_token="more", info=hit_pb2.AnswerInfo(candidates=9))
    found = response.FromString(serialised(hits, 1, rendered, asked_of([])) + rest.SerializeToString())
    assert list(found.hits) == list(message(hits, 1, rendered).hits)
    assert (found.next_page_token, found.info.candidates) == ("more", 9)


def test_proposals_are_places_in_the_channels() -> None:
    channels = [
        Channel("dense", np.array([5, 3, 9]), np.array([0.9, 0.8, 0.7])),
        Channel("lexical", np.array([], np.int64), np.array([])),
        Channel("popular", np.array([9]), np.array([2.5])),
    ]
    places, proposed = proposals(np.array([9, 4, 5]), channels)
    assert places.tolist() == [[3, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert proposed.tolist() == [[0.7, 0.0, 0.9], [0.0, 0.0, 0.0], [2.5, 0.0, 0.0]]
