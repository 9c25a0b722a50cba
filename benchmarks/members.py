"""Does the fusion rank better than its members? Fitted several times, on requests that nothing was fitted on.

    python benchmarks/members.py -c examples/retail/vitrine.toml

Two fits of one log that differ in nothing but chance differ by about as much as a fusion adds. So members and fusion
are fitted with several seeds on the same lists, a request's figure is its mean over the fits, and the means of the
fusion that each fit chose are compared with those of each member.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from result import environment, write_result

from indexer.arrays import Doubles
from indexer.device import choose
from indexer.snapshot import open_latest
from indexer.store import Store
from indexer.tuned import encoder_of
from ranker import ranked
from ranker.config import RankerConfig
from ranker.evaluate import MEMBERS, per_request, scores_of
from ranker.examples import Example, Slice
from ranker.fit import fit_members
from ranker.significance import Difference, bootstrap, paired
from ranker.stages import Say
from ranker.train import Material, gather, held_back_lists, prepare, shortfall
from server.config import load_settings
from server.rebuild import read_sources

FIGURES = ("ndcg@10", "auc")


@dataclass(frozen=True)
class Fit:
    """One fit: what it chose, and each request's figures by scorer, the chosen fusion as `fused`."""

    seed: int
    seconds: float
    fusion: str
    alpha: float
    values: Mapping[str, Mapping[str, Doubles]]

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


def compared(fits: Sequence[Fit], figure: str) -> dict[str, Any]:
    """Means over fits and requests with 95 % intervals over requests, and the fused order's less each member's.

    Empty where the figure applies to no request.
    """
    names = list(fits[0].values)
    means = {name: np.mean([fit.values[name][figure] for fit in fits], axis=0) for name in names}
    if np.isnan(means["fused"]).all():
        return {}
    intervals = bootstrap(np.column_stack([means[name] for name in names]))
    differences = paired(means["fused"], np.column_stack([means[name] for name in MEMBERS]))
    return {
        "means": dict(zip(names, intervals, strict=True)),
        "fused_minus_member": dict(zip(MEMBERS, differences, strict=True)),
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


def main() -> None:
    """Run the benchmark of one shop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, required=True, help="The shop's vitrine.toml.")
    parser.add_argument("--fits", type=int, default=4, help="Seeds, from 0 (default 4).")
    parser.add_argument("--requests", type=int, help="Most requests of the test slice; by default the shop's setting.")
    parser.add_argument("--out", type=Path, help="Where the JSON goes; by default only the table is printed.")
    given = parser.parse_args()
    settings = load_settings(given.config)
    config, store, sources = settings.ranker, Store(settings.store), read_sources(settings)
    snapshot = open_latest(store, settings.indexer)
    encoder = encoder_of(store, snapshot.manifest, settings.indexer)
    say: Say = lambda message: print(message, file=sys.stderr, flush=True)  # noqa: E731
    made = gather(config, settings.indexer, snapshot, encoder, sources, say)
    if lacking := shortfall(made.slices):
        parser.error(lacking)
    test = made.slices[Slice.TEST]
    if given.requests:
        wider = config.model_copy(update={"most_requests": given.requests})
        prepared = prepare(sources, snapshot, wider, made.prepared.told())
        wide = held_back_lists(prepared, made.space, made.weights, config, snapshot, encoder, say)
        test = made.prepared.examination.weighed(wide)
    fits = []
    for seed in range(given.fits):
        say(f"fit {seed + 1} of {given.fits}")
        fits.append(fitted(made, test, config.model_copy(update={"seed": seed}), lambda _: None))
        say(f"{fits[-1].told()['means']}")
    found = {figure: compared(fits, figure) for figure in FIGURES}
    told = {figure: each for figure, each in found.items() if each}
    print("\n".join(lines(told)))
    if given.out:
        parameters = {"config": given.config, "fits": given.fits, "requests": given.requests}
        figures = {
            figure: {part: {name: value._asdict() for name, value in of.items()} for part, of in each.items()}
            for figure, each in told.items()
        }
        body = {
            **environment(),
            "set": given.config.resolve().parent.name,
            "index": snapshot.id,
            "products": len(snapshot),
            "examination": made.prepared.examination.shares.tolist(),
            "requests": {part.name.lower(): len(each) for part, each in made.slices.items()} | {"test": len(test)},
            "fits": [fit.told() for fit in fits],
            "figures": figures,
        }
        write_result(given.out, "members", parameters, body)


if __name__ == "__main__":
    main()
