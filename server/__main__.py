"""Where `vitrine` starts."""

import os
import sys
import warnings
from collections.abc import Callable, Mapping

import typer

from indexer.errors import VitrineError


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
    except OSError as error:
        if error.filename is None:
            raise
        # A folder that is missing, a store that may not be written: the name says more than a trace.
        print(f"vitrine: {error.filename} cannot be used: {error.strerror}.", file=sys.stderr)
        sys.exit(VitrineError.exit_code)


def _app(words: list[str]) -> typer.Typer:
    """The command line for `words`, without what it does not need: importing PyTorch takes longer than an answer."""
    if words and words[0] == "serve":
        # FAISS, LightGBM, PyTorch and BLAS each bring an OpenMP pool; for one small request after the other they would
        # fight for the same cores. The runtimes read this when they are loaded, so it comes before their import.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        from server.serve import serve

        return _alone({"serve": serve})
    from server import client, products

    if words and words[0] in client.COMMANDS:
        return _alone(client.COMMANDS)
    if words and words[0] == "product":
        return _alone({}, product=products.product)
    if words and words[0] == "rules":
        from server.rule_check import rules

        return _alone({}, rules=rules)
    from server.cli import app

    return app


def _alone(commands: Mapping[str, Callable[..., None]], **groups: typer.Typer) -> typer.Typer:
    """These commands and groups of commands, without the import of all others."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    for name, command in commands.items():
        app.command(name)(command)
    for name, group in groups.items():
        app.add_typer(group, name=name)
    return app


if __name__ == "__main__":
    main()
