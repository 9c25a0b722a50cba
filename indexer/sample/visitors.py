"""Shoppers whose minds are known: what a page is worth to them, and what they do with it."""

from dataclasses import dataclass, fields, replace

import numpy as np
import polars as pl
from numpy.random import Generator
from scipy.special import expit

from indexer.sample import shoppers
from indexer.sample.products import Market, open_market, read_catalog
from indexer.sample.shoppers import EXAMINED, START, TIRED, Intents, People, Visits
from indexer.sample.taxonomy import Floats, Ints


@dataclass(frozen=True)
class Visitors:
    """Visits to a shop in time order, with what no log tells of them. Products are rows of the table `products`."""

    products: pl.DataFrame
    market: Market
    people: People
    visits: Visits
    intents: Intents
    queries: pl.Series  # null where nothing is searched

    def __len__(self) -> int:
        return len(self.queries)

    @property
    def users(self) -> list[str | None]:
        """The user of each visit; None where the shopper has not logged in."""
        return shoppers.users_of(self.visits).to_list()

    @property
    def times(self) -> Floats:
        """When each visit begins, in Unix seconds."""
        return START.timestamp() + self.visits.second.astype(np.float64)

    def part(self, which: slice | Ints) -> "Visitors":
        """Some of the visits."""
        intents = Intents(*(getattr(self.intents, column.name)[which] for column in fields(Intents)))
        return replace(self, visits=self.visits.part(which), intents=intents, queries=self.queries[which])

    def old_pages(self, rng: Generator) -> Ints:
        """The 20 rows that the shop's old engine shows at each visit, [visits, 20]."""
        return shoppers.old_page(self.visits, self.intents, self.people, self.market, rng)

    def drawn(self, rows: Ints) -> Floats:
        """The chance that a visitor who looks at a product is drawn to it, for rows [visits, n]."""
        return np.asarray(expit(shoppers.appeal(rows, self.visits, self.intents, self.people, self.market)))

    def expected_clicks(self, pages: Ints) -> Floats:
        """How many clicks each of the pages [visits, 20] gets on average, no luck in it.

        A place is looked at with a chance that falls by its number, and after each find the visitor goes on with a
        chance of 0.85: with click chances c of the places above, Prod(1 - 0.15 c) of them still look.
        """
        chances = EXAMINED * self.drawn(pages)
        left = np.cumprod(1.0 - (1.0 - TIRED) * chances, axis=1)
        going_on = np.column_stack([np.ones(len(pages)), left[:, :-1]])
        return np.asarray((chances * going_on).sum(axis=1))

    def events(self, pages: Ints, rng: Generator, name: str) -> pl.DataFrame:
        """What happens on the pages [visits, 20], as canonical events; `name` begins their ids."""
        happened = shoppers.browse(pages, self.visits, self.intents, self.people, self.market, rng)
        return shoppers.table(happened, self.queries, self.visits, self.products, name)


def draw_visitors(products: pl.DataFrame, users: int, count: int, seed: int) -> Visitors:
    """So many visits by `users` shoppers, over 60 days, to a shop of `make_products`.

    They are not those of `make_events` but for the market and the people. About 30 kB a visit on the way.
    """
    rng = np.random.default_rng([seed, 2])
    market = open_market(read_catalog(products), rng)
    people = shoppers.draw_people(users, market, rng)
    visits = shoppers.draw_visits(count, people, market, rng)
    intents = shoppers.draw_intents(visits, people, market, rng)
    return Visitors(products, market, people, visits, intents, shoppers.write_queries(intents, rng))
