"""What every index can do. Scores are inner products, which are cosines for unit vectors; larger is nearer."""

from pathlib import Path
from typing import NamedTuple, Protocol

from indexer.arrays import Floats, Ints, Mask

# The row of a place that could not be filled.
NOTHING = -1


class Neighbours(NamedTuple):
    """`rows` int64 [queries, k], best first, filled up with NOTHING; `scores` float32 [queries, k], -inf there."""

    rows: Ints
    scores: Floats


class Index(Protocol):
    """A searchable set of vectors; a vector's id is its row."""

    @property
    def kind(self) -> str:
        """`exact`, the FAISS factory string, or where it is searched: `exact on cuda:0 (float16)`."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    def __len__(self) -> int:
        """Number of vectors."""

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """The k nearest rows to each query [queries, dimensions]; with `mask` [rows], only rows where it is true."""

    def save(self, folder: Path) -> None:
        """Write what `open_index` needs, beside vectors.npy, into `folder`."""
