"""The request path without a network, one batch after the other, for as long as it is told. `whole.py` starts it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from side import report, timed

from server import pipeline
from server.app import open_live, warm_up
from server.config import load_settings
from server.pipeline import Ask


def main() -> None:
    """Load the live release, then measure on the word."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True, help="The shop's vitrine.toml.")
    parser.add_argument("--queries", type=Path, required=True, help="Text file, one query a line.")
    parser.add_argument("--batch", type=int, default=1, help="Requests answered together (default 1).")
    parser.add_argument("--seconds", type=float, default=3.0, help="Seconds that count (default 3).")
    given = parser.parse_args()
    queries = given.queries.read_text(encoding="utf-8").splitlines()
    live = open_live(load_settings(given.config))
    warm_up(live.state)

    def answer(batch: Sequence[str]) -> Any:
        return pipeline.search(live.state, [Ask(query=query) for query in batch])

    report(lambda: timed(answer, queries, given.batch, given.seconds))
    live.journal.close()


if __name__ == "__main__":
    main()
