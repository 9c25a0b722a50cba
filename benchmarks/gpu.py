"""Vitrine on a card, measured: search, codes, a build, encoding, and serving beside the CPU. README.md explains.

    python benchmarks/gpu.py --folder /tmp/shop
    python benchmarks/gpu.py --only search --device cpu --rows 20000 --batches 1,16 --k 100    # a try without a card

Every figure is written as soon as it is known, so a run may be cut off. A later run with the same --out keeps the
sections that it does not measure, and one with the same --folder goes on with the shop as far as it was made.
"""

import argparse
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gpu_codes
import gpu_encode
import gpu_search
import gpu_served
import polars as pl
import torch
from gpu_goals import best_held, lines
from gpu_shop import Shop
from plot import plot_held, plot_searched
from result import environment, write_result
from side import dropped

from indexer.card import scan_dtype
from indexer.device import choose
from indexer.encoder import load_encoder
from server.config import load_settings

HERE = Path(__file__).parent
# The side of the square product that says what the card's matrix units reach at most.
_SQUARE = {"cuda": 8_192, "cpu": 512}
Save = Callable[[Mapping[str, Any]], None]


class Document:
    """The result file: a section each for what was measured, with machine, commit, versions and parameters of its own.

    Sections that are there already are kept until they are measured again.
    """

    def __init__(self, path: Path, parameters: Mapping[str, Any]) -> None:
        self.path = path
        self._made = environment() | {"parameters": {name: _plain(value) for name, value in parameters.items()}}
        there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.sections: dict[str, Any] = there.get("sections", {})

    def save(self, name: str, body: Mapping[str, Any]) -> None:
        """Write the file with this section as it is now."""
        self.sections[name] = {**self._made, **body}
        write_result(self.path, "gpu", {}, {"sections": self.sections})


def _plain(value: object) -> object:
    return value.name if isinstance(value, Path) else value


def search(given: argparse.Namespace, device: torch.device, save: Save) -> None:
    """Exact search: every size, batch, k and kind of mask."""
    seconds, side = given.seconds, _SQUARE[device.type]
    speeds = gpu_search.bandwidth(device, given.probe, seconds)
    square = gpu_search.matrix_rate(device, scan_dtype(device), side, side, side, seconds)
    limits = {"bytes_per_second": speeds, "square_flops": square, "square": side}
    told: dict[str, Any] = {"device": described(device), "limits": limits, "points": [], "failed": {}}

    def measure(plan: gpu_search.Plan) -> None:
        _searched(gpu_search.Bench(plan, device), max(speeds.values()), told, save)

    _each_size(given, told, save, measure)


def codes(given: argparse.Namespace, device: torch.device, save: Save) -> None:
    """Search of codes, as it stands in for the exact one where vectors do not fit: the same vectors and questions."""
    told: dict[str, Any] = {"device": described(device), "tuning": {}, "points": [], "failed": {}}

    def measure(plan: gpu_search.Plan) -> None:
        bench = gpu_codes.Coded(plan, device)
        told["index"] = bench.index.kind
        told["tuning"][str(plan.rows)] = bench.entry
        for point in bench.measured():
            told["points"].append(point)
            save(told)
            _say(f"codes: {_point(point)}, recall {point['recall']:.4f}")

    _each_size(given, told, save, measure)


def _each_size(
    given: argparse.Namespace, told: dict[str, Any], save: Save, measure: Callable[[gpu_search.Plan], None]
) -> None:
    """A size that cannot be had is told, and the others go on."""
    save(told)
    for rows in given.rows:
        plan = gpu_search.Plan(
            rows, given.batches, given.k, given.dimensions, kept=given.kept, seconds=given.seconds, seed=given.seed
        )
        try:
            measure(plan)
        except (RuntimeError, MemoryError) as error:
            told["failed"][str(rows)] = f"{type(error).__name__}: {error}"
            save(told)
            _say(f"{rows:,} rows failed: {error}")


def _point(point: Mapping[str, Any]) -> str:
    return (
        f"{point['rows']:,} rows, batch {point['batch']}, k {point['k']}, mask {point['mask']}: "
        f"{point['ms']:.3f} ms, {point['queries_per_second']:,.0f}/s"
    )


def _searched(bench: gpu_search.Bench, bytes_a_second: float, told: dict[str, Any], save: Save) -> None:
    """Measure one size; what it holds is let go of with it, before the next is made."""
    told["index"] = bench.index.kind
    save(told)
    for point in bench.points(bytes_a_second):
        told["points"].append(point)
        save(told)
        _say(
            f"{_point(point)}, {point['fraction']:.2f} of the {point['bound']}'s limit, "
            f"recall {point['recall']:.6f}, widened {point['widened']} of {point['asked']}"
        )


def build(given: argparse.Namespace, device: torch.device, save: Save) -> None:
    """The sample shop, its index (what is measured), and the release that `served` needs."""
    shop = _shop(given)
    told: dict[str, Any] = {"device": described(device), "sample_seconds": shop.sample()}
    save(told)
    told["index"] = shop.index(str(device))
    counts, seconds = told["index"]["counts"], told["index"]["seconds"]
    told["titles_per_second"] = round(counts["embedded"] / seconds["whole"], 1)
    _say(f"{counts['products']:,} products built in {seconds['whole']:.1f} s: {seconds}")
    save(told)
    told["release_seconds"] = shop.release(str(device))
    _say(f"released: {told['release_seconds']}")
    save(told)


def encode(given: argparse.Namespace, device: torch.device, save: Save) -> None:
    """Titles of the sample shop through the encoder and through the bare model."""
    shop = _shop(given)
    shop.sample()
    config = load_settings(shop.config(str(device))).indexer
    titles = pl.read_parquet(config.catalogue, columns=["title"])["title"].drop_nulls().unique(maintain_order=True)
    asked = titles.sample(min(given.titles, len(titles)), seed=given.seed, shuffle=True).to_list()
    bare = gpu_encode.Bare(config.encoder, device)
    told = gpu_encode.rates(load_encoder(config), bare, asked, given.rounds, given.wider)
    save({"device": described(device), **told})
    _say(f"titles/s {told['titles_per_second']}, stream : bare {told['stream_ratio']}")


def served(given: argparse.Namespace, device: torch.device, save: Save) -> None:
    """The shop over gRPC: on the device with each number of workers, then on the CPU."""
    shop = _shop(given)
    requests = gpu_served.requests_of(shop.folder / "data", given.seed)
    asked = gpu_served.Load(
        start=given.start,
        p99=given.p99,
        seconds=given.point_seconds,
        most_seconds=given.ramp_seconds,
        generators=given.generators,
    )
    told: dict[str, Any] = {"device": described(device), "distinct_queries": len(requests), "variants": {}}
    sides = {(str(device), workers): given.card_set for workers in given.workers} | {("cpu", given.cpu_workers): []}
    for (place, workers), settings in sides.items():
        name = f"{place}, {workers} worker{'s' * (workers > 1)}"
        variant: dict[str, Any] = {"device": place, "settings": settings}

        def tell(known: Mapping[str, Any], name: str = name, variant: Mapping[str, Any] = variant) -> None:
            told["variants"][name] = {**variant, **known}
            save(told)

        try:
            config = shop.config(place, settings)
            found = gpu_served.measure(config, workers, requests, asked, shop.log, tell)
        except (RuntimeError, OSError) as error:
            # One side that does not come up leaves the figures of the others.
            found = {**told["variants"].get(name, {}), "failed": f"{type(error).__name__}: {error}"}
        tell(found)
        _say(f"{name}: held {found.get('held_rate')}/s, limits {found.get('limits')} {found.get('failed', '')}")
    if len(held := best_held(told)) == 2 and held["cpu"]:
        save(told | {"card_to_cpu": round(held["card"] / held["cpu"], 3)})


SECTIONS = {"search": search, "codes": codes, "build": build, "encode": encode, "served": served}


def described(device: torch.device) -> dict[str, Any]:
    """What PyTorch says of a device."""
    if device.type == "cpu":
        return {"name": "cpu", "torch_threads": torch.get_num_threads()}
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "memory_bytes": found.total_memory,
        "capability": f"{found.major}.{found.minor}",
        "units": found.multi_processor_count,
        "cuda": torch.version.cuda,
    }


def draw(sections: Mapping[str, Any], path: Path) -> None:
    """The pictures of the sections that there are, beside the result: -search.png and -served.png."""
    if points := sections.get("search", {}).get("points"):
        plot_searched(points, path.with_name(f"{path.stem}-search.png"))
    variants = sections.get("served", {}).get("variants", {})
    if held := {name: each["held_rate"] or 0.0 for name, each in variants.items() if "held_rate" in each}:
        plot_held(held, path.with_name(f"{path.stem}-served.png"))


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", type=_names, default=list(SECTIONS), help=f"Sections, with commas (default {','.join(SECTIONS)}).")
    add("--device", default="auto", help="auto, cpu or cuda:N (default %(default)s).")
    add("--out", type=Path, default=HERE / "results" / "gpu.json", help="JSON (default results/gpu.json).")
    add("--seed", type=int, default=0)
    add("--rows", type=_numbers, default=[1_200_000, 10_000_000], help="search, codes: vectors, with commas.")
    add("--batches", type=_numbers, default=[1, 16, 64, 256], help="search, codes: queries a call.")
    add("--k", type=_numbers, default=[100, 300], help="search, codes: neighbours.")
    add("--dimensions", type=int, default=384, help="search, codes: of a vector.")
    add(
        "--kept",
        type=float,
        default=0.1,
        help="search, codes: share of the rows that a mask keeps (default %(default)s).",
    )
    add("--seconds", type=float, default=1.0, help="search, codes: of each measurement (default %(default)s).")
    add("--probe", type=int, default=2**31, help="search: bytes that bandwidth is measured on (default 2 GiB).")
    add("--folder", type=Path, default=Path(tempfile.gettempdir()) / "vitrine-gpu", help="The shop's folder.")
    add("--products", type=int, default=1_200_000, help="build: of the sample shop.")
    add("--sessions", type=int, default=20_000, help="build: of the sample shop.")
    add("--candidates", type=int, default=300, help="build: ranked for a request (default %(default)s).")
    add("--set", action="append", default=[], help="build, served: a setting, as in indexer.index=exact; repeatable.")
    add("--titles", type=int, default=200_000, help="encode: distinct titles.")
    add("--rounds", type=int, default=3, help="encode: that count.")
    add("--wider", type=_numbers, default=[256, 1_024], help="encode: batches of the bare model beside the encoder's.")
    add("--workers", type=_numbers, default=[1], help="served: processes on the device, with commas.")
    add("--cpu-workers", type=int, default=max(cores - 4, 1), help="served: processes on the CPU.")
    add("--card-set", action="append", default=[], help="served: a setting on the device alone; repeatable.")
    add("--generators", type=int, default=min(4, cores), help="served: processes that ask.")
    add("--start", type=float, default=100.0, help="served: the first rate.")
    add("--p99", type=float, default=25.0, help="served: the bound in milliseconds (default %(default)s).")
    add("--point-seconds", type=float, default=5.0, help="served: of each rate.")
    add("--ramp-seconds", type=float, default=120.0, help="served: begin no rate after this long.")
    return parser.parse_args(words)


def _numbers(text: str) -> list[int]:
    return [int(part.replace("_", "")) for part in text.split(",") if part]


def _names(text: str) -> list[str]:
    if unknown := set(text.split(",")) - set(SECTIONS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: write some of {','.join(SECTIONS)}")
    return [name for name in SECTIONS if name in text.split(",")]


def _shop(given: argparse.Namespace) -> Shop:
    return Shop(given.folder, given.products, given.sessions, given.candidates, given.set)


def _say(line: str) -> None:
    print(line, flush=True)


def main(words: list[str] | None = None) -> int:
    """Measure the sections asked for; 1 where one failed, whose reason is in the file too."""
    given = parsed(words)
    document = Document(given.out, vars(given) | {"environment_dropped": dropped()})
    device, failed = choose(given.device), 0
    for name in given.only:
        known: dict[str, Any] = {}

        def save(body: Mapping[str, Any], name: str = name, known: dict[str, Any] = known) -> None:
            known.update(body)
            document.save(name, body)

        _say(f"--- {name}")
        try:
            SECTIONS[name](given, device, save)
        except Exception as error:  # The other sections are worth having.
            traceback.print_exc()
            document.save(name, {**known, "error": f"{type(error).__name__}: {error}"})
            failed = 1
        draw(document.sections, given.out)
    print("\n".join(lines(document.sections)))
    _say(f"Wrote {given.out} and its pictures.")
    return failed


if __name__ == "__main__":
    sys.exit(main())
