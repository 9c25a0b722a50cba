"""The shape of the repository: who may import whom, and what a package file may hold."""

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("indexer", "ranker", "server")
# Folder -> folders it may import from, besides itself.
ALLOWED = {
    "proto": (),
    "indexer": ("proto",),
    "ranker": ("indexer", "proto"),
    "server": ("indexer", "ranker", "proto"),
}
OURS = {"proto", "vitrine", "indexer", "ranker", "server", "benchmarks", "tests", "examples"}
MOST_LINES = 400


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """The first names of everything a module imports, at whatever depth it does."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield path.relative_to(ROOT).parts[0] if node.level else (node.module or "").split(".")[0]


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder: str) -> None:
    allowed = {folder, *ALLOWED[folder]} | ({"vitrine"} if folder == "proto" or "proto" in ALLOWED[folder] else set())
    faults = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        for name in imported(path)
        if name in OURS - allowed
    }
    assert not faults


def test_there_is_something_to_check() -> None:
    assert all(len(modules(folder)) > 5 for folder in ALLOWED)


def test_proto_is_a_source_root_and_no_package() -> None:
    """An importable `proto` would shadow Google's proto-plus, which is imported by that name."""
    assert not (ROOT / "proto" / "__init__.py").exists()
    spec = importlib.util.find_spec("proto")
    # Without an __init__.py a folder is at most a namespace, which gives way to any real package of its name.
    assert spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(ROOT / "proto")


PACKAGE_FILES = [path for path in modules(*ALLOWED) if path.name == "__init__.py"]


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_file_holds_no_code(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    for node in tree.body[1:]:
        names = isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
        assert names or isinstance(node, ast.Import | ast.ImportFrom), ast.unparse(node)


def test_no_module_is_too_long() -> None:
    written = [path for path in modules(*PACKAGES, "benchmarks", "tests") if "_pb2" not in path.name]
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in written}
    assert not {name: count for name, count in lines.items() if count > MOST_LINES}


def test_every_module_says_what_it_is_for() -> None:
    assert not [
        path for path in modules(*PACKAGES) if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_this_checkouts(package: str) -> None:
    """Their names are common: another installed distribution could be in the way."""
    assert Path(importlib.import_module(package).__file__ or "").is_relative_to(ROOT / package)


def test_stubs_are_this_checkouts() -> None:
    found = importlib.import_module("vitrine.v1.search_service_pb2").__file__
    assert Path(found or "").is_relative_to(ROOT / "proto" / "vitrine")
