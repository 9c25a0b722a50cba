"""What the card process does for its workers: the requests that wait for one index or encoder, answered together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from indexer.arrays import Array, Bits, Floats
from indexer.encoder import Encoder
from indexer.placement import Placed
from indexer.wire import Message


class Work(Protocol):
    """Something open. `told` is what a worker learns of it."""

    told: dict[str, Any]

    def read(self, message: Message) -> Any:
        """A request, as it waits for others."""

    def run(self, asked: Sequence[Any]) -> list[Sequence[Array]]:
        """The arrays that answer each of the requests."""


class Search(NamedTuple):
    """`queries` float32 [queries, dimensions], and the mask of each; of an array that is given several times, one."""

    queries: Floats
    k: int
    masks: Sequence[Bits | None]


class Searches:
    """The searches of one index."""

    def __init__(self, index: Placed) -> None:
        self.told: dict[str, Any] = {"kind": index.kind}
        self._index = index

    def read(self, message: Message) -> Search:
        """See `Work.read`."""
        queries, *bits = message.arrays
        masks = [None if place is None else bits[place] for place in message.told["under"]]
        return Search(queries, message.told["k"], masks)

    def run(self, asked: Sequence[Search]) -> list[Sequence[Array]]:
        """The neighbours of each request: one search for all that ask for as many."""
        answers: dict[int, Sequence[Array]] = {}
        for k in {each.k for each in asked}:
            mine = {place: each for place, each in enumerate(asked) if each.k == k}
            masks = [mask for each in mine.values() for mask in each.masks]
            found = self._index.search_each(np.concatenate([each.queries for each in mine.values()]), k, masks)
            parts = zip(*(_split(part, [len(each.queries) for each in mine.values()]) for part in found), strict=True)
            answers |= dict(zip(mine, parts, strict=True))
        return [answers[place] for place in range(len(asked))]


class Encodings:
    """The batches of one encoder."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        """The tokeniser is left in `folder`, for the workers."""
        self._tokeniser, self._forward = encoder.tokeniser, encoder.forward
        names = ("name", "fingerprint", "dimensions", "backend", "tuned", "choice")
        left = folder / encoder.fingerprint
        left.mkdir(exist_ok=True)
        self._tokeniser.save(left)
        self.told: dict[str, Any] = {name: getattr(encoder, name) for name in names} | {"tokeniser": str(left)}

    def read(self, message: Message) -> list[list[int]]:
        """See `Work.read`: the token ids of each text."""
        input_ids, attention_mask = message.arrays
        return [row[kept].tolist() for row, kept in zip(input_ids, attention_mask.astype(bool), strict=True)]

    def run(self, asked: Sequence[list[list[int]]]) -> list[Sequence[Array]]:
        """The vectors of each request, all by one pass."""
        vectors = self._forward(*self._tokeniser.pad([row for rows in asked for row in rows]))
        return [[part] for part in _split(vectors, [len(rows) for rows in asked])]


def _split(array: Array, lengths: Sequence[int]) -> list[Array]:
    return np.split(array, np.cumsum(lengths)[:-1])
