"""A server on the CPU starts without the frameworks of training, which take seconds and hundreds of megabytes."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "lightgbm", "sklearn", "transformers", "sentence_transformers")
# An extra: only a journal in PostgreSQL needs it.
OPTIONAL = "psycopg"


def test_a_server_imports_no_framework_of_training() -> None:
    program = f"import sys, server.app; print([name for name in {(*HEAVY, OPTIONAL)} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


ASKING = (("status",), ("product", "show", "p"), ("product", "delete", "p"), ("product", "upsert", "products.csv"))


def test_the_check_of_rules_imports_none_either(tmp_path: Path) -> None:
    (tmp_path / "vitrine.toml").write_text("[server]\nrules = 'rules.toml'\n")
    (tmp_path / "rules.toml").write_text("[[rule]]\nname = 'r'\npin = ['p']\n")
    program = f"""
import sys
from server import __main__
sys.argv = ["vitrine", "rules", "check"]
try:
    __main__.main()
except SystemExit as end:
    print(end.code, [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.stderr.strip() == "0 []"
    assert "in force" in done.stdout


@pytest.mark.parametrize("words", ASKING, ids=" ".join)
def test_a_command_that_asks_a_server_imports_none_either(words: tuple[str, ...], tmp_path: Path) -> None:
    """It is done in a third of a second, where their import takes seven."""
    (tmp_path / "products.csv").write_text("product_id,title\np,boot\n", encoding="utf-8")
    ask = [*words, "--address", "127.0.0.1:1"]
    program = f"""
import sys
from server import __main__
sys.argv = ["vitrine", *{ask}]
try:
    __main__.main()
except SystemExit as end:
    print(end.code, [name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.stdout.strip() == "7 []", done.stderr
