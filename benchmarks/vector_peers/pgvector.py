"""pgvector in the PostgreSQL that the package `pgserver` carries, over a Unix socket."""

import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from vector_peers.adapter import Adapter, Ask, Data, Settings

with warnings.catch_warnings():
    # It says that it falls back to a folder of its own for its socket.
    warnings.simplefilter("ignore", RuntimeWarning)
    import pgserver

# All vectors and the index stay in memory; a read plan of one index scan needs neither workers nor compilation.
_SYSTEM = {"shared_buffers": "2GB", "max_parallel_workers_per_gather": "0", "jit": "off"}


class _Vector(bytes):
    """A vector as pgvector's binary input takes it."""


class _VectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Vector) -> Buffer:
        return bytes(obj)


def binary(values: NDArray[np.float32]) -> _Vector:
    """pgvector's `vector_recv`: the number of dimensions and a zero as int16, then float32, all big-endian."""
    return _Vector(np.array([len(values), 0], ">i2").tobytes() + values.astype(">f4").tobytes())


class PgVector:
    """HNSW by inner product; prepared statements, binary both ways, a connection for each caller."""

    packages = ("pgserver", "psycopg", "numpy")
    builds = ({"m": 16, "ef_construction": 64}, {"m": 32, "ef_construction": 128})
    searches = tuple({"ef_search": ef} for ef in (100, 125, 150, 200, 250, 300, 350, 400, 500, 600, 800, 1_000))
    recalls = True

    def __init__(self, data: Data) -> None:
        self._data = data
        self._server: Any = None

    def build(self, settings: Settings, folder: Path) -> None:
        """A server in `folder`, a table of ids and vectors, and its index."""
        self.close()
        self._start(folder / "postgres")
        with self._connected() as connection:
            dimensions = self._data.vectors.shape[1]
            connection.execute(f"CREATE TABLE titles (id int8 NOT NULL, vector vector({dimensions}) NOT NULL)")
            # A plain layout keeps a vector in its row, where a large one would be moved out of it.
            connection.execute("ALTER TABLE titles ALTER COLUMN vector SET STORAGE PLAIN")
            with connection.cursor().copy("COPY titles FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["int8", "vector"])
                for row, vector in enumerate(self._data.vectors):
                    copy.write_row((row, binary(vector)))
            connection.execute("SET maintenance_work_mem = '2GB'")
            connection.execute("SET max_parallel_maintenance_workers = 1")
            options = ", ".join(f"{name} = {value}" for name, value in settings.items())
            connection.execute(f"CREATE INDEX ON titles USING hnsw (vector vector_ip_ops) WITH ({options})")
            connection.execute("VACUUM ANALYZE titles")

    def _start(self, folder: Path) -> None:
        self._server = pgserver.get_server(folder, cleanup_mode="stop")
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
            for name, value in _SYSTEM.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self._server.cleanup()
        self._server = pgserver.get_server(folder, cleanup_mode="stop")

    def _connected(self) -> psycopg.Connection:
        connection = psycopg.connect(self._server.get_uri(), autocommit=True)
        told = psycopg.types.TypeInfo.fetch(connection, "vector")
        if told is None:
            raise RuntimeError("This PostgreSQL has no extension vector.")
        told.register(connection)
        dumper = type("VectorDumper", (_VectorDumper,), {"oid": told.oid})
        connection.adapters.register_dumper(_Vector, dumper)
        return connection

    def caller(self, settings: Settings, stack: ExitStack) -> Ask:
        """A connection of its own, and the queries in bytes before the clock runs."""
        connection = stack.enter_context(self._connected())
        connection.prepare_threshold = 0
        connection.execute(f"SET hnsw.ef_search = {settings['ef_search']}")
        connection.execute("SET enable_seqscan = off")
        cursor = connection.cursor(binary=True)
        asked = [(binary(query),) for query in self._data.queries]
        statement = f"SELECT id FROM titles ORDER BY vector <#> %b LIMIT {self._data.k}"
        return lambda i: cursor.execute(statement, asked[i]).fetchall()

    def rows(self, answer: Any) -> NDArray[np.int64]:
        """Ids are rows."""
        return np.array(answer, np.int64).reshape(-1)

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.cleanup()
            self._server = None


def make(data: Data) -> Adapter:
    """The adapter."""
    return PgVector(data)
