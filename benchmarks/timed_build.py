"""One build of a shop's index, which says on standard output where it is; `build.py` starts, watches and kills it.

python timed_build.py CONFIG
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from inspect import ismethod
from pathlib import Path
from typing import Any

from indexer import build, tuning
from indexer.arrays import Floats
from indexer.dense import DenseIndex
from indexer.embeddings import EmbeddingCache
from indexer.encoder import Encoder
from indexer.lexical import LexicalIndex
from indexer.store import Store
from indexer.tuned import newest_encoder
from server.config import load_settings

# Stage -> the functions whose time it is, without that of the other stages they call.
WATCHED: dict[str, tuple[tuple[Any, str], ...]] = {
    "read": ((build, "read_catalogue"),),
    "embed": ((EmbeddingCache, "fill"),),
    "lexical": ((LexicalIndex, "build"), (LexicalIndex, "save")),
    "render": ((build, "write_rendered"),),
    "tokens": ((build, "_write_tokens"),),
    "gather": ((EmbeddingCache, "gather"),),
    "index": ((build, "filled"), (DenseIndex, "save")),
    "measure": ((tuning, "tuned"),),
    "publish": ((Store, "publish"),),
}


class Stages:
    """Seconds by stage, each second counted for the innermost one alone; `say` is told of each change."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._say = say
        self._open = ["other"]
        self._since = time.perf_counter()

    def watch(self, stage: str, holder: Any, name: str) -> None:
        """Count every call of `holder.name` from now on."""
        called = getattr(holder, name)

        @wraps(called)
        def counted(*arguments: Any, **named: Any) -> Any:
            self._enter(stage)
            try:
                return called(*arguments, **named)
            finally:
                self._leave()

        setattr(holder, name, staticmethod(counted) if ismethod(called) else counted)

    def _enter(self, stage: str) -> None:
        self._count()
        self._open.append(stage)
        self._say(stage)

    def _leave(self) -> None:
        self._count()
        self._open.pop()
        self._say(self._open[-1])

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now


def counting(encoder: Encoder, say: Callable[[int], None]) -> None:
    """Let `encoder` say after each batch how many titles it has embedded."""
    stream = encoder.stream

    def counted(texts: Iterable[str]) -> Iterator[tuple[list[str], Floats]]:
        done = 0
        for some, vectors in stream(texts):
            done += len(some)
            say(done)
            yield some, vectors

    encoder.stream = counted  # type: ignore[method-assign]


def main(config: Path) -> None:
    """Build; one JSON object a line: {"stage": ...}, {"embedded": ...}, and at last {"built": ...}."""
    settings = load_settings(config)
    store = Store(settings.store)
    encoder = newest_encoder(store, settings.indexer)
    counting(encoder, lambda done: _say(embedded=done))
    stages = Stages(lambda stage: _say(stage=stage))
    for stage, watched in WATCHED.items():
        for holder, name in watched:
            stages.watch(stage, holder, name)
    with store.locked("rebuild"):
        start = time.perf_counter()
        index = build.build_index(store, settings.indexer, encoder, lambda *_: None)
        whole = time.perf_counter() - start
    spent = {stage: round(stages.seconds[stage], 2) for stage in WATCHED}
    manifest = store.manifest("indexes", index)
    files = {name: (store.path("indexes", index) / name).stat().st_size for name in manifest["files"]}
    kept = {name: manifest[name] for name in ("counts", "index", "encoder")}
    _say(built={"seconds": {**spent, "whole": round(whole, 2)}, **kept, "bytes": files})


def _say(**told: Any) -> None:
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
