from collections.abc import Callable

import numpy as np
import pytest

from indexer import tuning
from indexer.arrays import Floats
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex
from indexer.exact import ExactIndex
from indexer.planner import Tuning
from indexer.tuning import filled, measure_recall, tuned

Draw = Callable[[int, int], Floats]


def of_lists(vectors: Floats, config: IndexerConfig) -> DenseIndex:
    return DenseIndex.build("IVF16,Flat", vectors, config).extended(vectors)


def test_the_least_effort_that_reaches_the_target() -> None:
    # Without clusters every list holds some of the neighbours.
    vectors = np.random.default_rng(0).normal(size=(2_100, 16)).astype(np.float32)
    held, queries = vectors[:2_000], vectors[2_000:]
    recalls = [
        measure_recall(of_lists(held, IndexerConfig(nprobe=lists)), ExactIndex(held), queries)
        for lists in (1, 2, 3, 4, 6)
    ]
    config = IndexerConfig(recall_target=(recalls[1] + recalls[2]) / 2)
    made = tuned(of_lists(held, config), ExactIndex(held), queries, config)
    assert (made.target, made.effort) == (config.recall_target, 3)
    # Two more are tried for whoever wants more.
    assert [point.effort for point in made.points] == [1, 2, 3, 4, 6]
    assert [point.recall for point in made.points] == pytest.approx(recalls, abs=1e-3)
    easy = config.model_copy(update={"recall_target": recalls[0] / 2})
    assert [point.effort for point in tuned(of_lists(held, easy), ExactIndex(held), queries, easy).points] == [1, 2, 3]


def test_where_nothing_reaches_the_target_the_most_that_was_found(clustered: Draw) -> None:
    vectors, queries = clustered(2_000, 1), clustered(100, 2)
    config = IndexerConfig(recall_target=1.0, nprobe=2)
    made = tuned(of_lists(vectors, config), ExactIndex(vectors), queries, config)
    assert ([point.effort for point in made.points], made.effort) == ([2], 2)
    assert made.points[0].recall < 1.0


def test_filters_are_measured_at_every_share(clustered: Draw) -> None:
    vectors, queries = clustered(2_000, 1), clustered(100, 2)
    config = IndexerConfig()
    index = DenseIndex.build("HNSW16", vectors, config).extended(vectors)
    made = tuned(index, ExactIndex(vectors), queries, config)
    assert [each.share for each in made.filtered] == [0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    for each in made.filtered:
        assert [point.effort for point in each.points] == [made.effort * wider for wider in (1, 2, 4, 8)]
        assert each.exact_ms > 0
        assert all(point.ms > 0 for point in each.points)
    # The whole graph is visited, or nearly: what is found falls with the share at one effort, rises with the effort.
    least, all_kept = made.filtered[0].points, made.filtered[-1].points
    assert least[0].recall < all_kept[0].recall
    assert least[0].recall < least[-1].recall


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Floats, Floats]]:
    """The vectors the index held and those it was asked for, at each tuning."""
    seen: list[tuple[Floats, Floats]] = []

    def watched(index: DenseIndex, oracle: ExactIndex, queries: Floats, config: IndexerConfig) -> Tuning:
        assert len(index) == len(oracle)
        seen.append((oracle.vectors.copy(), queries.copy()))
        return tuned(index, oracle, queries, config)

    monkeypatch.setattr(tuning, "tuned", watched)
    return seen


def test_an_index_is_tuned_with_vectors_it_does_not_hold_yet(
    clustered: Draw, held: list[tuple[Floats, Floats]]
) -> None:
    vectors = clustered(2_000, 1)
    index, entry = filled("IVF16,Flat", vectors, IndexerConfig(nprobe=4))
    [(inside, outside)] = held
    np.testing.assert_array_equal(np.concatenate([inside, outside]), vectors)
    assert (len(outside), entry["held_out"], len(index)) == (200, 200, 2_000)
    # A quarter of the lists.
    assert 0.5 < entry["recall_at_100"] < 1.0
    assert isinstance(index, DenseIndex)
    assert entry["tuning"] == index.tuning.told()


@pytest.mark.parametrize(("kind", "rows"), [("exact", 100), ("HNSW16", 9), ("HNSW16", 1)])
def test_without_a_vector_to_spare_nothing_is_measured(kind: str, rows: int, clustered: Draw) -> None:
    index, entry = filled(kind, clustered(rows, 1), IndexerConfig())
    assert entry == {"kind": kind, "recall_at_100": 1.0, "held_out": rows // 10}
    assert (index.kind, len(index)) == (kind, rows)


@pytest.mark.parametrize("rows", [10, 99, 150])
@pytest.mark.parametrize("kind", ["Flat", "HNSW16", "IVF2,Flat"])
def test_few_vectors_are_enough(kind: str, rows: int, clustered: Draw) -> None:
    vectors = clustered(rows, 1)
    index, entry = filled(kind, vectors, IndexerConfig())
    assert entry["recall_at_100"] >= 0.98
    assert index.search(vectors, 1).rows[:, 0].tolist() == list(range(rows))


@pytest.mark.parametrize("kind", ["SQ4", "IVF16,Flat", "Flat"])
def test_recall_is_the_share_of_the_true_neighbours(kind: str, clustered: Draw) -> None:
    vectors, queries = clustered(1_000, 1), clustered(20, 2)
    index = DenseIndex.build(kind, vectors, IndexerConfig(nprobe=2)).extended(vectors)
    true = np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :50]
    found = index.search(queries, 50).rows
    shares = [len(set(t) & set(f)) / 50 for t, f in zip(true.tolist(), found.tolist(), strict=True)]
    assert measure_recall(index, ExactIndex(vectors), queries, k=50) == pytest.approx(np.mean(shares), abs=1e-3)


def test_recall_without_queries_or_rows_is_whole(clustered: Draw) -> None:
    full, empty = ExactIndex(clustered(10, 1)), ExactIndex(clustered(0, 1))
    assert measure_recall(full, full, clustered(0, 2)) == 1.0
    assert measure_recall(empty, empty, clustered(3, 2)) == 1.0
    assert measure_recall(full, full, clustered(3, 2), k=100) == 1.0
