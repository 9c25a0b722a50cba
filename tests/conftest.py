"""What all tests share: which of them see a card (only those marked `gpu`, and only where `pytest -m gpu` asks for
them), and the databases of journals."""

import os
import sqlite3
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

# For what tests import from beside this file.
sys.path.append(str(Path(__file__).parent))

from databases import Kept, Postgres

from ranker.journal import Journal


def pytest_configure(config: pytest.Config) -> None:
    if not _asked_for(config):
        # All others are the same on every machine: with a card, "auto" would choose it.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if needing and (missing := _missing(config)):
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=missing))


def _asked_for(config: pytest.Config) -> bool:
    return str(config.option.markexpr).strip() == "gpu"


def _missing(config: pytest.Config) -> str | None:
    """Why a test that needs a card cannot run."""
    if not _asked_for(config):
        return "needs an NVIDIA card: `pytest -m gpu` where there is one"
    import torch

    return None if torch.cuda.is_available() else "PyTorch sees no NVIDIA card"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests that need one."""
    with warnings.catch_warnings():
        # It looks for XDG_RUNTIME_DIR, and warns where that is not set.
        warnings.simplefilter("ignore")
        reason = "needs a PostgreSQL server: pgserver has one for most machines (pip install -e '.[dev]')"
        pgserver = pytest.importorskip("pgserver", reason=reason)
        pytest.importorskip("psycopg", reason="needs psycopg: pip install -e '.[postgres]'")
        # Not in pytest's folder: its next session closes that to others, and root's server runs as another user.
        folder = tempfile.mkdtemp(prefix="vitrine-postgres-")
        try:
            server = pgserver.get_server(folder, cleanup_mode="delete")
        except Exception as error:
            # It makes a user of its own where root runs the tests, and not every machine lets it.
            pytest.skip(f"pgserver's PostgreSQL does not start on this machine: {error}")
    yield Postgres(server, pgserver.pg_ctl)
    server.cleanup()


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The URI of a database of the test's own."""
    with postgres.database() as uri:
        yield uri


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """Where an empty journal is, in each of the databases."""
    uri = request.getfixturevalue("database") if request.param == "postgres" else ""
    with closing(Kept(tmp_path / "store", uri)) as kept:
        yield kept


@pytest.fixture
def journal(kept: Kept) -> Journal:
    """An empty journal, in each of the databases."""
    return kept.open()


@pytest.fixture
def refused() -> tuple[type[Exception], ...]:
    """What a journal raises of rows that cannot be written."""
    import psycopg

    return sqlite3.Error, psycopg.Error, OverflowError, ValueError, TypeError, IndexError
