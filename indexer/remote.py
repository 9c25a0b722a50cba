"""In a worker process: the indexes and the encoder that another process holds on a card for all of them."""

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import current_process
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from indexer import fallbacks
from indexer.agreement import Forward
from indexer.arrays import Array, Floats, Mask
from indexer.exact import ExactIndex
from indexer.index import Index, Neighbours
from indexer.masks import Masks
from indexer.wire import Line, Message, connected

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds that an answer may take: far more than any does, unless a release of many gigabytes is just being copied to
# the card. To open something, such a copy is made or a model is loaded, and those who ask at once wait for each other.
_ANSWER, _OPEN = 30.0, 600.0


class CardError(Exception):
    """What the card process refused or failed to do, or that it is gone; the message says which."""


class CardProcess:
    """The process that holds the card, as its workers see it. Safe to call from several threads.

    A connection carries one request at a time; as many are kept as there were requests at once.
    """

    def __init__(self, address: str, key: bytes | None = None, answer: float = _ANSWER, opening: float = _OPEN) -> None:
        """`key` is by default what multiprocessing gives to a process and its children; times are in seconds."""
        self._address = address
        self._key = current_process().authkey if key is None else key
        self._answer, self._opening = answer, opening
        self._free: list[Line] = []

    def ask(self, told: dict[str, Any], *arrays: Array) -> list[Array]:
        """The answer's arrays. Raises `CardError`, at the latest when its time has passed."""
        try:
            line = self._free.pop()
        except IndexError:
            line = self._connected(self._answer)
        arrays_back = _exchanged(line, told, arrays).arrays
        self._free.append(line)
        return arrays_back

    def open(self, what: str, name: str) -> tuple[Line, dict[str, Any]]:
        """Have something opened, unless it is: it stays open until the line is closed. Raises `CardError`.

        The other value says what it is, `of` among it: what a request about it names.
        """
        line = self._connected(self._opening)
        return line, _exchanged(line, {"do": "open", "what": what, "name": name}, ()).told

    def close(self) -> None:
        """End the connections that carry requests; what was opened stays so."""
        while self._free:
            self._free.pop().close()

    def _connected(self, seconds: float) -> Line:
        try:
            return connected(self._address, self._key, seconds)
        except OSError as error:
            raise CardError(f"the process that holds it cannot be reached: {error}") from error


def _exchanged(line: Line, told: dict[str, Any], arrays: tuple[Array, ...]) -> Message:
    """The answer. The line is closed where there is none."""
    try:
        line.send(told, *arrays)
        message = line.receive()
    except (OSError, EOFError) as error:
        line.close()
        raise CardError(f"the process that holds it does not answer: {error}") from error
    if "error" in message.told:
        line.close()
        raise CardError(str(message.told["error"]))
    return message


class _Shared(Generic[T]):
    """Something that is open in the card process for as long as this object lives; `local` opens its stand-in."""

    # What `fallbacks` counts it as.
    stage: str

    def __init__(self, card: CardProcess, line: Line, of: str, local: Callable[[], T]) -> None:
        self._card, self._of = card, of
        self._load = local
        self._local: T | None = None
        self._loading = threading.Lock()
        self._said = False
        weakref.finalize(self, line.close)

    def _loaded(self) -> T:
        with self._loading:
            if self._local is None:
                self._local = self._load()
            return self._local

    def _warn(self, error: CardError) -> None:
        fallbacks.count(self.stage)
        if not self._said:
            logger.warning("The CPU works in place of the card for %s: %s.", self._of, error)
        self._said = True


class RemoteIndex(_Shared[Index]):
    """An `Index` of `vectors` that the card process searches; where it does not, the CPU does."""

    stage = "search"

    def __init__(
        self, card: CardProcess, line: Line, told: dict[str, Any], vectors: Floats, local: Callable[[], Index]
    ) -> None:
        super().__init__(card, line, told["of"], local)
        self.kind = f"{told['kind']}, shared"
        self._vectors = vectors

    @property
    def dimensions(self) -> int:
        return int(self._vectors.shape[1])

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """See `Index.search`."""
        found = self._asked(queries, k, [mask] * len(queries))
        return self._loaded().search(queries, k, mask) if found is None else found

    def search_each(self, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours:
        """See `Index.search_each`."""
        found = self._asked(queries, k, masks)
        return self._loaded().search_each(queries, k, masks) if found is None else found

    def _asked(self, queries: Floats, k: int, masks: Sequence[Mask | None]) -> Neighbours | None:
        """The card process's answer, where it gives one; each distinct mask goes out once."""
        known = Masks(masks, len(self))
        sent = {number: mask for number, mask in enumerate(known.distinct) if mask is not None}
        places = {number: place for place, number in enumerate(sent)}
        told = {"do": "ask", "of": self._of, "k": int(k), "under": [places.get(number) for number in known.number]}
        bits = [np.packbits(mask, bitorder="little") for mask in sent.values()]
        try:
            return Neighbours(*self._card.ask(told, np.asarray(queries, np.float32), *bits))
        except CardError as error:
            self._warn(error)
            return None

    def save(self, folder: Path) -> None:
        """Nothing: vectors.npy is the index."""


class RemoteForward(_Shared[Forward]):
    """A `Forward` that runs in the card process; where it does not, the one that `local` loads does."""

    stage = "encoder"

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        """See `Forward`."""
        try:
            (vectors,) = self._card.ask({"do": "ask", "of": self._of}, input_ids, attention_mask)
            return vectors
        except CardError as error:
            self._warn(error)
            return self._loaded()(input_ids, attention_mask)


def open_remote(
    card: CardProcess, vectors: Floats, folder: Path, local: Callable[[], Index] | None = None
) -> RemoteIndex | None:
    """The index of `vectors`, mapped from a file of `folder`, on the card; None, with a warning, if it is refused.

    `local` opens what stands in for the card, by default exact search.
    """
    try:
        if not isinstance(vectors.base, np.memmap) or vectors.base.filename is None:
            raise CardError("they are not mapped from a file")
        line, told = card.open("index", str(vectors.base.filename))
    except CardError as error:
        fallbacks.count("search")
        logger.warning("The CPU searches the vectors of %s in place of the card: %s.", folder, error)
        return None
    return RemoteIndex(card, line, told, vectors, local or partial(ExactIndex, vectors))


_card: CardProcess | None = None


def use(card: CardProcess | None) -> None:
    """From now on, open indexes and encoders of this process there."""
    global _card
    _card = card


def in_use() -> CardProcess | None:
    """The card process of this process, if it has one."""
    return _card
