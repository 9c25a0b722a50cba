"""Vitrine beside vector databases and search libraries: the same titles, the same queries, the same machine."""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import typer
from plot import plot_rates
from result import environment, write_result
from side import dropped
from vector_peers.process import Engine, Round, Row, alternate, end_cleanly_when_terminated, medians
from vector_peers.servers import serving
from vector_peers.shop import KEPT, queries_of, write_data

from server.config import load_settings

# Row name, adapter.
PEERS = {
    "pgvector": "pgvector",
    "Milvus Lite": "milvus",
    "LanceDB": "lancedb",
    "USearch": "usearch",
    "hnswlib": "hnswlib",
    "Tantivy, words": "tantivy",
}
WORDS = ("Tantivy, words",)
FULL_VECTOR, FULL_WORDS = "Vitrine, full ranking by vector, gRPC", "Vitrine, full ranking by words, gRPC"
RECALL, DENSE, LEXICAL = "Vitrine, recall alone, gRPC", "Vitrine, recall in process", "Vitrine, words in process"
SAME_RECALL = "hnswlib, at Vitrine's recall"
# More than any deadline leaves: with it every answer comes in recall order.
NO_RANKING = {"ranking_budget_ms": 1e9}
# Queries come round again; a kept vector would be a query not embedded.
NO_CACHE = {"query_cache": 0}
_SLACK = 0.002


class Goal(NamedTuple):
    """`ours` answers at least `times` as many requests a second as `theirs`."""

    ours: str
    theirs: str
    times: float


GOALS = (
    *(Goal(ours, "LanceDB", 1.0) for ours in (FULL_VECTOR, FULL_WORDS)),
    *(Goal(ours, "pgvector", 0.5) for ours in (FULL_VECTOR, FULL_WORDS)),
    *(Goal(ours, "Milvus Lite", 20.0) for ours in (FULL_VECTOR, FULL_WORDS)),
    Goal(RECALL, "pgvector", 2.0),
    Goal(DENSE, SAME_RECALL, 1.0),
)


def judged(goals: Sequence[Goal], rounds: Mapping[str, Sequence[Round]]) -> list[dict[str, Any]]:
    """Each goal whose rows are both there: the median over the rounds of the ratio of the two rates of one round."""
    told = []
    for goal in goals:
        if goal.ours not in rounds or goal.theirs not in rounds:
            continue
        pairs = zip(rounds[goal.ours], rounds[goal.theirs], strict=True)
        ratio = statistics.median(ours.rate / theirs.rate for ours, theirs in pairs)
        told.append({**goal._asdict(), "ratio": round(ratio, 3), "met": ratio >= goal.times})
    return told


def rows_of(
    python: Path | None, config: Path, target: float, addresses: Mapping[str, str], only: Sequence[str] = ()
) -> list[Row]:
    """The rows of the table, ours first; of the peers only those named, where some are."""
    here = Path(sys.executable)
    one = {"OMP_NUM_THREADS": "1"}
    stages = {DENSE: "dense", LEXICAL: "lexical"}
    rows = [
        Row(name, "vitrine", here, target, {"config": str(config.resolve()), "stage": stage}, one)
        for name, stage in stages.items()
    ]
    for name, by, ranked in ((FULL_VECTOR, "vector", True), (FULL_WORDS, "words", True), (RECALL, "vector", False)):
        options = {"by": by, "ranked": ranked, "address": addresses["full" if ranked else "recall"]}
        rows.append(Row(name, "vitrine_grpc", here, target, options))
    if python is None:
        return rows
    named = [name for name in PEERS if not only or PEERS[name] in only]
    return [*rows, *(Row(name, PEERS[name], python, target) for name in named)]


def prepared(
    rows: Sequence[Row], start: Callable[[Row], Engine], say: Callable[[str], None]
) -> tuple[list[Engine], dict[str, Any], dict[str, str]]:
    """The engines that are ready, what each was set to, and why others are left out.

    Beside hnswlib comes a second one, tuned until it finds as much as our recall does.
    """
    engines, told, left_out = [], {}, {}
    waiting = list(rows)
    while waiting:
        row = waiting.pop(0)
        try:
            engine = start(row)
            told[row.name] = engine.prepare()
        except (RuntimeError, OSError) as error:
            left_out[row.name] = str(error)
            say(f"{row.name} is left out: {error}")
            continue
        engines.append(engine)
        say(prepared_line(row, told[row.name]))
        if row.name == "hnswlib" and DENSE in told:
            waiting.append(Row(SAME_RECALL, row.adapter, row.python, told[DENSE]["recall"] - _SLACK))
    return engines, told, left_out


def prepared_line(row: Row, told: Mapping[str, Any]) -> str:
    """One line for the person who waits."""
    reached = "" if told["recall"] is None else f"recall {told['recall']:.4f}, "
    short = told["recall"] is not None and told["recall"] < row.target - _SLACK
    settings = {**told["build"], **told["search"]}
    short_of = f", short of the {row.target} asked for" if short else ""
    return f"{row.name}: {reached}{settings}, ready after {told['build_seconds']} s{short_of}"


def table(measured: Mapping[int, Mapping[str, Sequence[Round]]], told: Mapping[str, Any]) -> str:
    """Every row with its recall, and rate and latency for each number of callers."""
    heads = "".join(f" | {n} caller{'s' * (n > 1)} /s | p50 / p99 ms" for n in measured)
    lines = [f"| | recall{heads} |", "|---" * (2 + 2 * len(measured)) + "|"]
    for name, settings in told.items():
        recall = "" if settings["recall"] is None else f"{settings['recall']:.4f}"
        cells = [name, recall]
        for rounds in measured.values():
            middle = medians(rounds[name]) if name in rounds else None
            cells += [f"{middle['rate']:.0f}", f"{middle['p50']:.2f} / {middle['p99']:.2f}"] if middle else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def goal_table(goals: Sequence[Mapping[str, Any]]) -> str:
    """Every goal with the ratio reached."""
    lines = ["| callers | requests/s of | over those of | ratio | goal | |", "|---|---|---|---|---|---|"]
    for goal in goals:
        word = "met" if goal["met"] else "NOT met"
        ratio = f"{goal['ratio']:.2f} | at least {goal['times']:g}"
        lines.append(f"| {goal['callers']} | {goal['ours']} | {goal['theirs']} | {ratio} | {word} |")
    return "\n".join(lines)


app = typer.Typer(add_completion=False)


@app.command()
def main(
    context: typer.Context,
    config: Annotated[Path, typer.Option("-c", "--config", help="vitrine.toml of the shop, with a live release.")],
    peers_python: Annotated[Path | None, typer.Option(help="Python with vector_peers/requirements.txt.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON to write. [default: results/search-peers.json]")] = None,
    queries: Annotated[Path | None, typer.Option(help="Text file or Parquet. [default: the log's]")] = None,
    count: Annotated[int, typer.Option(min=10, help="At most so many queries, spread evenly.")] = 1_000,
    k: Annotated[int, typer.Option(min=1, max=100, help="Products an answer holds.")] = 100,
    recall: Annotated[float, typer.Option(min=0.0, max=1.0, help="Recall@k that peers are tuned to.")] = 0.95,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count, after one that does not.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of a round.")] = 3.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="Seconds before them, not counted.")] = 0.5,
    callers: Annotated[str, typer.Option(help="Numbers of callers.")] = "1,8",
    workers: Annotated[int, typer.Option(min=1, help="Processes of each of our two servers.")] = 1,
    only: Annotated[str, typer.Option(help=f"Peers: any of {','.join(PEERS.values())}. [default: all]")] = "",
) -> None:
    """Ask each engine in turn; write JSON. README.md explains the figures."""
    end_cleanly_when_terminated()
    made, settings = environment(), load_settings(config)
    if unknown := set(only.split(",")) - {"", *PEERS.values()}:
        raise typer.BadParameter(f"--only knows {', '.join(PEERS.values())}, not {', '.join(sorted(unknown))}.")
    if peers_python is None:
        typer.echo("Without peers: they need --peers-python (see README.md).")
    try:
        texts = queries_of(settings, queries, count)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with TemporaryDirectory(prefix="vitrine-search-peers-") as name, ExitStack() as stack:
        data, work = Path(name, "data"), Path(name, "work")
        data.mkdir()
        work.mkdir()
        snapshot = write_data(settings, texts, k, data)
        if len(texts) <= KEPT:
            typer.echo(f"{len(texts)} queries: the spelling of up to {KEPT} is kept, and words cost less than they do.")
        typer.echo(f"{len(snapshot):,} products, {len(texts):,} queries, index {snapshot.index.kind}")
        ours = {"workers": workers, **NO_CACHE}
        changes = {"full": ours, "recall": ours | NO_RANKING}
        addresses = {
            kind: stack.enter_context(serving(settings, change, work, kind)) for kind, change in changes.items()
        }

        def start(row: Row) -> Engine:
            engine = Engine(row, data, work, k)
            stack.callback(engine.close)
            return engine

        # A shell's link to the interpreter must not be resolved: it says which environment it is of.
        python = None if peers_python is None else peers_python.absolute()
        rows = rows_of(python, config, recall, addresses, [name for name in only.split(",") if name])
        engines, told, left_out = prepared(rows, start, typer.echo)
        measured = {
            number: alternate(engines, number, rounds, seconds, warmup, typer.echo)
            for number in map(int, callers.split(","))
        }
    goals = [{"callers": number, **goal} for number, found in measured.items() for goal in judged(GOALS, found)]
    typer.echo(table(measured, told))
    typer.echo(goal_table(goals))
    body = {
        "index": snapshot.id,
        "products": len(snapshot),
        "queries": len(texts),
        "engines": told,
        "left_out": left_out,
        "figures": {
            str(number): {name: medians(each) for name, each in found.items()} for number, found in measured.items()
        },
        "goals": goals,
    }
    path = out or Path(__file__).parent / "results" / "search-peers.json"
    parameters = {**context.params, "environment_dropped": dropped(), "our_servers": changes}
    write_result(path, "search-peers", parameters, made | body)
    most = max(measured)
    rates = {name: [each.rate for each in rounds] for name, rounds in measured[most].items()}
    plot_rates(rates, path.with_suffix(".png"), callers=most, ours="Vitrine,")
    typer.echo(f"Wrote {path} and its picture.")


if __name__ == "__main__":
    app()
