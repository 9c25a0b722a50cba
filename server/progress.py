"""How far an offline command is, on standard error."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

errors = Console(stderr=True)


class Bar:
    """The build's progress."""

    def __init__(self, disable: bool = False) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=errors, disable=disable)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, stage: str, done: int, total: int) -> None:
        """See `indexer.build.Progress`."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, total=total)
        self._progress.advance(self._tasks[stage], done)


class Say:
    """The training's progress, each line with the seconds since the start."""

    def __init__(self, quiet: bool = False) -> None:
        self._start = time.monotonic()
        self._quiet = quiet

    def __call__(self, line: str) -> None:
        if not self._quiet:
            errors.print(f"[dim]{time.monotonic() - self._start:6.1f} s[/] {line}", highlight=False)
