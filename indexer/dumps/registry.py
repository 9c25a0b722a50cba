"""The formats `vitrine import` knows by name, and writing what they read."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from indexer.canonical import Dump
from indexer.dumps import (
    amazon_reviews_2023,
    esci,
    home_depot,
    movielens,
    online_retail,
    recbole,
    retrotech,
    wands,
    zh_titles,
)


class Format(NamedTuple):
    """One importable data set: its reader, and one line saying which files the reader looks for."""

    read: Callable[[Path], Dump]
    files: str


FORMATS: dict[str, Format] = {
    "amazon-reviews-2023": Format(amazon_reviews_2023.read, amazon_reviews_2023.FILES),
    "esci": Format(esci.read, esci.FILES),
    "home-depot": Format(home_depot.read, home_depot.FILES),
    "movielens": Format(movielens.read, movielens.FILES),
    "online-retail": Format(online_retail.read, online_retail.FILES),
    "recbole-sequences": Format(recbole.read, recbole.FILES),
    "retrotech": Format(retrotech.read, retrotech.FILES),
    "wands": Format(wands.read, wands.FILES),
    "zh-titles": Format(zh_titles.read, zh_titles.FILES),
}


def write(dump: Dump, out: Path) -> None:
    """Write the tables of `dump` and `import.json` into `out`, each file aside first, `import.json` last.

    A table the dump does not have is removed from `out`: one found there is of an earlier import, of other products.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in ("products", "events", "judgments"):
        table, path = getattr(dump, name), out / f"{name}.parquet"
        if table is None:
            path.unlink(missing_ok=True)
        else:
            _put(path, table.write_parquet)
    report = json.dumps({"counts": dict(dump.counts), "dropped": dict(dump.dropped)}, indent=2) + "\n"
    _put(out / "import.json", lambda path: path.write_text(report, encoding="utf-8"))


def _put(path: Path, save: Callable[[Path], object]) -> None:
    aside = path.with_name(f"{path.name}.tmp")
    save(aside)
    os.replace(aside, path)
