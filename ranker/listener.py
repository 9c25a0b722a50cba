"""The thread that PostgreSQL tells of commits, and that knows whether the database can be reached."""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable

from ranker.postgres import Connection

CHANNEL = "vitrine"
# Seconds from one attempt to reach the database to the next.
_AGAIN = 1.0


class Listener:
    """Listens until it is closed; whatever it may have missed counts as told."""

    def __init__(self, connect: Callable[[str], Connection]) -> None:
        """`connect` gives a connection on which a statement was run. Raises `JournalError` as that does."""
        self._connect = connect
        self._told, self._ended = threading.Event(), threading.Event()
        # Why the database cannot be reached; empty while it can.
        self._reason = ""
        self._waker, self._wakened = socket.socketpair()
        self._thread = threading.Thread(target=self._run, args=(self._listening(),), name="journal", daemon=True)
        self._thread.start()

    def told(self) -> bool:
        """Whether there was, or may have been, a commit since this was last asked; the network is not touched."""
        if not self._told.is_set():
            return False
        # Before anything is read: what is committed from here on is told again.
        self._told.clear()
        return True

    def away(self) -> str:
        """Why the database is known to be out of reach; empty where it is not."""
        return "the journal is closed" if self._ended.is_set() else self._reason

    def doubt(self, reason: str) -> None:
        """The database was found to be out of reach: it is, until this has reached it."""
        self._reason = reason
        self._wake()

    def close(self) -> None:
        """End the thread."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._wake()
        self._thread.join()
        self._waker.close()
        self._wakened.close()

    def _run(self, connection: Connection | None) -> None:
        began = time.monotonic()
        while connection is None or self._lost(connection):
            if self._ended.wait(max(began + _AGAIN - time.monotonic(), 0.0)):
                return
            began = time.monotonic()
            connection = self._reached()

    def _lost(self, connection: Connection) -> bool:
        """Listen until the connection is lost or doubted; False where this is to end."""
        try:
            self._listen(connection)
        except Exception as error:
            # Whatever it is: a thread that ended would tell nothing any more.
            self._reason = " ".join(f"the journal's connection is lost: {error}".split())
        finally:
            connection.close()
        # Whoever asks next finds that it is away.
        self._told.set()
        return not self._ended.is_set()

    def _listen(self, connection: Connection) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_READ)
            selector.register(self._wakened, selectors.EVENT_READ)
            while not self.away():
                connection.pgconn.consume_input()
                while connection.pgconn.notifies():
                    self._told.set()
                if self._wakened in [key.fileobj for key, _ in selector.select()]:
                    self._wakened.recv(64)

    def _reached(self) -> Connection | None:
        """A connection that listens; None where there is none to be had."""
        try:
            connection = self._listening()
        except Exception as error:
            self._reason = str(error)
            return None
        self._reason = ""
        self._told.set()
        return connection

    def _listening(self) -> Connection:
        return self._connect(f"LISTEN {CHANNEL}")

    def _wake(self) -> None:
        # Whoever still reads while it is closed has nobody to wake.
        with contextlib.suppress(OSError):
            self._waker.send(b".")
