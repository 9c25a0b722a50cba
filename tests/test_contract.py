"""The committed stubs are what the `stubs` target of the Makefile makes of the contract."""

import subprocess
import sys
from pathlib import Path

import pytest

PROTO = Path(__file__).parents[1] / "proto"
CONTRACT = Path("vitrine") / "v1"


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    sources = sorted(path.relative_to(PROTO).as_posix() for path in (PROTO / CONTRACT).glob("*.proto"))
    services = [source for source in sources if source.endswith("_service.proto")]
    for options in ([f"--python_out={out}", f"--pyi_out={out}", *sources], [f"--grpc_python_out={out}", *services]):
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *options], cwd=PROTO, check=True)
    return out / CONTRACT


def test_no_stub_is_missing_or_left_over(regenerated: Path) -> None:
    committed = {path.name for path in (PROTO / CONTRACT).glob("*_pb2*.py*")}
    assert committed == {path.name for path in regenerated.iterdir()}


def test_stubs_are_up_to_date(regenerated: Path) -> None:
    changed = [
        path.name for path in regenerated.iterdir() if path.read_bytes() != (PROTO / CONTRACT / path.name).read_bytes()
    ]
    assert not changed, "run `make stubs` and commit what it changes"
