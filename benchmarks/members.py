"""Does the fusion rank better than its members? Fitted several times, on requests that nothing was fitted on.

    python benchmarks/members.py -c examples/retail/vitrine.toml
    python benchmarks/members.py -c examples/retail/vitrine.toml --windows 3

Two fits of one log that differ in nothing but chance differ by about as much as a fusion adds. So members and fusion
are fitted with several seeds on the same lists, a request's figure is its mean over the fits, and the means of the
fusion that each fit chose are compared with those of each member. Lists of one user are alike, so users are resampled,
and what differs for one of them changes its sign as one.

A test slice is the last tenth of a log, and on a small one a fusion's gain is within chance. Each further window is
the log of before the test slice of the last one, with a test slice of its own: all are tested, and none was seen by
the members that it tests.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from result import environment, write_result

from indexer.arrays import Doubles, Ints
from indexer.device import choose
from indexer.errors import InputError
from indexer.snapshot import open_latest
from indexer.store import Store
from indexer.tuned import encoder_of
from ranker import log, ranked
from ranker.config import RankerConfig
from ranker.evaluate import MEMBERS, per_request, scores_of
from ranker.examples import Example, Slice
from ranker.fit import fit_members
from ranker.log import Sources
from ranker.significance import Difference, bootstrap, paired
from ranker.stages import Say
from ranker.train import Material, gather, held_back_lists, prepare, shortfall
from server.config import load_settings
from server.rebuild import read_sources

FIGURES = ("ndcg@10", "auc")

Values = Mapping[str, Mapping[str, Doubles]]


@dataclass(frozen=True)
class Fit:
    """One fit: what it chose, and each request's figures by scorer, the chosen fusion as `fused`."""

    seed: int
    seconds: float
    fusion: str
    alpha: float
    values: Values

    def told(self) -> dict[str, Any]:
        """Ready for JSON: means over the requests."""
        means = {name: {figure: _mean(each[figure]) for figure in FIGURES} for name, each in self.values.items()}
        return {"seed": self.seed, "seconds": self.seconds, "fusion": self.fusion, "alpha": self.alpha, "means": means}


def fitted(made: Material, test: Sequence[Example], config: RankerConfig, say: Say) -> Fit:
    """Members and fusion fitted with the configured seed, and their figures on `test`."""
    begin = time.perf_counter()
    members = fit_members(made.slices, made.space.vectors, config, choose(config.device), say)
    seconds = round(time.perf_counter() - begin, 1)
    wanted = ranked.answers(test, config.positive_grade)
    values = per_request(scores_of(members, test, made.space.vectors), wanted)
    kind = members.fusion.kind
    return Fit(config.seed, seconds, kind, members.fusion.alpha, {**values, "fused": values[kind]})


@dataclass(frozen=True)
class Window:
    """The fits on the log of before `end` (Unix seconds; None: on all of it).

    `users` are those who asked for the lists of the test slice, `requests` how many lists each slice has.
    """

    end: float | None
    requests: Mapping[str, int]
    examination: Sequence[float]
    users: Sequence[str | None]
    fits: Sequence[Fit]

    def told(self) -> dict[str, Any]:
        """Ready for JSON, with the figures of this window alone."""
        return {
            "end": self.end,
            "requests": self.requests,
            "examination": list(self.examination),
            "fits": [fit.told() for fit in self.fits],
            "figures": plain(figures([self])),
        }


def figures(windows: Sequence[Window]) -> dict[str, dict[str, Any]]:
    """What `compared` says of each figure that applies, over the requests of all windows."""
    users = ranked.numbered([user for window in windows for user in window.users])
    fits = [
        {
            name: {figure: np.concatenate([fit.values[name][figure] for fit in same]) for figure in FIGURES}
            for name in same[0].values
        }
        for same in zip(*(window.fits for window in windows), strict=True)
    ]
    found = {figure: compared(fits, figure, users) for figure in FIGURES}
    return {figure: each for figure, each in found.items() if each}


def compared(fits: Sequence[Values], figure: str, users: Ints) -> dict[str, Any]:
    """Means over fits and requests with 95 % intervals over users, and the fused order's less each member's.

    `fits` are each fit's values of the same requests, `users` [requests] a number for who asked. Empty where the figure
    applies to no request.
    """
    names = list(fits[0])
    means = {name: np.mean([values[name][figure] for values in fits], axis=0) for name in names}
    if np.isnan(means["fused"]).all():
        return {}
    intervals = bootstrap(np.column_stack([means[name] for name in names]), groups=users)
    differences = paired(means["fused"], np.column_stack([means[name] for name in MEMBERS]), users)
    return {
        "means": dict(zip(names, intervals, strict=True)),
        "fused_minus_member": dict(zip(MEMBERS, differences, strict=True)),
    }


def plain(told: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The same, ready for JSON."""
    return {
        figure: {part: {name: value._asdict() for name, value in of.items()} for part, of in each.items()}
        for figure, each in told.items()
    }


def lines(told: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The table: a row for each figure; behind each member the p of the fused order's difference to it."""
    made = ["| | Transformer alone | DNN | LightGBM | fused |", "|---|---|---|---|---|"]
    for figure, each in told.items():
        cells = [figure]
        for name in ("transformer", "network", "trees"):
            less: Difference = each["fused_minus_member"][name]
            cells.append(f"{each['means'][name].mean:.4f} ({less.mean:+.4f}, p {less.p:.4f})")
        made.append(f"| {' | '.join([*cells, format(each['means']['fused'].mean, '.4f')])} |")
    return made


def _mean(values: Doubles) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def before(sources: Sources, time: float) -> Sources:
    """The sources with the log of before a time, in Unix seconds."""
    assert sources.events is not None
    return sources._replace(events=sources.events.filter(log.seconds(pl.col("event_time")) < time))


class Bench:
    """A shop with its latest index, and how much is to be fitted on its log."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.settings = load_settings(given.config)
        self.config = self.settings.ranker
        store = Store(self.settings.store)
        self.snapshot = open_latest(store, self.settings.indexer)
        self.encoder = encoder_of(store, self.snapshot.manifest, self.settings.indexer)

    def windows(self) -> list[Window]:
        """The whole log, then what was before its test slice, and so on. Raises `InputError` where it is too short."""
        sources, end = read_sources(self.settings), None
        found = []
        for number in range(self.given.windows):
            say(f"window {number + 1} of {self.given.windows}")
            made = gather(self.config, self.settings.indexer, self.snapshot, self.encoder, sources, say)
            cuts, more = made.prepared.cuts, number + 1 < self.given.windows
            if more and not cuts:
                raise InputError("Judged queries have no time, so there is one window. Leave --windows out.")
            if lacking := shortfall(made.slices):
                raise InputError(lacking)
            found.append(self._window(made, sources, end))
            if more:
                end = cuts[-1]
                sources = before(sources, end)
        return found

    def _window(self, made: Material, sources: Sources, end: float | None) -> Window:
        test = self._test(made, sources)
        fits = []
        for seed in range(self.given.fits):
            say(f"fit {seed + 1} of {self.given.fits}")
            fits.append(fitted(made, test, self.config.model_copy(update={"seed": seed}), lambda _: None))
            say(f"{fits[-1].told()['means']}")
        requests = {part.name.lower(): len(each) for part, each in made.slices.items()} | {"test": len(test)}
        shares = made.prepared.examination.shares.tolist()
        return Window(end, requests, shares, [example.user for example in test], fits)

    def _test(self, made: Material, sources: Sources) -> Sequence[Example]:
        """The lists of the test slice, as many of them as asked for."""
        if not self.given.requests:
            return made.slices[Slice.TEST]
        wider = self.config.model_copy(update={"most_requests": self.given.requests})
        prepared = prepare(sources, self.snapshot, wider, made.prepared.told())
        wide = held_back_lists(prepared, made.space, made.weights, self.config, self.snapshot, self.encoder, say)
        return made.prepared.examination.weighed(wide)


def say(message: str) -> None:
    """What is being done, to people."""
    print(message, file=sys.stderr, flush=True)


def main() -> None:
    """Run the benchmark of one shop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, required=True, help="The shop's vitrine.toml.")
    parser.add_argument("--fits", type=int, default=4, help="Seeds, from 0 (default 4).")
    parser.add_argument("--windows", type=int, default=1, help="Test slices, the last one first (default 1).")
    parser.add_argument("--requests", type=int, help="Most requests of a test slice; by default the shop's setting.")
    parser.add_argument("--out", type=Path, help="Where the JSON goes; by default only the table is printed.")
    given = parser.parse_args()
    if min(given.fits, given.windows) < 1:
        parser.error("--fits and --windows are 1 or more.")
    bench = Bench(given)
    try:
        windows = bench.windows()
    except InputError as error:
        parser.error(str(error))
    told = figures(windows)
    print("\n".join(lines(told)))
    if given.out:
        parameters = {name: getattr(given, name) for name in ("config", "fits", "windows", "requests")}
        body = {
            **environment(),
            "set": given.config.resolve().parent.name,
            "index": bench.snapshot.id,
            "products": len(bench.snapshot),
            "users": len(set(ranked.numbered([user for window in windows for user in window.users]).tolist())),
            "figures": plain(told),
            "windows": [window.told() for window in windows],
        }
        write_result(given.out, "members", parameters, body)


if __name__ == "__main__":
    main()
