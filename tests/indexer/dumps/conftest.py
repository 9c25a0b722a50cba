"""What the importer tests share: writing small files, and finding the real data sets beside the checkout."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

REAL = Path(__file__).parents[3] / ".." / "shared" / "data"


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Writes a text file below `tmp_path`, gzipped where its name ends in .gz, and returns `tmp_path`."""

    def write(name: str, content: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = content.encode(encoding)
        path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return tmp_path

    return write


@pytest.fixture
def real() -> Callable[[str], Path]:
    """The folder of a real data set; skips the test where it is absent."""

    def folder(name: str) -> Path:
        if not (REAL / name).is_dir():
            pytest.skip(f"the real data set ../shared/data/{name} is absent")
        return REAL / name

    return folder
