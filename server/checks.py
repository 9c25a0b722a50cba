"""What a request may hold, checked once for all rpcs; a fault is a `ViolationError` that names its field."""

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import grpc
import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from vitrine.v1.hit_pb2 import Hit

from indexer.arrays import Floats
from indexer.text import normalise
from server.faults import ViolationError

T = TypeVar("T")

DEFAULT_PAGE = 24
DEFAULT_SUGGESTIONS = 10
LARGEST_PAGE = 100
# A page size beyond this is a mistake and not a wish for a large page.
REFUSED_PAGE = 10_000
MOST_ID_BYTES = 128
MOST_QUERY_CHARACTERS = 1_000
MOST_PRODUCTS = 1_000
MOST_RECENT = 50
# A clock may be wrong by time zones, not by more.
_AHEAD = 86_400.0


class Checks:
    """Runs checks that raise `ViolationError` and gathers what they raise: a caller is told of all faults at once."""

    def __init__(self) -> None:
        self.violations: list[ViolationError] = []

    def run(self, check: Callable[..., T], *arguments: object, default: T, **options: object) -> T:
        """The result of a check, or `default` where it failed."""
        try:
            return check(*arguments, **options)
        except ViolationError as violation:
            self.violations.append(violation)
            return default

    def done(self) -> None:
        """Raise all that was gathered, if anything was."""
        if self.violations:
            raise ExceptionGroup("the request cannot be accepted", self.violations)


def identifier(value: str, field: str, *, required: bool = False) -> str:
    """A checked id. Raises `ViolationError`."""
    if required and not value:
        raise ViolationError(field, "must be given")
    if len(value.encode()) > MOST_ID_BYTES:
        raise ViolationError(field, f"is {len(value.encode())} bytes long; at most {MOST_ID_BYTES} are accepted")
    # PostgreSQL has none in a text.
    if "\0" in value:
        raise ViolationError(field, "holds a NUL character")
    return value


def query(value: str) -> str:
    """A checked query. Raises `ViolationError`."""
    if not normalise(value):
        raise ViolationError("query", "is empty; give words, a query_vector, or call Recommend")
    return typed(value)


def vector(values: Sequence[float], dimensions: int, field: str) -> Floats:
    """A checked vector, scaled to unit length. Raises `ViolationError`."""
    array = np.asarray(values, np.float32)
    if len(array) != dimensions:
        raise ViolationError(
            field, f"has {len(array)} values; this release has {dimensions} dimensions (see GetStatus)"
        )
    length = float(np.linalg.norm(array.astype(np.float64)))
    if not math.isfinite(length) or length == 0:
        raise ViolationError(field, "holds NaN or infinity, or is all zeros")
    return np.asarray(array / length, np.float32)


def typed(value: str) -> str:
    """What was typed of a query so far; it may be nothing. Raises `ViolationError`."""
    if len(value) > MOST_QUERY_CHARACTERS:
        raise ViolationError("query", f"has {len(value)} characters; at most {MOST_QUERY_CHARACTERS} are accepted")
    return value


def page_size(value: int) -> int:
    """A page size: 0 is the default, a large one is coerced. Raises `ViolationError`."""
    return _number(value, "page_size", DEFAULT_PAGE, "products are returned at a time, use page_token")


def max_suggestions(value: int) -> int:
    """A number of suggestions, as a page size is. Raises `ViolationError`."""
    return _number(value, "max_suggestions", DEFAULT_SUGGESTIONS, "suggestions of a kind are returned")


def _number(value: int, field: str, default: int, told: str) -> int:
    if value < 0:
        raise ViolationError(field, "is negative; 0 gives the default")
    if value > REFUSED_PAGE:
        raise ViolationError(field, f"is {value}; at most {LARGEST_PAGE} {told}")
    return min(value or default, LARGEST_PAGE)


def recent(values: Sequence[str]) -> list[str]:
    """Checked recent_product_ids. Raises `ViolationError`."""
    if len(values) > MOST_RECENT:
        raise ViolationError("recent_product_ids", f"has {len(values)} ids; at most {MOST_RECENT} are accepted")
    return [identifier(value, f"recent_product_ids[{i}]", required=True) for i, value in enumerate(values)]


def read_mask(mask: FieldMask) -> None:
    """Checks that a mask names fields of a hit. Raises `ViolationError`."""
    if unknown := [path for path in mask.paths if not FieldMask(paths=[path]).IsValidForDescriptor(Hit.DESCRIPTOR)]:
        raise ViolationError(
            "read_mask", f"{unknown[0][:64]!r} is no field of a hit; name fields such as product.id, score, rank"
        )


def moment(value: Timestamp, field: str, now: float) -> float:
    """A checked time, in Unix seconds. Raises `ViolationError`."""
    seconds = value.seconds + value.nanos / 1e9
    if not 0.0 <= seconds <= now + _AHEAD:
        raise ViolationError(field, "is before 1970 or more than a day ahead of the server's clock")
    return float(seconds)


def price(value: float, field: str) -> float:
    """A checked price. Raises `ViolationError`."""
    if not (math.isfinite(value) and value >= 0):
        raise ViolationError(field, "is not a finite number from 0 up")
    return value


def deadline(context: grpc.aio.ServicerContext) -> float:
    """The caller's deadline on the clock of `time.monotonic`."""
    remaining = context.time_remaining()
    return float("inf") if remaining is None else time.monotonic() + float(remaining)
