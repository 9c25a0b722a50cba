"""A faster form of the encoder is used only where its vectors are those of the model."""

import logging

import numpy as np
import pytest

from indexer.agreement import Batch, Forward, agreeing
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
