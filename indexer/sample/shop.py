"""A whole sample shop: products, events and judged queries."""

import numpy as np
import polars as pl

from indexer.canonical import JUDGMENTS, Dump, conform
from indexer.sample.products import Catalog, make_products, open_market, read_catalog
from indexer.sample.shoppers import BROWSE, MODE_SHARES, Intents, intend, make_events, write_queries
from indexer.sample.taxonomy import NONE, Floats, Ints, load_taxonomy

QUERIES = 300
JUDGED = 25  # at most, of each grade of a query
DRAWN = (250, 100)  # looked at for each query: of the wanted type, and with the attribute or of the whole shop


def make_shop(count: int, users: int | None = None, sessions: int | None = None, seed: int = 0) -> Dump:
    """A shop of `count` products (at least 20) as canonical tables; the same arguments make the same shop.

    Without `users` there is one for 5 products (200 to 50,000), without `sessions` two for each (2,000 to 200,000).
    """
    users = min(max(count // 5, 200), 50_000) if users is None else users
    sessions = min(max(count * 2, 2_000), 200_000) if sessions is None else sessions
    products = make_products(count, seed)
    events = make_events(products, users, sessions, seed)
    judgments = make_judgments(products, seed)
    counts = {"products": len(products), "events": len(events), "judgments": len(judgments)}
    return Dump(products, events, judgments, counts)


def make_judgments(products: pl.DataFrame, seed: int) -> pl.DataFrame:
    """About 300 queries with graded products: 0 for not what is named, else 1 and one more each for word and language.

    The word is the attribute or brand beside the type; a query of one thing, a type or an attribute, asks no other.
    At most 25 products of each grade are listed: one that is not listed may fit as well.
    """
    rng = np.random.default_rng([seed, 3])
    market = open_market(read_catalog(products), rng)
    everything = len(market.size) - 1
    target = market.draw(np.full(3 * QUERIES, everything), rng)
    searches = np.array(MODE_SHARES[:BROWSE])
    mode = rng.choice(BROWSE, len(target), p=searches / searches.sum())
    intents = intend(target, mode, market.catalog.zh[target], market.catalog, rng)
    queries = write_queries(intents, rng)
    alike = np.where(intents.attribute == NONE, everything, len(load_taxonomy().types) + intents.attribute)
    shelves = np.repeat(np.stack([intents.kind, alike], axis=1), DRAWN, axis=1)
    rows = market.draw(shelves, rng)
    asked = pl.DataFrame({"query": queries, "row": rows, "grade": _grade(intents, market.catalog, rows)})
    judged = (
        asked.unique("query", keep="first", maintain_order=True)
        .head(QUERIES)
        .explode("row", "grade")
        .unique(["query", "row"], keep="first", maintain_order=True)
        .filter(pl.int_range(pl.len()).over("query", "grade") < JUDGED)
        .sort("query", "grade", "row", descending=[False, True, False])
    )
    return conform(judged.with_columns(product_id=products["product_id"].gather(judged["row"])), JUDGMENTS)


def _grade(intents: Intents, catalog: Catalog, rows: Ints) -> Floats:
    kind, detail, language = intents.match(catalog, rows)
    grade: Floats = np.where(intents.named[:, None], kind, detail) * (1.0 + detail + language)
    return grade
