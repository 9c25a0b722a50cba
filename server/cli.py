"""The `vitrine` command with every sub-command."""

import typer

from server import client, commands
from server.doctor import doctor
from server.journal_copy import journal
from server.products import product
from server.rule_check import rules
from server.serve import serve
from server.users import user

app = typer.Typer(
    help="Shop search and recommendation: build an index, train a ranker, serve both over gRPC.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("import")(commands.import_dump)
app.command("sample")(commands.sample)
app.add_typer(commands.index, name="index")
app.command("train")(commands.train_part)
app.command("evaluate")(commands.evaluate)
app.add_typer(commands.release, name="release")
app.command("rebuild")(commands.rebuild_all)
app.command("refresh")(commands.refresh_all)
app.command("serve")(serve)
for name, command in client.COMMANDS.items():
    app.command(name)(command)
app.add_typer(product, name="product")
app.add_typer(user, name="user")
app.add_typer(rules, name="rules")
app.add_typer(journal, name="journal")
app.add_typer(commands.config, name="config")
app.command("doctor")(doctor)
