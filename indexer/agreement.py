"""Whether a faster form of the encoder may stand in for the model itself: probe texts through both."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from indexer.arrays import Floats
from indexer.text import normalise
from indexer.tokenise import Tokeniser

logger = logging.getLogger(__name__)

# The least cosine between both vectors of the probe texts below which the faster form is not used.
AGREEMENT = 0.999
PROBE = (
    "red dress",
    "3/4 in. x 10 ft. galvanized steel pipe",
    "Nordic Waterproof Hiking Boots, Brown, Size 42",
    "usb-c charger 65w",
    "防水登山靴 棕色 42码",
    "wireless noise cancelling headphones with microphone and carrying case, black, 30 hours of battery",
    "a",
    "SET OF 3 CAKE TINS PANTRY DESIGN",
)

# Input ids and attention mask.
Batch = tuple[np.ndarray, np.ndarray]


class Forward(Protocol):
    """One padded batch, int64 [texts, tokens] twice, to unit vectors float32 [texts, dimensions]."""

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats: ...


def probe_batches(tokeniser: Tokeniser) -> list[Batch]:
    """The probe texts one by one, and all together, padded."""
    rows = tokeniser([normalise(text) for text in PROBE])
    return [tokeniser.pad([row]) for row in rows] + [tokeniser.pad(rows)]


def agreeing(
    make: Callable[[], Forward], batches: Sequence[Batch], reference: Sequence[Floats], backend: str
) -> Forward | None:
    """The forward that `make` gives, if its vectors of `batches` agree with `reference`; else None, with a warning."""
    try:
        candidate = make()
        cosines = np.concatenate([(a * candidate(*b)).sum(1) for a, b in zip(reference, batches, strict=True)])
    except Exception as error:  # Whatever a compiler raises, the model itself still works.
        logger.warning("The encoder runs in float32: %s could not be used (%s).", backend, error)
        return None
    if not cosines.min() >= AGREEMENT:
        logger.warning("The encoder runs in float32: %s agrees only to a cosine of %.5f.", backend, cosines.min())
        return None
    return candidate
