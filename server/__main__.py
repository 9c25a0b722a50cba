"""Where `vitrine` starts."""

import os
import sys
import warnings

import typer

from indexer.errors import VitrineError
from server import client


def main() -> None:
    """Run the command; a condition that a person can mend ends with its message and its own exit code."""
    # A model library's own notices are not this command's output.
    warnings.simplefilter("ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        # Nor are its progress bars a line of the job's log.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        _app(sys.argv[1:])()
    except VitrineError as error:
        print(f"vitrine: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _app(words: list[str]) -> typer.Typer:
    """The command line for `words`: asking a server needs no PyTorch, and importing it takes longer than the answer."""
    if words and words[0] in client.COMMANDS:
        asking = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        asking.callback()(lambda: None)
        for name, command in client.COMMANDS.items():
            asking.command(name)(command)
        return asking
    if words and words[0] == "serve":
        # FAISS, LightGBM, PyTorch and BLAS each bring an OpenMP pool; for one small request after the other they would
        # fight for the same cores. The runtimes read this when they are loaded, so it comes before their import.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    from server.cli import app

    return app


if __name__ == "__main__":
    main()
