"""A server on the CPU starts without the frameworks of training, which take seconds and hundreds of megabytes."""

import subprocess
import sys

HEAVY = ("torch", "lightgbm", "sklearn", "transformers", "sentence_transformers")


def test_a_server_imports_no_framework_of_training() -> None:
    program = f"import sys, server.app; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
