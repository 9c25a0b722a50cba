"""README and documentation say what is true: their commands run, or at least exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from server.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.toml"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


@pytest.mark.slow
def test_the_readmes_own_shop_works_from_nothing(tmp_path: Path) -> None:
    shell = next(block for block in blocks("sh") if "vitrine sample" in block)
    (code,) = blocks("python")
    script = f"set -euo pipefail\n{shell}\npython - <<'CODE'\n{code}\nCODE\n"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"search “hiking boots”.*Hiking Boots", done.stdout, re.S)
    assert re.search(r"after one click on '.+':\n1 ", done.stdout)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name, following in re.findall(r"\bvitrine ([a-z]+)(?: ([a-z]+))?", page.read_text()):
        assert name in commands, f"{page.name} names `vitrine {name}`"
        inner = getattr(commands[name], "commands", None)
        if inner is not None:
            assert following in inner, f"{page.name} names `vitrine {name} {following}`"


def test_every_make_target_that_the_readme_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(blocks("sh")))):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_page_that_a_page_links_to_exists() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
