import faiss
import pytest

from indexer.config import IndexerConfig
from indexer.kinds import GRAPH, chosen_kind, inverted


@pytest.mark.parametrize(
    ("setting", "rows", "kind"),
    [
        ("auto", 100, "exact"),
        ("auto", 101, GRAPH),
        ("auto", 1_000, GRAPH),
        ("auto", 1_001, "IVF128,PQ32x4fsr"),
        ("exact", 10**7, "exact"),
        ("IVF16,Flat", 1, "IVF16,Flat"),
    ],
)
def test_the_kind_follows_the_setting_and_the_rows(setting: str, rows: int, kind: str) -> None:
    assert chosen_kind(IndexerConfig(index=setting, exact_up_to=100, graph_up_to=1_000), rows, 64) == kind


def test_lists_grow_with_the_root_of_the_rows() -> None:
    lists = [inverted(rows, 384).partition(",")[0] for rows in (10**5, 10**6, 10**7)]
    assert lists == ["IVF1024", "IVF4096", "IVF16384"]


@pytest.mark.parametrize("dimensions", [1, 2, 7, 64, 384])
def test_faiss_makes_it_for_any_number_of_dimensions(dimensions: int) -> None:
    assert faiss.index_factory(dimensions, inverted(1_000, dimensions), faiss.METRIC_INNER_PRODUCT).d == dimensions
