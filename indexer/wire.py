"""Messages between processes of one machine: a few named values as JSON, and arrays as their raw bytes."""

import contextlib
import hmac
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from indexer.arrays import Array

# Bytes of the JSON that follows, and of the key that opens a connection.
_LENGTH = struct.Struct("<I")
_KEY = 32
# Seconds and microseconds, as the system takes a time limit.
_LIMIT = struct.Struct("ll")
# Connections that may wait to be accepted: beyond it the next one is refused.
_BACKLOG = 1_024


class Message(NamedTuple):
    """Named values, and arrays in the order they were sent."""

    told: dict[str, Any]
    arrays: list[Array]


class Line:
    """One end of a connection. Nothing that is sent can be run by who receives it, unlike a pickle."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._reader = end.makefile("rb")

    def send(self, told: Mapping[str, Any], *arrays: Array) -> None:
        """Raises `OSError` where the other end is gone or does not read."""
        head = json.dumps([told, [[array.dtype.str, array.shape] for array in arrays]]).encode()
        self._end.sendall(b"".join([_LENGTH.pack(len(head)), head, *(array.tobytes() for array in arrays)]))

    def receive(self) -> Message:
        """The next message. Raises `EOFError` where the other end is gone, `OSError` where it takes too long."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        told, forms = json.loads(self._read(length))
        return Message(told, [self._array(*form) for form in forms])

    def opens_with(self, key: bytes) -> bool:
        """Whether what comes first is `key`."""
        return hmac.compare_digest(self._read(_KEY), key)

    def end(self) -> None:
        """Make both ends read nothing more, from whichever thread."""
        with contextlib.suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it; the other end reads no more."""
        self._reader.close()
        self._end.close()

    def _read(self, size: int) -> bytes:
        got = self._reader.read(size)
        if len(got) < size:
            raise EOFError("the connection has ended")
        return got

    def _array(self, dtype: str, shape: list[int]) -> Array:
        array = np.empty(shape, np.dtype(dtype))
        if array.size and self._reader.readinto(array.reshape(-1).view(np.uint8).data) < array.nbytes:
            raise EOFError("the connection has ended")
        return array


def listening(address: str) -> socket.socket:
    """A socket at a path, which should lie in a folder that is closed to other users."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(address)
    made.listen(_BACKLOG)
    return made


def accepted(listener: socket.socket, seconds: float) -> Line:
    """The next connection. It waits as long as it takes for a message, and `seconds` for an answer to be read."""
    end, _ = listener.accept()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _LIMIT.pack(int(seconds), int(seconds % 1 * 1e6)))
    return Line(end)


def connected(address: str, key: bytes, seconds: float) -> Line:
    """A connection on which every wait is limited to `seconds`. Raises `OSError` where nobody listens."""
    end = socket.socket(socket.AF_UNIX)
    try:
        end.settimeout(seconds)
        end.connect(address)
        end.sendall(key)
    except OSError:
        end.close()
        raise
    return Line(end)
