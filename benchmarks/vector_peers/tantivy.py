"""Tantivy: BM25 over the titles' words, in the caller's process."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import tantivy
from numpy.typing import NDArray

from vector_peers.adapter import Adapter, Ask, Data, Settings


class Tantivy:
    """Any word of the query, in its default tokeniser; ids from a column, not from stored documents."""

    packages = ("tantivy", "numpy")
    builds = ({"tokenizer": "default"},)
    searches = ({"words": "any"},)
    recalls = False

    def __init__(self, data: Data) -> None:
        self._data = data

    def build(self, settings: Settings, folder: Path) -> None:
        """An index on disk, in one segment where its merging gets that far."""
        schema = tantivy.SchemaBuilder()
        schema.add_text_field("title", stored=False, tokenizer_name=settings["tokenizer"])
        schema.add_integer_field("id", stored=False, fast=True)
        self._index = tantivy.Index(schema.build(), path=str(folder))
        writer = self._index.writer(heap_size=512_000_000, num_threads=1)
        for row, title in enumerate(self._data.titles):
            writer.add_document(tantivy.Document(title=title, id=row))
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """Queries are parsed as they are asked, quotes and other syntax left out."""
        index, searcher, k = self._index, self._index.searcher(), self._data.k
        texts = ["".join(c if c.isalnum() else " " for c in text).lower() for text in self._data.texts]

        def ask(i: int) -> Any:
            query = index.parse_query(texts[i], ["title"])
            hits = searcher.search(query, k, count=False).hits
            return searcher.fast_field_values("id", [address for _, address in hits])

        return ask

    def rows(self, answer: Any) -> NDArray[np.int64]:
        """Ids are rows."""
        return np.array(answer, np.int64)

    def close(self) -> None:
        """Nothing was started."""


def make(data: Data) -> Adapter:
    """The adapter."""
    return Tantivy(data)
