"""A server on the CPU starts without the frameworks of training, which take seconds and hundreds of megabytes."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "lightgbm", "sklearn", "transformers", "sentence_transformers")


def test_a_server_imports_no_framework_of_training() -> None:
    program = f"import sys, server.app; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.parametrize("words", [("status",), ("product", "show", "p"), ("product", "delete", "p")], ids=" ".join)
def test_a_command_that_asks_a_server_imports_none_either(words: tuple[str, ...]) -> None:
    """It is done in a third of a second, where their import takes seven."""
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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "7 []", done.stderr
