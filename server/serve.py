"""The command that answers: `vitrine serve`."""

from typing import Annotated

import typer

from server import workers as processes
from server.config import load_settings
from server.options import DEFAULT, Config


def serve(
    path: Config = DEFAULT,
    port: Annotated[int | None, typer.Option(help="Instead of server.port; 0 takes a free one.")] = None,
    address: Annotated[str | None, typer.Option(help="Instead of server.address.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Instead of server.workers.")] = None,
) -> None:
    """Answer over gRPC until SIGTERM or SIGINT, then finish what is in flight."""
    settings = load_settings(path)
    if settings.server.rules:
        # Here: a worker that ends by itself ends the others with another exit code.
        from server.rule_file import read_rules

        read_rules(settings.server.rules)
    given = {"port": port, "address": address, "workers": workers}
    changes = {name: value for name, value in given.items() if value is not None}
    processes.run(settings.model_copy(update={"server": settings.server.model_copy(update=changes)}))
