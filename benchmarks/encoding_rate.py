"""Titles a second through the build's encoding, and through the model's forward alone; `build.py` starts it.

python encoding_rate.py CONFIG TITLES ROUNDS
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from indexer.embeddings import EmbeddingCache
from indexer.encoder import Encoder
from indexer.readers import read_catalogue
from indexer.store import Store
from indexer.tuned import newest_encoder
from server.config import load_settings


def rates(
    encoder: Encoder, titles: Sequence[str], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Any]:
    """Titles a second of both sides by round, after one round that does not count; each second round backwards.

    Ours starts from titles and ends with their vectors saved; bare gets all of them ready made: tokenised, sorted by
    length and padded, in the same batches' size.
    """
    ready = [batch for _, batch in encoder._batches(titles)]

    def bare() -> None:
        for batch in ready:
            encoder.forward(*batch)

    def ours() -> None:
        with TemporaryDirectory(prefix="vitrine-rate-") as folder:
            EmbeddingCache(Path(folder)).fill(titles, encoder, lambda _: None)

    made: dict[str, list[float]] = {"ours": [], "bare": []}
    sides = (("ours", ours), ("bare", bare))
    for number in range(rounds + 1):
        for name, work in sides if number % 2 else sides[::-1]:
            start = clock()
            work()
            rate = len(titles) / (clock() - start)
            if number:
                made[name].append(round(rate, 2))
    return summary(made)


def summary(made: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Medians of both sides, and the median of the ratios ours : bare within each round."""
    ratio = median(ours / bare for ours, bare in zip(made["ours"], made["bare"], strict=True))
    return {"ours": median(made["ours"]), "bare": median(made["bare"]), "ratio": round(ratio, 4), "rounds": dict(made)}


def main(config: Path, count: int, rounds: int) -> None:
    """Print the rates of a sample of the catalogue's distinct titles as JSON."""
    settings = load_settings(config)
    encoder = newest_encoder(Store(settings.store), settings.indexer)
    distinct = read_catalogue(settings.indexer.catalogue).products["title"].unique(maintain_order=True)
    titles = distinct.sample(min(count, len(distinct)), seed=0, shuffle=True).to_list()
    print(json.dumps({"titles": len(titles), "backend": encoder.backend, **rates(encoder, titles, rounds)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
