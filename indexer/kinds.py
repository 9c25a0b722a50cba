"""Which index a catalogue gets: as it is configured, or by its size."""

import math

from indexer.config import IndexerConfig

# What `auto` makes of some ten thousand vectors. Beside HNSW32: half the links, a tenth quicker at a recall of 0.98.
GRAPH = "HNSW16"
# Inverted lists for each square root of the rows.
_LISTS = 4


def chosen_kind(config: IndexerConfig, rows: int, dimensions: int) -> str:
    """The index kind for `rows` vectors."""
    if config.index != "auto":
        return config.index
    if rows <= config.exact_up_to:
        return "exact"
    return GRAPH if rows <= config.graph_up_to else inverted(rows, dimensions)


def inverted(rows: int, dimensions: int) -> str:
    """Inverted lists of what vectors differ by from their list's centre, in four bits for two components.

    FAISS scans such codes in a processor's registers (André, Kermarrec, Le Scouarnec, "Cache locality is not enough",
    VLDB 2015). The scores are estimates: whoever searches scores the best anew.
    """
    lists = 2 ** round(math.log2(_LISTS * math.sqrt(rows)))
    return f"IVF{lists},PQ{dimensions // 2 if dimensions % 2 == 0 else dimensions}x4fsr"
