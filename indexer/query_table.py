"""Short queries without a pass of the model: vectors of tokens whose sum points to where the model puts the query."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexer.arrays import Array, Floats, Ints, mapped
from indexer.encoder import Encoder
from indexer.errors import SnapshotError
from indexer.text import normalise

# A query of more tokens, the two marks of its ends among them, is left to the model: in a sum the order of a sentence's
# words is lost.
LONGEST = 32
_ROWS, _VECTORS = "query_tokens.npy", "query_vectors.npy"


class QueryTable:
    """What `indexer.distil` fitted to an encoder: row `rows[t]` of `vectors` is token t's, and -1 says it has none.

    `rows` is int64 [greatest token + 1], `vectors` float16 or float32 [tokens, dimensions].
    """

    def __init__(self, rows: Ints, vectors: Array) -> None:
        self._rows = rows
        self._vectors = vectors

    @classmethod
    def load(cls, folder: Path) -> "QueryTable":
        """Open what `save` wrote, memory-mapped. Raises `SnapshotError` where it is missing or damaged."""
        try:
            table = cls(mapped(folder / _ROWS), mapped(folder / _VECTORS))
            if table._rows.max(initial=-1) >= len(table._vectors):
                raise ValueError("its tokens name vectors that are not there")
            return table
        except (OSError, EOFError, ValueError) as error:
            raise SnapshotError(f"{folder} is damaged: {error}. Build the index again.") from error

    def save(self, folder: Path) -> None:
        """Write both arrays into `folder`."""
        np.save(folder / _ROWS, self._rows)
        np.save(folder / _VECTORS, self._vectors)

    def __len__(self) -> int:
        return len(self._vectors)

    def embed(self, token_ids: Sequence[int]) -> Floats | None:
        """The unit vector float32 [dimensions] of a query; None of a long one, or one with a token it does not know."""
        if not 0 < len(token_ids) <= LONGEST or max(token_ids) >= len(self._rows):
            return None
        rows = self._rows[token_ids]
        if rows.min() < 0:
            return None
        total = self._vectors[rows].sum(0, dtype=np.float32)
        length = np.sqrt(total @ total)
        return np.asarray(total / length, np.float32) if length > 0 else None


class QueryEncoder:
    """Queries to unit vectors: by the index's table where it has one that knows the query, else by the encoder.

    `by_table` counts what the table answered. Safe to call from several threads.
    """

    def __init__(self, encoder: Encoder, table: QueryTable | None) -> None:
        self._encoder = encoder
        self._table = table
        self._lock = threading.Lock()
        self.by_table = 0

    def encode(self, queries: Sequence[str]) -> Floats:
        """Unit vectors float32 [queries, dimensions]."""
        if self._table is None:
            return self._encoder.encode(queries)
        vectors = np.empty((len(queries), self._encoder.dimensions), np.float32)
        rest = []
        for i, token_ids in enumerate(self._encoder.tokeniser([normalise(query) for query in queries])):
            if (vector := self._table.embed(token_ids)) is None:
                rest.append(i)
            else:
                vectors[i] = vector
        if rest:
            vectors[rest] = self._encoder.encode([queries[i] for i in rest])
        with self._lock:
            self.by_table += len(queries) - len(rest)
        return vectors
