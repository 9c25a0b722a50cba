"""A faster form of the encoder is used only where its vectors are those of the model."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from indexer import probe
from indexer.agreement import Batch, Catalogue, Forward, Vectors, agreeing, overlap
from indexer.arrays import Floats

BATCHES: list[Batch] = [(np.array([[1, 3, 4]]), np.ones((1, 3))), (np.array([[1, 6, 2], [1, 2, 0]]), np.ones((2, 3)))]


def words(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
    """A forward that costs nothing: the direction in which a text's first two words point."""
    vectors = np.array([[1, row[1] % 7, row[2] % 5, 1] for row in input_ids], np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


REFERENCE = [words(*batch) for batch in BATCHES]


@pytest.mark.parametrize(
    ("wrong", "warning"),
    [
        (lambda *batch: np.roll(words(*batch), 1, axis=1), "openvino agrees only to a cosine of 0."),
        (lambda *batch: words(*batch) * np.nan, "openvino agrees only to a cosine of nan"),
        (lambda *batch: words(*batch)[:, :3], "openvino could not be used"),
    ],
)
def test_a_forward_that_disagrees_is_not_used(wrong: Forward, warning: str, caplog: pytest.LogCaptureFixture) -> None:
    assert agreeing(lambda: wrong, BATCHES, REFERENCE, "openvino") is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert warning in caplog.text


def test_a_forward_that_agrees_is_used(caplog: pytest.LogCaptureFixture) -> None:
    close: Forward = lambda *batch: words(*batch) + np.float32(1e-4)  # noqa: E731
    assert agreeing(lambda: close, BATCHES, REFERENCE, "openvino") is close
    assert caplog.records == []


def at(*degrees: float) -> Floats:
    """Vectors of length one in these directions of the plane."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1).astype(np.float32)


EXACT = Vectors(at(10, 20, 30, 40), at(0, 50))


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (EXACT, 1),
        # Of the first query the second title went behind the third; the other's two are the same in another order.
        (Vectors(at(10, 32, 31, 40), at(0, 50)), (1 / 2 + 1 / 2) / 2),
        (Vectors(at(10, 20, 40, 30), at(0, 50)), 1),
        # The titles stayed, the first query turned to the other end.
        (Vectors(at(10, 20, 30, 40), at(50, 50)), (0 + 1) / 2),
        # A tie for the second place.
        (Vectors(at(10, 31, 31, 40), at(0, 50)), 1),
        (Vectors(at(10, 20, 30, 40) * np.nan, at(0, 50)), 0),
    ],
)
def test_overlap_is_the_share_of_the_nearest_that_are_found(other: Vectors, share: float) -> None:
    assert overlap(EXACT, other, k=2) == pytest.approx(share)


def test_the_catalogue_is_embedded_as_it_is_served() -> None:
    seen: list[int] = []

    def rows(input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        seen.append(len(input_ids))
        return np.ones((len(input_ids), 2), np.float32)

    tokeniser: Any = Letters()
    catalogue = Catalogue(tokeniser)
    vectors = catalogue.vectors(rows)
    assert (vectors.titles.shape, vectors.queries.shape) == ((len(probe.titles()), 2), (len(probe.queries()), 2))
    assert seen[: len(seen) - len(probe.queries()) - 1] == [32] * (len(probe.titles()) // 32)
    assert seen[-len(probe.queries()) :] == [1] * len(probe.queries())
    assert [len(ids) for ids, _ in catalogue.samples] == [1, 4, 32]


class Letters:
    """A tokeniser whose tokens are letters."""

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(map(ord, text)) for text in texts]

    def pad(self, rows: Sequence[Sequence[int]]) -> Batch:
        width = max(map(len, rows))
        ids = np.array([[*row, *[0] * (width - len(row))] for row in rows])
        return ids, (ids > 0).astype(np.int64)
