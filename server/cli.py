"""The `vitrine` command."""

import logging
import sys
import warnings

import typer

from indexer.errors import VitrineError
from server import client, commands

app = typer.Typer(
    help="Shop search and recommendation: build an index, train a ranker, serve both over gRPC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("import")(commands.import_dump)
app.command("sample")(commands.sample)
app.add_typer(commands.index, name="index")
app.command("train")(commands.train_model)
app.command("evaluate")(commands.evaluate)
app.add_typer(commands.release, name="release")
app.command("rebuild")(commands.rebuild_all)
app.command("serve")(commands.serve)
app.command("search")(client.search)
app.command("recommend")(client.recommend)
app.command("similar")(client.similar)
app.command("status")(client.status)
app.add_typer(commands.config, name="config")


def main() -> None:
    """Run the command; a condition that a person can mend ends with its message and its own exit code."""
    # A model library's own notices are not this command's output.
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        app()
    except VitrineError as error:
        print(f"vitrine: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
