"""An encoder without a model, whose vectors are directions of sums of its words' vectors."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from indexer.arrays import Floats, Ints
from indexer.text import normalise

# The marks at the ends of every text, padding, and words that nobody told of.
_FIRST, _LAST, _PAD, _OTHER = 0, 1, 2, 3


class WordTokeniser:
    """Words to numbers, between two marks."""

    def __init__(self, words: Sequence[str]) -> None:
        self._number = {word: i for i, word in enumerate(words, _OTHER + 1)}

    @property
    def greatest(self) -> int:
        return _OTHER + len(self._number)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return [[_FIRST, *(self._number.get(w, _OTHER) for w in text.casefold().split()), _LAST] for text in texts]

    def pad(self, rows: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
        width = max(map(len, rows))
        ids = np.array([[*row, *[_PAD] * (width - len(row))] for row in rows], np.int64)
        mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in rows], np.int64)
        return ids, mask


class SumEncoder:
    """`share` of a vector is the sum's, the rest drawn from the whole text, as if word order were all."""

    name, fingerprint, backend, dimensions, tuned, choice = "sums", "sums-1", "none", 24, None, None

    def __init__(self, words: Iterable[str], share: float = 1.0) -> None:
        self.tokeniser = WordTokeniser(list(words))
        self._share = share
        rng = np.random.default_rng(0)
        self._vectors = rng.normal(size=(self.tokeniser.greatest + 1, self.dimensions)).astype(np.float32)

    def forward(self, ids: Ints, mask: Ints) -> Floats:
        sums = np.einsum("rt,rtd->rd", mask.astype(np.float32), self._vectors[ids])
        texts = [row[kept == 1].tolist() for row, kept in zip(ids, mask, strict=True)]
        whole = [np.random.default_rng(text).normal(size=self.dimensions) for text in texts]
        mixed = self._share * _unit(sums) + (1 - self._share) * _unit(np.array(whole))
        return _unit(mixed).astype(np.float32)

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> Floats:
        if progress:
            progress(len(texts))
        return np.concatenate([self.forward(*self.tokeniser.pad([row])) for row in self._rows(texts)])

    def stream(self, texts: Iterable[str]) -> Iterator[tuple[list[str], Floats]]:
        for text in texts:
            yield [text], self.encode([text])

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokeniser([normalise(text) for text in texts])


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
