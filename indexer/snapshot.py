"""A published index, opened: products, vectors, token lists and the searchable indexes, all memory-mapped."""

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from indexer.arrays import Floats, Ints, mapped
from indexer.config import IndexerConfig
from indexer.dense import open_index
from indexer.errors import SnapshotError
from indexer.index import Index
from indexer.lexical import LexicalIndex
from indexer.query_table import QueryTable
from indexer.rendered import open_rendered
from indexer.store import Store

PRODUCTS = "products.arrow"
VECTORS = "vectors.npy"
TOKENS = "tokens.npy"
TOKEN_OFFSETS = "token_offsets.npy"
LEXICAL = "lexical"


class TokenLists(NamedTuple):
    """The token hashes of every title: row i is `hashes[offsets[i]:offsets[i + 1]]`, int64."""

    hashes: Ints
    offsets: Ints


class IndexSnapshot:
    """An INDEX of the store. Row numbers are the same in the products, the vectors, the tokens and the indexes."""

    def __init__(self, store: Store, name: str, config: IndexerConfig) -> None:
        """Raises `SnapshotError` where the index is missing, damaged or of another format."""
        self.id = name
        self.folder: Path = store.path("indexes", name)
        self.manifest: dict[str, Any] = store.manifest("indexes", name)
        try:
            with pa.memory_map(str(self.folder / PRODUCTS)) as source:
                self.products: pa.Table = pa.ipc.open_file(source).read_all()
            self.vectors: Floats = mapped(self.folder / VECTORS)
            self.tokens = TokenLists(mapped(self.folder / TOKENS), mapped(self.folder / TOKEN_OFFSETS))
        except (OSError, EOFError, ValueError) as error:
            raise SnapshotError(f"{self.folder} is damaged: {error}. Build the index again.") from error
        entry = self.manifest["index"]
        self.index: Index = open_index(entry["kind"], self.folder, self.vectors, config, entry.get("tuning"))
        self.lexical = LexicalIndex.load(self.folder / LEXICAL)
        self.rendered = open_rendered(self.folder)
        distilled = self.manifest.get("queries", {}).get("used", False)
        self.query_table = QueryTable.load(self.folder) if distilled else None
        for part in (self.lexical, self.rendered):
            if len(part) != len(self):
                raise SnapshotError(
                    f"{self.folder} is damaged: one part holds {len(part)} rows, {len(self)} expected. "
                    "Build the index again."
                )

    @property
    def encoder_fingerprint(self) -> str:
        """The encoder that made the vectors."""
        return str(self.manifest["encoder"]["fingerprint"])

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def ids(self) -> list[str]:
        """The product id of every row."""
        return list(self.products.column("product_id").to_pylist())

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of every product id."""
        return {product_id: row for row, product_id in enumerate(self.ids)}


def open_latest(store: Store, config: IndexerConfig) -> IndexSnapshot:
    """The newest published index."""
    return IndexSnapshot(store, store.latest("indexes"), config)
