"""What the card process has open for its workers: once for all of them, for as long as one of them holds it."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from indexer.wire import Line, Message
from server.card_work import Work
from server.together import Together

logger = logging.getLogger(__name__)

# Opens what is of a kind and has a name. Whatever it raises is told to who asked, who does without.
Open = Callable[[str, str], Work]


class _Held:
    """Something that is open, or being opened, and how many hold it."""

    def __init__(self) -> None:
        self.holders = 0
        self.opening = threading.Lock()
        self.work: Work | None = None
        self.together: Together[Any] | None = None


class Shelf:
    """Safe to call from several threads."""

    def __init__(self, opened: Open) -> None:
        self._opened = opened
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def holding(self, what: str, name: str) -> Iterator[dict[str, Any]]:
        """What it tells of itself, and as `of` what requests call it; the first who asks has it opened."""
        of = f"{what} {name}"
        with self._lock:
            held = self._held.setdefault(of, _Held())
            held.holders += 1
        try:
            with held.opening:
                if held.work is None:
                    held.work = self._opened(what, name)
                    held.together = Together(held.work.run, of)
                    logger.info("%s is open", of)
            yield {"of": of, **held.work.told}
        finally:
            self._let_go(of, held)

    def put(self, message: Message, line: Line) -> None:
        """Have a request answered over `line`, together with others. Raises `KeyError` where nobody holds it."""
        held = self._held[message.told["of"]]
        if held.work is None or held.together is None:
            raise KeyError(message.told["of"])
        held.together.put(held.work.read(message), line)

    def _let_go(self, of: str, held: _Held) -> None:
        with self._lock:
            held.holders -= 1
            if held.holders:
                return
            del self._held[of]
        if held.together is not None:
            held.together.close()
            logger.info("%s is closed", of)
