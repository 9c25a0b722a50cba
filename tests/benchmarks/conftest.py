"""The benchmarks are scripts beside each other, not a package: their folder goes on the path."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer import tuned

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


class _Encoder:
    """Each text is a direction of its own."""

    name = backend = fingerprint = "texts"
    choice = tuned = None
    dimensions = 16

    def warm_up(self) -> None:
        """Nothing to warm."""

    def encode(self, texts: Sequence[str], progress: Any = None) -> np.ndarray:
        vectors = np.array([np.random.default_rng(list(f"- {text}".encode())).normal(size=16) for text in texts])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def stream(self, texts: Iterable[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        for text in texts:
            yield [text], self.encode([text])


@pytest.fixture
def texts_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shops are built and served with an encoder that takes no time and knows no meaning."""
    monkeypatch.setattr(tuned, "load_encoder", lambda *_: _Encoder())
