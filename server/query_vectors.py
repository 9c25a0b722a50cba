"""The vectors of queries: what was asked lately is not embedded again."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

from indexer.arrays import Floats
from indexer.query_table import QueryEncoder


class QueryVectors:
    """An encoder behind a bounded cache, least recently used out first. Safe to call from several threads.

    `found` of the `asked` queries were in the cache, `by_table` of the others needed no pass of the encoder.
    """

    def __init__(self, encoder: QueryEncoder, most: int) -> None:
        self._encoder = encoder
        self._most = most
        self._known: OrderedDict[str, Floats] = OrderedDict()
        self._lock = threading.Lock()
        self.asked = self.found = 0

    @property
    def by_table(self) -> int:
        """See `QueryEncoder`."""
        return self._encoder.by_table

    def __call__(self, queries: Sequence[str]) -> list[Floats]:
        """The unit vector of each query; those that are not known are embedded in one pass."""
        with self._lock:
            vectors = {query: self._known[query] for query in queries if query in self._known}
            self.asked += len(queries)
            self.found += sum(query in vectors for query in queries)
        if unknown := [query for query in dict.fromkeys(queries) if query not in vectors]:
            # A copy each: a row of the whole pass would keep all of it alive.
            vectors |= {q: v.copy() for q, v in zip(unknown, self._encoder.encode(unknown), strict=True)}
        with self._lock:
            for query in dict.fromkeys(queries):
                self._known[query] = vectors[query]
                self._known.move_to_end(query)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return [vectors[query] for query in queries]
