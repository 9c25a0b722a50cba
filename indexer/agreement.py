"""Whether a faster form of the encoder may stand in for the model itself: probe texts and titles through both."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from indexer import probe
from indexer.arrays import Floats
from indexer.text import normalise
from indexer.tokenise import Tokeniser

if TYPE_CHECKING:
    import torch

    from indexer.owner import Owner

logger = logging.getLogger(__name__)

# The least cosine between both vectors of the probe texts below which the faster form is not used, and the least share
# of the model's own nearest titles that it must find.
AGREEMENT, OVERLAP = 0.999, 0.99
# Titles in a batch of the probe catalogue.
_ROWS = 32
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


@runtime_checkable
class CardForward(Forward, Protocol):
    """A `Forward` on a card, where batches are begun before the last is done and vectors may stay."""

    owner: "Owner"

    def later(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Callable[[], Floats]:
        """Begins a batch; what is returned waits for its vectors."""

    def on_device(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> "torch.Tensor":
        """Unit vectors float32 [texts, dimensions] on the card."""

    def warm_up(self) -> None:
        """Have done what the first batch of a shape takes."""


def probe_batches(tokeniser: Tokeniser) -> list[Batch]:
    """The probe texts one by one, and all together, padded."""
    rows = tokeniser([normalise(text) for text in PROBE])
    return [tokeniser.pad([row]) for row in rows] + [tokeniser.pad(rows)]


def least_cosine(forward: Forward, batches: Sequence[Batch], reference: Sequence[Floats]) -> float:
    """The least cosine between `reference` and what `forward` makes of `batches`; not a number where one is not."""
    return float(np.concatenate([(a * forward(*b)).sum(1) for a, b in zip(reference, batches, strict=True)]).min())


def agreeing(
    make: Callable[[], Forward],
    batches: Sequence[Batch],
    reference: Sequence[Floats],
    backend: str,
    instead: str = "in float32",
) -> Forward | None:
    """The forward that `make` gives, if its vectors of `batches` agree with `reference`; else None, with a warning.

    The warning says how the encoder runs `instead`.
    """
    try:
        candidate = make()
        cosine = least_cosine(candidate, batches, reference)
    except Exception as error:  # Whatever a compiler raises, the model itself still works.
        logger.warning("The encoder runs %s: %s could not be used (%s).", instead, backend, error)
        return None
    if not cosine >= AGREEMENT:
        logger.warning("The encoder runs %s: %s agrees only to a cosine of %.5f.", instead, backend, cosine)
        return None
    return candidate


class Vectors(NamedTuple):
    """Unit vectors of a catalogue's titles, float32 [titles, dimensions], and of queries, [queries, dimensions]."""

    titles: Floats
    queries: Floats


class Catalogue:
    """The probe catalogue as token ids: titles in batches, queries one by one, as they are when it is served.

    `samples` are a query alone, four queries and a batch of titles, to be timed.
    """

    def __init__(self, tokeniser: Tokeniser) -> None:
        titles, queries = (tokeniser([normalise(t) for t in texts]) for texts in (probe.titles(), probe.queries()))
        titles.sort(key=len)
        self._titles = [tokeniser.pad(titles[start : start + _ROWS]) for start in range(0, len(titles), _ROWS)]
        self._queries = [tokeniser.pad([query]) for query in queries]
        self.samples = (self._queries[0], tokeniser.pad(queries[:4]), self._titles[len(self._titles) // 2])

    def vectors(self, forward: Forward) -> Vectors:
        """What `forward` makes of titles and queries."""
        return Vectors(*(np.concatenate([forward(*batch) for batch in each]) for each in (self._titles, self._queries)))


def overlap(exact: Vectors, other: Vectors, k: int = 100) -> float:
    """The mean share of each query's k nearest titles by `exact` that are among the k nearest by `other`.

    A title whose score by `other` ties with its k-th, to 1e-5, counts as found.
    """
    wanted = np.argsort(-(exact.queries @ exact.titles.T), axis=1)[:, :k]
    scores = other.queries @ other.titles.T
    least = -np.sort(-scores, axis=1)[:, k - 1 : k]
    return float((np.take_along_axis(scores, wanted, axis=1) >= least - 1e-5).mean())
