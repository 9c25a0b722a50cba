"""CAGRA (Ootomo et al., ICDE 2024): a graph built on a card, and searched on a CPU as the base level of HNSW."""

from functools import partial
from typing import Any

import faiss
import numpy as np
import torch

from indexer.arrays import Floats
from indexer.device import choose
from indexer.errors import ConfigError
from indexer.owner import owner_of


def card_for(links: int, wanted: str) -> torch.device:
    """The card that a graph of `links` a row is built on, where `wanted` is `indexer.device`.

    Raises `ConfigError` where there is no card, or FAISS cannot build such a graph.
    """
    device = choose(wanted)
    if device.type == "cpu":
        raise ConfigError(
            f'indexer.index = "CAGRA{links}" is built on an NVIDIA card, and indexer.device = "{wanted}" chooses the '
            'CPU. Build where there is a card, with the extra "gpu" (faiss-gpu-cuvs), or use "auto".'
        )
    if not hasattr(faiss, "GpuIndexCagra"):
        raise ConfigError(
            f'indexer.index = "CAGRA{links}" needs FAISS with cuVS, and this is FAISS {faiss.__version__} without. '
            'Install the extra "gpu" (faiss-gpu-cuvs) in place of the other FAISS, or use "auto".'
        )
    return device


def empty(links: int, dimensions: int) -> Any:
    """A `faiss.IndexHNSWCagra` without vectors, to which none can be added."""
    index = faiss.IndexHNSWCagra(dimensions, links // 2, faiss.METRIC_INNER_PRODUCT)
    # The levels above would be built on the CPU, one vector after the other. A search starts at the best of 256 rows.
    index.base_level_only = True
    return index


def built(links: int, vectors: Floats, device: torch.device) -> Any:
    """The graph of all `vectors`, a `faiss.IndexHNSWCagra`.

    Raises `ConfigError` where there are too few vectors, or the card cannot build it.
    """
    least = 2 * links + 1
    if len(vectors) < least:
        raise ConfigError(
            f'indexer.index = "CAGRA{links}" needs at least {least} vectors, and there are {len(vectors)}. Use "auto".'
        )
    try:
        return owner_of(device).run(partial(_built, links, vectors, device))
    except (RuntimeError, MemoryError) as error:
        raise ConfigError(
            f'indexer.index = "CAGRA{links}" cannot be built of {len(vectors):,} vectors on {device}: {error}. '
            'Use "auto".'
        ) from error


def _built(links: int, vectors: Floats, device: torch.device) -> Any:
    if device.type == "cuda":
        # FAISS cannot use what PyTorch keeps of freed tensors.
        torch.cuda.empty_cache()
    config = faiss.GpuIndexCagraConfig()
    config.device = device.index or 0
    config.use_cuvs = True
    config.graph_degree = links
    # Of twice as many near rows the links are chosen, as FAISS does by default.
    config.intermediate_graph_degree = 2 * links
    graph = faiss.GpuIndexCagra(faiss.StandardGpuResources(), vectors.shape[1], faiss.METRIC_INNER_PRODUCT, config)
    # Not a copy that is gone when the graph is copied: it may refer to it.
    vectors = np.ascontiguousarray(vectors, np.float32)
    graph.train(vectors)
    index = empty(links, vectors.shape[1])
    graph.copyTo(index)
    return index
