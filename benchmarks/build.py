"""What building an index of a sample shop takes: seconds by stage, memory, what a kill costs. README.md explains."""

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import typer
from result import environment, write_result
from side import dropped, neutral, tail

_HERE = Path(__file__).parent
_EVERY = 0.05  # seconds between two looks at a build's memory
_CONFIG = """store = "store"

[indexer]
catalogue = "data/products.parquet"
index = "{index}"
threads = {threads}
"""
# What /proc/PID/status calls the most a process held, what is its own, and what is mapped from files.
MEMORY = {"VmHWM": "peak", "RssAnon": "anonymous", "RssFile": "mapped"}


def memory_of(status: str) -> dict[str, int]:
    """Bytes by the names of `MEMORY`, from the text of /proc/PID/status; those it does not tell are left out."""
    lines = (line.split() for line in status.splitlines())
    return {MEMORY[words[0][:-1]]: int(words[1]) * 1_024 for words in lines if words and words[0][:-1] in MEMORY}


@dataclass
class Watched:
    """What was seen of one build from outside: the most memory of each kind, of its own by stage, and its words."""

    most: dict[str, int] = field(default_factory=dict)
    by_stage: dict[str, int] = field(default_factory=dict)
    embedded: int = 0
    built: dict[str, Any] | None = None
    stage: str = "start"

    def look(self, memory: Mapping[str, int]) -> None:
        """Note the memory of one moment."""
        self.most |= {name: max(held, self.most.get(name, 0)) for name, held in memory.items()}
        if "anonymous" in memory:
            self.by_stage[self.stage] = max(memory["anonymous"], self.by_stage.get(self.stage, 0))

    def hear(self, told: Mapping[str, Any]) -> None:
        """Note one line of `timed_build.py`."""
        self.stage = told.get("stage", self.stage)
        self.embedded = told.get("embedded", self.embedded)
        self.built = told.get("built", self.built)


def built(config: Path, log: Path, kill_after: float | None = None) -> Watched:
    """Build in a process of its own; with `kill_after`, kill it after so many seconds of embedding.

    Raises `RuntimeError` where it fails.
    """
    seen = Watched()
    command = [sys.executable, str(_HERE / "timed_build.py"), str(config)]
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, cwd=_HERE, env=neutral(), stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
        )
    embedding = threading.Event()

    def listen() -> None:
        for line in process.stdout or ():
            seen.hear(json.loads(line))
            if seen.embedded:
                embedding.set()

    listener = threading.Thread(target=listen)
    with process:
        listener.start()
        try:
            _follow(process, seen, embedding, kill_after)
        finally:
            process.kill()
            listener.join()
    if seen.built is None and (kill_after is None or process.returncode != -signal.SIGKILL):
        raise RuntimeError(f"The build ended with code {process.returncode}:\n{tail(log)}")
    return seen


def _follow(
    process: subprocess.Popen[str], seen: Watched, embedding: threading.Event, kill_after: float | None
) -> None:
    """Look at the memory until the process ends or is to be killed."""
    status, due = Path(f"/proc/{process.pid}/status"), float("inf")
    while process.poll() is None and time.monotonic() < due:
        if status.exists():
            seen.look(memory_of(status.read_text()))
        if kill_after is not None and embedding.is_set() and due == float("inf"):
            due = time.monotonic() + kill_after
        time.sleep(_EVERY)


def saved_titles(store: Path) -> int:
    """How many vectors the shards of a killed build hold."""
    shards = (store / "work").glob("embeddings-*/*.keys.npy")
    return sum(len(np.load(path, mmap_mode="r")) for path in shards)


def resumed(config: Path, log: Path, kill_after: float) -> tuple[dict[str, int], Watched]:
    """Build, kill, build again: titles embedded and saved before the kill, embedded after it, and embedded twice."""
    first = built(config, log, kill_after)
    if first.built is not None:
        raise RuntimeError("The build had ended before it was to be killed. Give a shorter --kill-after.")
    saved = saved_titles(config.parent / "store")
    second = built(config, log)
    counts = {"embedded": first.embedded, "saved": saved, "embedded_after": second.embedded}
    return counts | {"twice": first.embedded - saved}, second


def make_shop(folder: Path, products: int, index: str, threads: int) -> Path:
    """A sample shop without a store, where there is none of that size yet; returns its configuration."""
    data, config = folder / "data", folder / "vitrine.toml"
    shutil.rmtree(folder / "store", ignore_errors=True)
    size = folder / f"products-{products}"
    if not size.exists():
        options = ("--products", products, "--sessions", 500, "--users", 500, "--out", data)
        command = [sys.executable, "-m", "server", "sample", *map(str, options)]
        done = subprocess.run(command, env=neutral(), cwd=_HERE, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2_000:]}")
        for other in folder.glob("products-*"):
            other.unlink()
        size.touch()
    config.write_text(_CONFIG.format(index=index, threads=threads), encoding="utf-8")
    return config


def encoding_rate(config: Path, sample: int, rounds: int) -> dict[str, Any]:
    """See `encoding_rate.py`. Raises `RuntimeError` where it fails."""
    command = [sys.executable, str(_HERE / "encoding_rate.py"), str(config), str(sample), str(rounds)]
    done = subprocess.run(command, cwd=_HERE, env=neutral(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2_000:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def lines_of(told: Mapping[str, Any], seen: Watched, rate: Mapping[str, Any] | None) -> list[str]:
    """The figures for the person who waits."""
    seconds, count = told["seconds"], told["counts"]["embedded"]
    lines = ["| stage | s | private MB, most |", "|---|---|---|"]
    for stage, spent in seconds.items():
        held = seen.most.get("anonymous") if stage == "whole" else seen.by_stage.get(stage)
        lines.append(f"| {stage} | {spent:,.2f} | {'' if held is None else f'{held / 1e6:,.0f}'} |")
    lines.append(f"\nembedded: {count:,} titles, {count / max(seconds['embed'], 0.01):,.0f} a second")
    if rate:
        lines.append(
            f"encoding alone: {rate['ours']:,.0f} titles a second, the bare model {rate['bare']:,.0f}; "
            f"ratio {rate['ratio']:.3f}"
        )
    most = ", ".join(f"{name} {held / 1e6:,.0f} MB" for name, held in seen.most.items())
    lines.append(f"memory, most of each: {most or 'not told by this system'}")
    entry = told["index"]
    lines.append(f"index: {entry['kind']}, recall@100 {entry['recall_at_100']:.4f}")
    return lines


def measure(config: Path, log: Path, kill_after: float | None, say: Callable[[str], None]) -> tuple[Watched, Any]:
    """The build, and what a kill cost it, if it was killed."""
    if kill_after is None:
        return built(config, log), None
    counts, seen = resumed(config, log, kill_after)
    say(
        f"killed after {counts['embedded']:,} titles, {counts['saved']:,} of them saved; "
        f"{counts['embedded_after']:,} embedded after it, {counts['twice']:,} twice"
    )
    return seen, counts


app = typer.Typer(add_completion=False)


@app.command()
def main(
    context: typer.Context,
    products: Annotated[int, typer.Option(min=1_000, help="Products of the shop.")] = 100_000,
    folder: Annotated[
        Path | None, typer.Option(help="Where the shop is kept; its store is made anew. [default: a temporary one]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON to write. [default: results/build.json]")] = None,
    index: Annotated[str, typer.Option(help="indexer.index.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="indexer.threads; 0: every core.")] = 0,
    kill_after: Annotated[
        float | None, typer.Option(min=0.0, help="Kill it after so many seconds of embedding, and build again.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Titles of a round of the encoding alone.")] = 8_192,
    rounds: Annotated[int, typer.Option(min=0, help="Its rounds, after one that does not count; 0: none.")] = 5,
) -> None:
    """Build a sample shop's index in a process of its own, watch it, and write JSON."""
    made = environment()
    with ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="vitrine-build-")))
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        typer.echo(f"{products:,} products in {folder}")
        config = make_shop(folder, products, index, threads)
        seen, killed = measure(config, folder / "build.log", kill_after, typer.echo)
        told = seen.built or {}
        rate = encoding_rate(config, sample, rounds) if rounds else None
    typer.echo("\n".join(lines_of(told, seen, rate)))
    body = {
        "build": told,
        "memory_bytes": {"most": seen.most, "anonymous_by_stage": seen.by_stage},
        "killed": killed,
        "encoding": rate,
    }
    path = out or _HERE / "results" / "build.json"
    write_result(path, "build", {**context.params, "environment_dropped": dropped()}, made | body)
    typer.echo(f"Wrote {path}.")


if __name__ == "__main__":
    app()
