"""Peers side by side: on cases to reckon by hand, and all of them on a small made-up shop."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from peers.compare import Answer, by_query, by_user
from peers.context import NO_HISTORY, Case
from peers.figures import Order

from ranker.examples import Slice
from ranker.history import PURCHASE
from ranker.log import Request

ranking: Any = pytest.importorskip("ranking", reason="needs the extra `peers`", exc_type=ModuleNotFoundError)
PRODUCTS = 120


def request(wanted: dict[int, float], time: float = 10.0, user: str | None = "a", **more: Any) -> Request:
    return Request(time, user, more.get("query", ""), more.get("rows"), None, wanted)


def test_new_to_user_takes_the_history_out_of_ranking_and_answers() -> None:
    case = Case(request({0: 1.0, 2: 1.0}), np.array([0, 1]))
    found = by_user([Answer(case, np.array([4.0, 3.0, 2.0, 1.0]), None)], Order(4))
    assert found["all"]["ndcg@10"]["mean"] == pytest.approx((1 + 1 / 2) / (1 + 1 / np.log2(3)), abs=1e-5)
    assert found["new_to_user"]["ndcg@10"]["mean"] == 1.0


def test_a_query_is_judged_in_its_pool_and_recalled_from_the_catalogue() -> None:
    case = Case(request({1: 1.0, 150: 3.0}, query="q", rows=np.array([1, 150])), NO_HISTORY)
    scores = -np.arange(200.0)
    found = by_query([Answer(case, scores, scores[[1, 150]])], Order(200), positive_grade=1.0)["all"]
    ideal = 7 + 1 / np.log2(3)
    assert found["ndcg@10"]["mean"] == pytest.approx((1 + 7 / np.log2(3)) / ideal, abs=1e-5)
    assert found["recall@100"]["mean"] == 0.5


class Words:
    """Embeds a text as the one of its words that is a number."""

    tuned = None

    def encode(self, texts: list[str]) -> Any:
        return np.stack([np.eye(PRODUCTS, dtype=np.float32)[int(text.split()[-1])] for text in texts])


def shop(requests: list[tuple[Request, Slice]]) -> Any:
    """Users of 6 groups, each of which buys among 20 products of its own."""
    rng = np.random.default_rng(0)
    users = np.arange(1_200) % 60
    rows = users % 6 * 20 + rng.integers(0, 20, 1_200)
    times = np.arange(1_200.0)
    engagements = pl.DataFrame(
        {"user_id": [f"u{user}" for user in users], "row": rows, "kind": np.full(1_200, PURCHASE), "time": times}
    )
    titles = pa.table({"title": [f"thing {row}" for row in range(PRODUCTS)]})

    class Snapshot:
        products, vectors = titles, np.eye(PRODUCTS, dtype=np.float32)

        def __len__(self) -> int:
            return PRODUCTS

    settings = SimpleNamespace(
        ranker=SimpleNamespace(positive_grade=2.0), indexer=SimpleNamespace(encoder="models/words")
    )
    prepared = SimpleNamespace(requests=requests, engagements=engagements, cuts=[0.0] * 4)
    return ranking.Shop(settings, None, Snapshot(), SimpleNamespace(events=None), prepared, Words(), None, 0)


def test_each_peer_by_user_has_its_row_and_those_that_learn_beat_chance() -> None:
    asked = []
    for i in range(60):
        part, start = (Slice.VALIDATE, 800.0) if i < 30 else (Slice.TEST, 1_000.0)
        asked.append((request({i % 6 * 20 + 7: 1.0}, start + i, f"u{i}"), part))
    said: list[str] = []
    found = ranking.compare_users(shop(asked), 25, None, 1.0, said.append)
    assert found["requests"] == 25
    assert found["strangers"] == 0
    recall = {row["name"]: row["all"]["recall@100"]["mean"] for row in found["peers"]}
    hits = {row["name"]: row["all"]["hr@10"]["mean"] for row in found["peers"]}
    assert len(hits) == len(said) - 1 == 10
    assert recall["item-kNN"] == 1.0
    for name in ("item-kNN", "implicit ALS", "implicit BPR", "TIFU-KNN"):
        assert hits[name] > hits["random"]
    assert [len(row["tried"]) for row in found["peers"] if "tried" in row] == [3, 3, 3]


def test_each_peer_by_query_has_its_row() -> None:
    rows = np.array([33, 34, 35])
    asked = [
        (request({33 + i % 3: 3.0}, 1.0, None, query=f"thing {33 + i % 3}", rows=rows), Slice.TEST) for i in range(24)
    ]
    found = ranking.compare_queries(shop(asked), 1_000, lambda _: None)
    figures = {row["name"]: row["all"] for row in found["peers"]}
    assert len(figures) == 5
    for name in ("BM25 (bm25s)", "words cosine, zero-shot", "BM25 + cosine (RRF)", "BM25 + cosine (z-score sum)"):
        assert figures[name]["ndcg@10"]["mean"] == 1.0
    assert figures["random"]["ndcg@10"]["mean"] < 1.0


def test_a_set_without_requests_of_a_kind_has_no_figures_of_it() -> None:
    empty = shop([(request({1: 1.0}), Slice.TEST)])
    assert ranking.compare_users(empty, 10, None, 1.0, lambda _: None) is None
    assert ranking.compare_queries(empty, 10, lambda _: None) is None
    assert ranking.compare_explicit(empty, None, lambda _: None) is None
