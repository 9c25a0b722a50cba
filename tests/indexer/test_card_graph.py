"""CAGRA: what a card builds is stood in for by a graph made on the CPU, copied as `GpuIndexCagra` copies its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from indexer import card_graph, dense
from indexer.arrays import Floats
from indexer.card_graph import built, card_for, empty
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex, open_index
from indexer.device import choose
from indexer.errors import ConfigError
from indexer.exact import ExactIndex
from indexer.index import NOTHING
from indexer.tuning import filled, measure_recall

Draw = Callable[[int, int], Floats]
CPU = torch.device("cpu")
KIND, LINKS = "CAGRA16", 16
CONFIG = IndexerConfig(index=KIND)


class Graph:
    """As `GpuIndexCagra`: a row is linked with its nearest and, as by its detours, with others far away."""

    made: list["Graph"]

    def __init__(self, resources: Any, dimensions: int, metric: int, config: SimpleNamespace) -> None:
        assert isinstance(resources, Resources)
        assert metric == faiss.METRIC_INNER_PRODUCT
        self.dimensions, self.config = dimensions, config
        self.made.append(self)

    def train(self, vectors: Floats) -> None:
        assert vectors.dtype == np.float32
        assert vectors.flags.c_contiguous
        self.vectors = vectors

    def copyTo(self, index: Any) -> None:  # noqa: N802 - FAISS's name
        rows, links = len(self.vectors), self.config.graph_degree
        assert index.base_level_only
        assert index.hnsw.nb_neighbors(0) == links
        index.hnsw.prepare_level_tab(rows, False)
        index.storage.add(self.vectors)
        index.ntotal = rows
        near = np.argsort(-(self.vectors @ self.vectors.T), axis=1)[:, 1 : links // 2 + 1]
        far = np.random.default_rng(0).integers(rows, size=(rows, links - links // 2))
        first = faiss.vector_to_array(index.hnsw.offsets)[:-1].astype(np.int64)
        table = faiss.rev_swig_ptr(index.hnsw.neighbors.data(), index.hnsw.neighbors.size())
        table[first[:, None] + np.arange(links)] = np.hstack([near, far])


class Resources:
    """As `StandardGpuResources`."""


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Graph]]:
    """A machine with a card, on which the CPU computes."""
    Graph.made = []
    monkeypatch.setattr(faiss, "GpuIndexCagra", Graph, raising=False)
    monkeypatch.setattr(faiss, "GpuIndexCagraConfig", SimpleNamespace, raising=False)
    monkeypatch.setattr(faiss, "StandardGpuResources", Resources, raising=False)
    monkeypatch.setattr(card_graph, "card_for", lambda *_: CPU)
    yield Graph
    Graph.made = []


def test_a_graph_is_built_as_configured(card: type[Graph], clustered: Draw) -> None:
    vectors = clustered(500, 1)
    vectors.flags.writeable = False
    index = built(LINKS, vectors[::2], CPU)
    [graph] = card.made
    assert vars(graph.config) == {
        "device": 0,
        "use_cuvs": True,
        "graph_degree": 16,
        "intermediate_graph_degree": 32,
    }
    assert (graph.dimensions, index.ntotal, index.d) == (32, 250, 32)
    np.testing.assert_array_equal(index.reconstruct_n(0, 250), vectors[::2])


def test_it_is_searched_and_filtered_like_hnsw(card: type[Graph], clustered: Draw) -> None:
    vectors, queries = clustered(3_000, 1), clustered(30, 2)
    index = DenseIndex.build(KIND, vectors, CONFIG).extended(vectors)
    assert (index.kind, len(index), index.dimensions) == (KIND, 3_000, 32)
    exact = ExactIndex(vectors)
    assert measure_recall(index, exact, queries, 20) > 0.9
    rows, scores = index.search_with(400, queries, 20, None)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, rows, 1), atol=1e-5)
    assert (np.diff(scores, axis=1) <= 0).all()
    mask = np.random.default_rng(0).random(3_000) < 0.5
    near = index.search(queries, 20, mask).rows
    assert mask[near].all()
    found = [len(set(one) & set(other)) for one, other in zip(near, exact.search(queries, 20, mask).rows, strict=True)]
    assert np.mean(found) > 0.9 * 20
    # Few are kept: those that the graph does not meet are found all the same.
    mask = np.arange(3_000) < 25
    np.testing.assert_array_equal(index.search(queries, 20, mask).rows, exact.search(queries, 20, mask).rows)


def test_a_batch_is_its_single_queries(card: type[Graph], clustered: Draw) -> None:
    vectors, queries = clustered(1_000, 1), clustered(10, 2)
    index = DenseIndex.build(KIND, vectors, CONFIG).extended(vectors)
    together = index.search_with(1_000, queries, 10, None).rows
    for place in range(10):
        alone = index.search_with(1_000, queries[[place]], 10, None).rows
        np.testing.assert_array_equal(alone[0], together[place])


def test_saved_it_is_mapped_and_served_without_a_card(
    card: type[Graph], clustered: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, queries = clustered(1_000, 1), clustered(10, 2)
    index = DenseIndex.build(KIND, vectors, CONFIG).extended(vectors)
    index.save(tmp_path)
    for name in ("GpuIndexCagra", "GpuIndexCagraConfig", "StandardGpuResources"):
        monkeypatch.delattr(faiss, name)
    opened = open_index(KIND, tmp_path, vectors, IndexerConfig(index=KIND, device="cpu"))
    assert isinstance(opened, DenseIndex)
    assert (opened.kind, len(opened)) == (KIND, 1_000)
    for mask in (None, np.arange(1_000) % 2 == 0):
        before, after = index.search(queries, 10, mask), opened.search(queries, 10, mask)
        np.testing.assert_array_equal(before.rows, after.rows)
        np.testing.assert_array_equal(before.scores, after.scores)


def test_it_is_tuned_like_hnsw(card: type[Graph], clustered: Draw) -> None:
    vectors = clustered(1_000, 1)
    index, entry = filled(KIND, vectors, CONFIG)
    assert isinstance(index, DenseIndex)
    assert (index.kind, entry["kind"], len(index)) == (KIND, KIND, 1_000)
    # Once without the rows held out, once with all: nothing can be added to it.
    assert [len(graph.vectors) for graph in card.made] == [900, 1_000]
    efforts = [point["effort"] for point in entry["tuning"]["points"]]
    assert efforts == sorted(set(efforts))
    assert efforts[0] == 100
    assert entry["recall_at_100"] > 0.9
    assert index.tuning.effort == entry["tuning"]["effort"]


def test_an_index_that_holds_all_is_not_built_again(card: type[Graph], clustered: Draw) -> None:
    vectors = clustered(100, 1)
    index = DenseIndex.build(KIND, vectors, CONFIG).extended(vectors)
    index.extended(vectors)
    assert len(card.made) == 1


def test_an_empty_graph_finds_nothing(clustered: Draw) -> None:
    index = DenseIndex(KIND, empty(LINKS, 32), clustered(0, 1), CONFIG)
    rows, scores = index.search(clustered(2, 2), 3)
    assert (rows == NOTHING).all()
    assert (scores == -np.inf).all()


def test_too_few_vectors_are_named(card: type[Graph], clustered: Draw) -> None:
    with pytest.raises(ConfigError, match=r'indexer\.index = "CAGRA16" needs at least 33 vectors, and there are 32'):
        built(LINKS, clustered(32, 1), CPU)
    assert built(LINKS, clustered(33, 1), CPU).ntotal == 33


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), MemoryError("out of memory")])
def test_what_a_card_cannot_build_is_told(
    error: Exception, card: type[Graph], clustered: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(Graph, "train", fails)
    with pytest.raises(
        ConfigError, match=r'"CAGRA16" cannot be built of 50 vectors on cpu: out of memory\. Use "auto"'
    ):
        built(LINKS, clustered(50, 1), CPU)


def test_without_a_card_the_build_says_what_it_needs(clustered: Draw) -> None:
    with pytest.raises(ConfigError, match=r'is built on an NVIDIA card, and indexer\.device = "cpu" .* extra "gpu"'):
        DenseIndex.build(KIND, clustered(100, 1), IndexerConfig(index=KIND, device="cpu"))


def test_without_cuvs_the_build_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card_graph, "choose", lambda _: torch.device("cuda:1"))
    monkeypatch.delattr(faiss, "GpuIndexCagra", raising=False)
    with pytest.raises(ConfigError, match=r'needs FAISS with cuVS, .* Install the extra "gpu" \(faiss-gpu-cuvs\)'):
        card_for(LINKS, "auto")
    monkeypatch.setattr(faiss, "GpuIndexCagra", Graph, raising=False)
    assert card_for(LINKS, "auto") == torch.device("cuda:1")


def test_the_factory_is_not_asked_for_it(card: type[Graph], clustered: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense.faiss, "index_factory", lambda *_: pytest.fail("FAISS's factory knows no CAGRA"))
    assert len(DenseIndex.build(KIND, clustered(100, 1), CONFIG)) == 0


@pytest.mark.gpu
def test_a_card_builds_what_the_cpu_searches(clustered: Draw, tmp_path: Path) -> None:
    if not hasattr(faiss, "GpuIndexCagra"):
        pytest.skip("FAISS is installed without cuVS")
    vectors, queries = clustered(20_000, 1), clustered(100, 2)
    device = card_for(32, "cuda:0")
    assert device == choose("cuda:0")
    index = DenseIndex("CAGRA32", built(32, vectors, device), vectors, CONFIG)
    index.save(tmp_path)
    opened = DenseIndex.load("CAGRA32", tmp_path, vectors, CONFIG)
    for each in (index, opened):
        assert measure_recall(each, ExactIndex(vectors), queries, 20) > 0.95
    mask = np.random.default_rng(0).random(20_000) < 0.5
    assert mask[opened.search(queries, 20, mask).rows].all()
