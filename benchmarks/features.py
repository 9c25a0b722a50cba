"""What each feature is worth: its share of the trees' gain, and the NDCG@10 lost when the trees do without it.

    python benchmarks/features.py -c examples/retail/vitrine.toml

The trees are fitted on MEMBERS and measured on the test slice; each feature is left out in turn and the trees are
fitted again. The difference is per request, with a paired randomisation test.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from result import environment, write_result

from indexer.arrays import Doubles
from indexer.snapshot import open_latest
from indexer.store import Store
from indexer.tuned import encoder_of
from ranker import evaluate, features, trees
from ranker.config import RankerConfig
from ranker.examples import Example, Slice, as_shown
from ranker.significance import paired
from ranker.train import gather, shortfall
from ranker.trees import Rows, rows_of
from server.config import load_settings
from server.rebuild import read_sources

Say = Callable[[str], None]


def rows(examples: list[Example], left_out: list[int]) -> Rows:
    """All rows of the examples; the columns `left_out` say nothing."""
    made = rows_of(examples)
    made.features[:, left_out] = np.nan
    return made


def worth(slices: dict[Slice, list[Example]], config: RankerConfig, say: Say) -> list[dict[str, Any]]:
    """One line a feature, the most missed first: share of gain, NDCG@10 lost without it with interval and p."""
    fit, later, test = (slices[part] for part in (Slice.MEMBERS, Slice.CALIBRATE, Slice.TEST))
    fit = [as_shown(example) for example in fit]

    def ranked_without(left_out: list[int]) -> tuple[Doubles, lgb.Booster]:
        booster = trees.fit_trees(rows(fit, left_out), rows(later, left_out), features.NAMES, config)
        flat = trees.score(booster, rows(test, left_out).features)
        scores = np.split(flat, np.cumsum([len(e.rows) for e in test])[:-1])
        return evaluate.per_request_ndcg(scores, test), booster

    whole, booster = ranked_without([])
    gains = np.asarray(booster.feature_importance("gain"), np.float64)
    told = [i for i in range(len(features.NAMES)) if gains[i] > 0]
    without = []
    for i in told:
        without.append(ranked_without([i])[0])
        say(f"without {features.NAMES[i]}: {np.nanmean(without[-1]):.4f}, with all {np.nanmean(whole):.4f}")
    losses = paired(whole, np.column_stack(without))
    lines = [
        {"feature": features.NAMES[i], "gain": gains[i] / gains.sum(), **loss._asdict()}
        for i, loss in zip(told, losses, strict=True)
    ]
    return sorted(lines, key=lambda line: -line["mean"])


def main() -> None:
    """Run the benchmark of one shop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", type=Path, required=True, help="The shop's vitrine.toml.")
    parser.add_argument("--requests", type=int, default=4_000, help="Most requests of a slice (default 4000).")
    parser.add_argument("--out", type=Path, help="Where the JSON goes; by default only the table is printed.")
    given = parser.parse_args()
    settings = load_settings(given.config)
    store = Store(settings.store)
    snapshot = open_latest(store, settings.indexer)
    encoder = encoder_of(store, snapshot.manifest, settings.indexer)
    config = settings.ranker.model_copy(update={"most_requests": given.requests})
    say: Say = lambda message: print(message, file=sys.stderr, flush=True)  # noqa: E731
    made = gather(config, settings.indexer, snapshot, encoder, read_sources(settings), say)
    if lacking := shortfall(made.slices):
        parser.error(lacking)
    lines = worth(made.slices, config, say)
    print("| feature | share of gain | NDCG@10 lost without it | 95 % interval | p (Holm) |\n|---|---|---|---|---|")
    for line in lines:
        print(
            f"| {line['feature']} | {line['gain']:.3f} | {line['mean']:+.4f} | "
            f"{line['low']:+.4f} to {line['high']:+.4f} | {line['p_holm']:.3f} |"
        )
    if given.out:
        parameters = {"config": given.config.as_posix(), "requests": given.requests, "trees": config.trees}
        counts = {part.name.lower(): len(examples) for part, examples in made.slices.items()}
        write_result(given.out, "features", parameters, {**environment(), "requests": counts, "features": lines})


if __name__ == "__main__":
    main()
