"""How the costs of a query and of a build grow with the catalogue: sample shops of several sizes, side by side."""

import json
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, NamedTuple

import typer
from plot import plot_costs
from result import commit, environment, write_result
from side import dropped, neutral
from vector_peers.process import (
    Engine,
    Round,
    Row,
    alternate,
    end_cleanly_when_terminated,
    medians,
)
from vector_peers.shop import KEPT, queries_of, write_data

from server.config import load_settings

STAGES = {"recall": "dense", "words": "lexical", "pipeline": "pipeline"}
_HERE = Path(__file__).parent
_CONFIG = """store = "store"

[indexer]
catalogue = "data/products.parquet"
index = "{index}"
{events}
[server]
query_cache = 0
"""
_EVENTS = """
[ranker]
events = "data/events.parquet"
"""


class Growth(NamedTuple):
    """A cost at two sizes: its ratio, the exponent of the size that explains it, and the one that the logarithm has."""

    ratio: float
    exponent: float
    most: float

    @property
    def held(self) -> bool:
        """Whether the cost grew at most as the logarithm of the size did."""
        return self.exponent <= self.most


def growth(ratio: float, small: int, large: int) -> Growth:
    """log(cost ratio) / log(size ratio), beside that of log(large) / log(small): 0.10 from 10,000 to 100,000."""
    wider = math.log(large / small)
    return Growth(ratio, math.log(ratio) / wider, math.log(math.log(large) / math.log(small)) / wider)


def paired_ratio(small: Sequence[Round], large: Sequence[Round]) -> float:
    """The median over the rounds of how much more an answer costs at the larger size."""
    return statistics.median(low.rate / high.rate for low, high in zip(small, large, strict=True))


class Shop:
    """A sample shop of `size` products in a folder, with what its build took."""

    def __init__(self, folder: Path, size: int, sessions: int, index: str, *, ranked: bool) -> None:
        self.folder, self.size = folder, size
        self.config = folder / "vitrine.toml"
        self._sessions, self._ranked, self._index = sessions, ranked, index

    def make(self, say: Callable[[str], None], *, again: bool) -> dict[str, Any]:
        """Build what is not there yet, in a process of its own; what that took, now or when it was built.

        Raises `RuntimeError` where the build fails.
        """
        record = self.folder / "built.json"
        asked = {"index": self._index, "ranked": self._ranked, "sessions": self._sessions}
        if again:
            shutil.rmtree(self.folder / "store", ignore_errors=True)
            record.unlink(missing_ok=True)
        if record.exists():
            told: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
            if told["asked"] == asked:
                say(f"{self.size:,} products: the build of {told['commit']['id'][:7]} is measured again")
                return told
        say(f"{self.size:,} products: building in {self.folder}")
        self._sample()
        events = _EVENTS if self._ranked else ""
        self.config.write_text(_CONFIG.format(index=self._index, events=events), encoding="utf-8")
        made = self.folder / "took.json"
        self._run("-m", "vector_peers.built", self.config, made)
        told = {**json.loads(made.read_text(encoding="utf-8")), "asked": asked, "commit": commit(_HERE)}
        record.write_text(json.dumps(told), encoding="utf-8")
        return told

    def _sample(self) -> None:
        data = self.folder / "data"
        if (data / f"sessions-{self._sessions}").exists():
            return
        options = {"--products": self.size, "--sessions": self._sessions, "--out": data}
        self._run("-m", "server", "sample", *(word for option in options.items() for word in option))
        (data / f"sessions-{self._sessions}").touch()

    def _run(self, *words: object) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, cwd=_HERE, env=neutral(), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-2_000:]}")


def line_of(size: int, told: Mapping[str, Any]) -> str:
    """What a build took, as a row of the table."""
    seconds, counts = told["seconds"], told["counts"]
    reused = " (vectors reused)" if told["reused"] else ""
    peak = "" if told["peak_bytes"] is None else f"{told['peak_bytes'] / 1e6:,.0f}"
    return (
        f"| {size:,} | {seconds['build']} | {seconds['embed']}{reused} | {counts['embedded']:,} | {seconds['index']} "
        f"| {told['index']['kind']}, {told['index']['recall_at_100']:.3f} | {peak} "
        f"| {sum(told['bytes'].values()) / 1e6:,.1f} |"
    )


def query_table(sizes: Sequence[int], rounds: Mapping[str, Sequence[Round]], told: Mapping[str, Any]) -> list[str]:
    """Milliseconds of each stage at each size, and how they grew from size to size."""
    lines = ["| stage, products | p50 / p99 ms | answers /s | recall@100, settings | cost grew | exponent, most |"]
    lines.append("|---|---|---|---|---|---|")
    for stage in STAGES:
        before: int | None = None
        for size in sizes:
            name = row_name(stage, size)
            if name not in rounds:
                continue
            middle, cells = medians(rounds[name]), ["", ""]
            if before:
                grown = growth(paired_ratio(rounds[row_name(stage, before)], rounds[name]), before, size)
                word = "held" if grown.held else "NOT held"
                cells = [f"x {grown.ratio:.2f}", f"{grown.exponent:.3f}, {grown.most:.3f}: {word}"]
            recall = "" if told[name]["recall"] is None else f"{told[name]['recall']:.4f} "
            settings = f"{recall}{dict(told[name]['search']) or ''}"
            latency = f"{middle['p50']:.3f} / {middle['p99']:.3f}"
            lines.append(f"| {name} | {latency} | {middle['rate']:.0f} | {settings} | {' | '.join(cells)} |")
            before = size
    return lines


def row_name(stage: str, size: int) -> str:
    """The name of a stage's row at one size."""
    return f"{stage}, {size:,}"


def grown_of(sizes: Sequence[int], rounds: Mapping[str, Sequence[Round]]) -> list[dict[str, Any]]:
    """The growth of each stage between neighbouring sizes."""
    told = []
    for stage in STAGES:
        there = [size for size in sizes if row_name(stage, size) in rounds]
        for small, large in pairwise(there):
            grown = growth(paired_ratio(rounds[row_name(stage, small)], rounds[row_name(stage, large)]), small, large)
            told.append({"stage": stage, "from": small, "to": large, **grown._asdict(), "held": grown.held})
    return told


def build_growth(sizes: Sequence[int], built: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The exponents of what a build takes, between neighbouring sizes; no goal is set on them.

    Embedding, and the whole, are left out where vectors were there before.
    """
    told = []
    for small, large in pairwise(sizes):
        for part, spent in built[small]["seconds"].items():
            reused = part in ("embed", "build") and (built[small]["reused"] or built[large]["reused"])
            if spent and built[large]["seconds"][part] and not reused:
                ratio = built[large]["seconds"][part] / spent
                exponent = round(growth(ratio, small, large).exponent, 3)
                told.append({"part": part, "from": small, "to": large, "ratio": round(ratio, 3), "exponent": exponent})
    return told


def costs_of(sizes: Sequence[int], rounds: Mapping[str, Sequence[Round]]) -> dict[str, dict[int, list[float]]]:
    """Milliseconds an answer of each round, by stage and size."""
    there = {stage: [size for size in sizes if row_name(stage, size) in rounds] for stage in STAGES}
    return {
        stage: {size: [1e3 / each.rate for each in rounds[row_name(stage, size)]] for size in found}
        for stage, found in there.items()
        if found
    }


def sizes_of(given: str) -> list[int]:
    """Distinct sizes, rising. Raises `typer.BadParameter`."""
    try:
        sizes = sorted({int(part.replace("_", "")) for part in given.split(",")})
    except ValueError as error:
        raise typer.BadParameter(f"--sizes takes whole numbers and commas, not {given!r}.") from error
    if sizes[0] < 100:
        raise typer.BadParameter("--sizes begin at 100: recall@100 means nothing below.")
    return sizes


app = typer.Typer(add_completion=False)


@app.command()
def main(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Where the shops are kept, a folder for each size.")],
    sizes: Annotated[str, typer.Option(help="Products, with commas. A million takes half an hour.")] = "10000,100000",
    out: Annotated[Path | None, typer.Option(help="JSON to write. [default: results/scale.json]")] = None,
    index: Annotated[str, typer.Option(help="indexer.index of every size.")] = "auto",
    recall: Annotated[float, typer.Option(min=0.0, max=1.0, help="Recall@100 that the search is set to.")] = 0.98,
    ranked: Annotated[bool, typer.Option("--ranked", help="Train on the sessions: the pipeline ranks.")] = False,
    sessions: Annotated[int, typer.Option(min=500, help="Sessions of each shop: its queries.")] = 2_000,
    count: Annotated[int, typer.Option(min=10, help="At most so many queries, spread evenly.")] = 1_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count, after one that does not.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of a round.")] = 2.0,
    warmup: Annotated[float, typer.Option(min=0.0, help="Seconds before them, not counted.")] = 0.3,
    again: Annotated[bool, typer.Option("--again", help="Build anew what is there.")] = False,
) -> None:
    """Build sample shops, ask each the queries of the smallest, one caller; write JSON. README.md explains."""
    end_cleanly_when_terminated()
    made, asked = environment(), sizes_of(sizes)
    shops = [Shop(folder.resolve() / str(size), size, sessions, index, ranked=ranked) for size in asked]
    built = {shop.size: shop.make(typer.echo, again=again) for shop in shops}
    texts = queries_of(load_settings(shops[0].config), shops[0].folder / "data" / "events.parquet", count)
    if len(texts) <= KEPT:
        typer.echo(f"{len(texts)} queries: the spelling of up to {KEPT} is kept, and words cost less than they do.")
    with TemporaryDirectory(prefix="vitrine-scale-") as name, ExitStack() as stack:
        engines, told = [], {}
        for shop in shops:
            data, work = (Path(name, f"{part}-{shop.size}") for part in ("data", "work"))
            data.mkdir()
            work.mkdir()
            write_data(load_settings(shop.config), texts, 100, data)
            for stage, adapter in STAGES.items():
                options = {"config": str(shop.config), "stage": adapter}
                one = {"OMP_NUM_THREADS": "1"}
                row = Row(row_name(stage, shop.size), "vitrine", Path(sys.executable), recall, options, one)
                engine = Engine(row, data, work, 100)
                stack.callback(engine.close)
                told[row.name] = engine.prepare()
                engines.append(engine)
        measured = alternate(engines, 1, rounds, seconds, warmup, typer.echo)
    typer.echo("| products | build s | embedding s | titles embedded | index s | index, recall | peak MB | index MB |")
    typer.echo("|---|---|---|---|---|---|---|---|")
    for size in asked:
        typer.echo(line_of(size, built[size]))
    typer.echo("\n" + "\n".join(query_table(asked, measured, told)))
    body = {
        "queries": len(texts),
        "fusion": {str(size): built[size]["fusion"] for size in asked},
        "builds": {str(size): built[size] for size in asked},
        "build_growth": build_growth(asked, built),
        "settings": told,
        "figures": {name: medians(each) for name, each in measured.items()},
        "growth": grown_of(asked, measured),
    }
    path = out or _HERE / "results" / "scale.json"
    write_result(path, "scale", {**context.params, "environment_dropped": dropped()}, made | body)
    plot_costs(costs_of(asked, measured), path.with_suffix(".png"))
    typer.echo(f"Wrote {path} and its picture.")


if __name__ == "__main__":
    app()
