"""What an adapter of an engine is, and the data it is given. Imported by peers' interpreters: NumPy is all it needs."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Settings = Mapping[str, Any]
# Asks the query of a number; the answer is ids in whatever form the engine gives them.
Ask = Callable[[int], Any]
# Two scores of one pair, summed in another order, differ by less.
_TIE = 1e-5


class Data:
    """The files of a folder: titles, their unit vectors, queries, their unit vectors, and what exact search found."""

    def __init__(self, folder: Path, k: int, options: Settings) -> None:
        self.folder, self.k, self.options = folder, k, options
        self.vectors: NDArray[np.float32] = np.load(folder / "vectors.npy", mmap_mode="r")
        self.queries: NDArray[np.float32] = np.load(folder / "queries.npy")
        # The score of the k-th best of each query.
        self.least: NDArray[np.float32] = np.load(folder / "least.npy")

    @cached_property
    def texts(self) -> list[str]:
        """The queries in words."""
        return list(json.loads((self.folder / "texts.json").read_text(encoding="utf-8")))

    @cached_property
    def titles(self) -> list[str]:
        """The title of each row."""
        return list(json.loads((self.folder / "titles.json").read_text(encoding="utf-8")))

    @cached_property
    def ids(self) -> list[str]:
        """The product id of each row."""
        return list(json.loads((self.folder / "ids.json").read_text(encoding="utf-8")))


class Adapter(Protocol):
    """One engine. `builds` and `searches` are settings to try, the cheapest first; `packages` are its distributions.

    `recalls` is False where an answer cannot be compared with exact search of vectors: words, or a ranking.
    """

    packages: Sequence[str]
    builds: Sequence[Settings]
    searches: Sequence[Settings]
    recalls: bool

    def build(self, settings: Settings, folder: Path) -> None:
        """Make the index in `folder`, which is empty."""

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """A new caller; what it holds open is closed with `stack`."""

    def rows(self, answer: Any) -> NDArray[np.int64]:
        """The rows that an answer names."""

    def close(self) -> None:
        """Stop whatever was started."""


class Tuned(NamedTuple):
    """The settings chosen, the recall they reach (None where that is not measured) and all that was tried."""

    build: Settings
    search: Settings
    recall: float | None
    build_seconds: float
    tried: Sequence[Settings]


def recall_of(adapter: Adapter, data: Data, search: Settings) -> float:
    """The mean share of the k best that is found; what ties with the k-th counts as found."""
    found = 0
    with ExitStack() as stack:
        ask = adapter.caller(search, stack)
        for i in range(len(data.queries)):
            rows = np.unique(adapter.rows(ask(i)))
            scores = data.vectors[rows[rows >= 0]] @ data.queries[i]
            found += min(int((scores >= data.least[i] - _TIE).sum()), data.k)
    return found / (len(data.queries) * data.k)


def tune(adapter: Adapter, data: Data, target: float, folder: Path) -> Tuned:
    """The first settings that reach `target`; where none does, those of the last build with the highest recall."""
    tried: list[dict[str, Any]] = []
    for number, build in enumerate(adapter.builds):
        start = time.perf_counter()
        place = folder / f"build-{number}"
        place.mkdir()
        adapter.build(build, place)
        seconds = round(time.perf_counter() - start, 2)
        if not adapter.recalls:
            return Tuned(build, adapter.searches[0], None, seconds, [])
        for search in adapter.searches:
            tried.append({"build": build, "search": search, "recall": recall_of(adapter, data, search)})
            if tried[-1]["recall"] >= target:
                return Tuned(build, search, tried[-1]["recall"], seconds, tried)
    best = max((each for each in tried if each["build"] == build), key=lambda each: float(each["recall"]))
    return Tuned(build, best["search"], best["recall"], seconds, tried)
