"""Invented shoppers: what they come for, what an imagined old engine shows them, what they click and buy."""

from dataclasses import dataclass, fields
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.random import Generator
from scipy.special import expit

from indexer.canonical import EVENTS, TIME, conform
from indexer.errors import InputError
from indexer.sample.products import Catalog, Market, ids, open_market, read_catalog
from indexer.sample.taxonomy import NONE, SIZE, Bools, Floats, Ints, load_taxonomy

START, DAYS = datetime(2026, 5, 2, tzinfo=UTC), 60  # the last day is 2026-06-30
DAY = 86_400  # seconds
PAGE = 20
DRAWN = 80  # candidates the old engine scores for a page, besides PAGE fillers for shops with few products
FAVOURITES = 6
CHUNK = 5_000  # sessions at a time: about 150 MB
STAGES = ("impression", "click", "add_to_cart", "purchase")
TYPE, TYPE_ATTRIBUTE, BRAND_TYPE, ATTRIBUTE, BROWSE = range(5)  # what a session's query names
MODE_SHARES = (0.225, 0.285, 0.165, 0.075, 0.25)
EXAMINED = np.arange(1, PAGE + 1) ** -0.7  # chance that a position is looked at
TIRED = 0.85  # chance that a shopper goes on after each find


@dataclass(frozen=True)
class Intents:
    """What sessions are after. `named`: the query tells the type; not `searched`: there is no query."""

    kind: Ints
    attribute: Ints
    brand: Ints
    zh: Bools
    named: Bools
    searched: Bools

    def match(self, catalog: Catalog, rows: Ints) -> tuple[Bools, Bools, Bools]:
        """Whether type, the further word (attribute or brand, if any) and language of products [n, k] are as wanted."""
        attribute, brand = self.attribute[:, None], self.brand[:, None]
        detail = (attribute == NONE) | (catalog.attributes[rows] == attribute[..., None]).any(axis=2)
        detail &= (brand == NONE) | (catalog.brand[rows] == brand)
        return catalog.kind[rows] == self.kind[:, None], detail, catalog.zh[rows] == self.zh[:, None]


@dataclass(frozen=True)
class People:
    """Tastes by user. `shares` and `brands` are [user, 2, ...]: at the start and at the end of the period."""

    activity: Floats
    zh: Bools
    types: Ints
    shares: Floats
    brands: Floats
    price_rank: Floats
    price_care: Floats
    staple: Ints
    cycle: Floats


@dataclass(frozen=True)
class Visits:
    """Who comes when, in time order, and what for; `second` counts from the start of the period."""

    user: Ints
    second: Ints
    age: Floats  # 0 at the start of the period, 1 at its end
    shares: Floats
    kind: Ints
    restock: Bools
    anonymous: Bools

    def part(self, which: slice | Ints) -> "Visits":
        """Some of them."""
        return Visits(*(getattr(self, column.name)[which] for column in fields(self)))


def make_events(products: pl.DataFrame, users: int, sessions: int, seed: int) -> pl.DataFrame:
    """Canonical events of `sessions` visits by `users` shoppers to a shop of `make_products`, sorted by time.

    A visit is one page of 20 impressions and what followed. Raises `InputError` for fewer than 20 products.
    """
    if len(products) < PAGE:
        raise InputError(f"A sample shop needs at least {PAGE} products, and this one has {len(products)}.")
    rng = np.random.default_rng([seed, 2])
    market = open_market(read_catalog(products), rng)
    people = draw_people(users, market, rng)
    visits = draw_visits(sessions, people, market, rng)
    happened, queries = [], []
    for start in range(0, sessions, CHUNK):
        part = visits.part(slice(start, start + CHUNK))
        intents = draw_intents(part, people, market, rng)
        queries.append(write_queries(intents, rng))
        rows = old_page(part, intents, people, market, rng)
        happened.append(browse(rows, part, intents, people, market, rng).with_columns(pl.col("session") + start))
    return table(pl.concat(happened), pl.concat(queries), visits, products)


def intend(target: Ints, mode: Ints, zh: Bools, catalog: Catalog, rng: Generator) -> Intents:
    """The intents of shoppers who want something like the product `target` and name what `mode` says of it."""
    held = catalog.attributes[target]
    luck = np.where(held != NONE, rng.random(held.shape), -1.0)
    luck[mode == ATTRIBUTE, SIZE] = -1.0  # nobody searches for "42" alone
    slot = luck.argmax(axis=1)[:, None]
    names = np.isin(mode, (TYPE_ATTRIBUTE, ATTRIBUTE)) & (luck.max(axis=1) >= 0)
    return Intents(
        kind=catalog.kind[target],
        attribute=np.where(names, np.take_along_axis(held, slot, axis=1)[:, 0], NONE),
        brand=np.where(mode == BRAND_TYPE, catalog.brand[target], NONE),
        zh=zh,
        named=~(names & (mode == ATTRIBUTE)),
        searched=mode != BROWSE,
    )


def write_queries(intents: Intents, rng: Generator) -> pl.Series:
    """The query of each intent as a shopper types it, misspelled at times; null where nothing is searched."""
    words, zh, count = load_taxonomy(), intents.zh, len(intents.zh)
    after = (words.attribute_slot[intents.attribute] == SIZE) | (rng.random(count) < 0.2)
    parts = pl.DataFrame(
        {
            "brand": words.brands.name(intents.brand, zh),
            "before": words.attributes.name(np.where(after, NONE, intents.attribute), zh),
            "type": words.types.name(np.where(intents.named, intents.kind, NONE), zh),
            "after": words.attributes.name(np.where(after, intents.attribute, NONE), zh),
            "close": zh & (rng.random(count) < 0.65),
            "slip": ~zh & (rng.random(count) < 0.06),
            "luck": rng.random(count),
        }
    )
    named = [pl.concat_str("brand", "before", "type", "after", separator=gap, ignore_nulls=True) for gap in ("", " ")]
    query = pl.when("close").then(named[0]).otherwise(named[1]).str.to_lowercase()
    at = (1 + pl.col("luck") * (pl.col("query").str.len_chars() - 3)).cast(pl.Int64)
    text = pl.col("query").str
    slipped = pl.concat_str(text.slice(0, at), text.slice(at + 1, 1), text.slice(at, 1), text.slice(at + 2))
    typed = parts.with_columns(query=query).select(query=pl.when("slip").then(slipped).otherwise("query"))["query"]
    return typed.set(pl.Series(~intents.searched), None)


def draw_people(users: int, market: Market, rng: Generator) -> People:
    """So many shoppers of a market."""
    words = load_taxonomy()
    stocked = market.size[: len(words.types)] > 0
    departments = 1.5 * rng.gumbel(size=(users, len(words.departments)))
    liking = np.where(
        stocked, departments[:, words.type_department] + rng.gumbel(size=(users, len(words.types))), -np.inf
    )
    types = np.argsort(-liking, axis=1)[:, : min(FAVOURITES, int(stocked.sum()))]
    shares = rng.dirichlet(np.full(types.shape[1], 0.7), (users, 2))
    shares[:, 1] = 0.6 * shares[:, 0] + 0.4 * shares[:, 1]
    brands = rng.normal(size=(users, 2, len(words.brands)))
    brands[:, 1] = 0.8 * brands[:, 0] + 0.6 * brands[:, 1]
    consumables = np.append(np.flatnonzero(stocked & words.type_consumable), NONE)
    staple = np.where(rng.random(users) < 0.27, rng.choice(consumables, users), NONE)
    types[:, 0] = np.where(staple == NONE, types[:, 0], staple)
    return People(
        activity=np.minimum(rng.pareto(1.5, users) + 0.1, 25),
        zh=rng.random(users) < 0.25,
        types=types,
        shares=shares,
        brands=brands,
        price_rank=rng.beta(1.5, 1.8, users),
        price_care=rng.gamma(2.0, 1.8, users),
        staple=staple,
        cycle=rng.uniform(9, 24, users),
    )


def draw_visits(sessions: int, people: People, market: Market, rng: Generator) -> Visits:
    """So many visits over the whole period."""
    user = rng.choice(len(people.activity), sessions, p=people.activity / people.activity.sum())
    evening = rng.random(sessions) < 0.6
    hour = rng.normal(np.where(evening, 20, 13), np.where(evening, 1.8, 3.5)) % 23  # the last hour is for buying
    second = np.sort(rng.integers(DAYS, size=sessions) * DAY + (hour * 3600).astype(np.int64))
    age = second / (DAYS * DAY)
    shares = people.shares[user, 0] * (1 - age[:, None]) + people.shares[user, 1] * age[:, None]
    favourite = people.types[user, _pick(shares, rng.random((sessions, 1)))[:, 0]]
    anything = market.catalog.kind[rng.integers(len(market.catalog), size=sessions)]
    restock = (people.staple[user] != NONE) & _first_of_cycle(user, second / DAY, people.cycle)
    kind = np.where(restock, people.staple[user], np.where(rng.random(sessions) < 0.2, anything, favourite))
    return Visits(user, second, age, shares, kind, restock, rng.random(sessions) < 0.15)


def _first_of_cycle(user: Ints, day: Floats, cycle: Floats) -> Bools:
    """Whether a visit is its user's first since something bought each `cycle` days has run out again."""
    order = np.lexsort((day, user))
    turn = np.stack([user, (day / cycle[user] + user % 7 / 7).astype(np.int64)])[:, order]
    first = np.ones(len(user), dtype=bool)
    first[order[1:]] = (turn[:, 1:] != turn[:, :-1]).any(axis=0)
    return first


def _pick(shares: Floats, luck: Floats) -> Ints:
    """For each luck [n, k] the column of shares [n, c] it falls into."""
    column: Ints = (luck[:, :, None] > np.cumsum(shares, axis=1)[:, None, :-1]).sum(axis=2)
    return column


def _brand_liking(visits: Visits, people: People, brand: Ints) -> Floats:
    user, age = visits.user[:, None], visits.age[:, None]
    liking: Floats = people.brands[user, 0, brand] * (1 - age) + people.brands[user, 1, brand] * age
    return liking


def draw_intents(visits: Visits, people: People, market: Market, rng: Generator) -> Intents:
    """What each visit is after, and what it tells of it."""
    options = market.draw(np.repeat(visits.kind[:, None], 4, axis=1), rng)
    zh = people.zh[visits.user]
    legible = market.catalog.zh[options] == zh[:, None]
    wish = _brand_liking(visits, people, market.catalog.brand[options]) + 2.0 * legible
    target = np.take_along_axis(options, wish.argmax(axis=1)[:, None], axis=1)[:, 0]
    return intend(target, rng.choice(5, len(target), p=MODE_SHARES), zh, market.catalog, rng)


def _candidates(visits: Visits, intents: Intents, people: People, market: Market, rng: Generator) -> Ints:
    words, shape = load_taxonomy(), (len(intents.kind), DRAWN)
    types, others = len(words.types), len(words.types) + len(words.attributes)
    wanted = np.where(intents.named, intents.kind, types + intents.attribute)[:, None]
    liked = people.types[visits.user[:, None], _pick(visits.shares, rng.random(shape))]
    strays = rng.random(shape)
    searched = np.where(strays < 0.15, others + words.type_department[intents.kind][:, None], wanted)
    browsed = np.where(strays < 0.4, others + len(words.departments), liked)
    drawn = market.draw(np.where(intents.searched[:, None], searched, browsed), rng)
    fillers = (rng.integers(len(market.catalog), size=(shape[0], 1)) + np.arange(PAGE)) % len(market.catalog)
    return np.concatenate([drawn, fillers], axis=1)


def old_page(visits: Visits, intents: Intents, people: People, market: Market, rng: Generator) -> Ints:
    """The rows [sessions, 20] the old engine shows: a noisy score of words, language, popularity and stock."""
    rows = _candidates(visits, intents, people, market, rng)
    kind, detail, language = intents.match(market.catalog, rows)
    words = 2.0 * (kind & intents.named[:, None]) + 1.6 * detail
    score = words * intents.searched[:, None] + 1.2 * language + 0.5 * market.popularity[rows]
    score += rng.normal(0, 0.9, rows.shape) - 0.8 * ~market.catalog.in_stock[rows]
    score[:, DRAWN:] -= 20.0
    order = np.argsort(rows, axis=1, kind="stable")
    again = np.zeros(rows.shape, dtype=bool)
    np.put_along_axis(again, order[:, 1:], np.diff(np.take_along_axis(rows, order, axis=1), axis=1) == 0, axis=1)
    best = np.argsort(np.where(again, np.inf, -score), axis=1, kind="stable")[:, :PAGE]
    return np.take_along_axis(rows, best, axis=1)


def browse(
    rows: Ints, visits: Visits, intents: Intents, people: People, market: Market, rng: Generator
) -> pl.DataFrame:
    """What happens on each page: rows of session, product row, stage, position, second and quantity."""
    drawn = appeal(rows, visits, intents, people, market)
    shape, restock = rows.shape, visits.restock[:, None].astype(np.float64)
    click = (rng.random(shape) < EXAMINED) & (rng.random(shape) < expit(drawn))
    click &= rng.random(shape) < TIRED ** (np.cumsum(click, axis=1) - click)  # a find ends the search at times
    cart = click & market.catalog.in_stock[rows] & (rng.random(shape) < expit(0.5 * drawn - 0.9 + 1.2 * restock))
    buy = cart & (rng.random(shape) < expit(-1.35 + 1.2 * restock))
    clicked = visits.second[:, None] + 3 * np.arange(1, PAGE + 1) + rng.exponential(25, shape).astype(np.int64)
    carted = clicked + 10 + rng.exponential(60, shape).astype(np.int64)
    bought = carted + 45 + rng.exponential(240, shape).astype(np.int64)
    everywhere, seen = np.ones(shape, dtype=bool), np.broadcast_to(visits.second[:, None], shape)
    several = np.where(load_taxonomy().type_consumable[market.catalog.kind[rows]], rng.integers(1, 4, shape), 1)
    stages = ((everywhere, seen), (click, clicked), (cart, carted), (buy, bought))
    return pl.concat(_stage(stage, happened, rows, second, several) for stage, (happened, second) in enumerate(stages))


def appeal(rows: Ints, visits: Visits, intents: Intents, people: People, market: Market) -> Floats:
    """The log-odds that a shopper who looks at a product is drawn to it: intent, taste and hidden quality."""
    kinds, user = market.catalog.kind[rows], visits.user[:, None]
    kind, detail, language = intents.match(market.catalog, rows)
    likes = ((kinds[..., None] == people.types[user]) * visits.shares[:, None, :]).sum(axis=2)
    fit = np.where(intents.searched[:, None], (2 * kind + detail) / 3, np.minimum(1, 2.5 * likes))
    liking = _brand_liking(visits, people, market.catalog.brand[rows])
    gap = market.price_rank[rows] - people.price_rank[user]
    taste: Floats = 0.9 * liking - people.price_care[user] * gap**2 + 1.5 * (language - 1.0)
    return 3.0 * (fit - 1) + taste + 0.9 * market.quality[rows] - 0.65


def _stage(stage: int, happened: Bools, rows: Ints, second: Ints, quantity: Ints) -> pl.DataFrame:
    session, place = np.nonzero(happened)
    return pl.DataFrame(
        {
            "session": session,
            "row": rows[happened],
            "stage": np.full(len(session), stage, dtype=np.int8),
            "position": (place + 1).astype(np.int32),
            "second": np.minimum(second[happened], DAYS * DAY - 1),
            "quantity": quantity[happened].astype(np.float64),
        }
    )


def users_of(visits: Visits) -> pl.Series:
    """The user of each visit, null where the shopper has not logged in."""
    return ids("U", pl.Series(visits.user + 1)).set(pl.Series(visits.anonymous), None)


def table(
    happened: pl.DataFrame, queries: pl.Series, visits: Visits, products: pl.DataFrame, name: str = ""
) -> pl.DataFrame:
    """Canonical events, sorted by time; their ids, and those of sessions and requests, begin with `name`."""
    happened = happened.sort("second", "session", "stage", "position")
    session, row, stage = happened["session"], happened["row"], pl.col("stage")
    price = pl.when(stage > 0).then(products["price"].gather(row))
    frame = happened.select(
        event_id=ids(name + "E", pl.int_range(1, len(happened) + 1, eager=True), 9),
        event_time=pl.lit(START, dtype=TIME) + pl.duration(seconds="second"),
        event_type=pl.Series(STAGES).gather(happened["stage"]),
        user_id=users_of(visits).gather(session),
        session_id=ids(name + "S", session + 1),
        request_id=ids(name + "R", session + 1),
        query=queries.gather(session),
        product_id=products["product_id"].gather(row),
        position="position",
        quantity=pl.when(stage >= 2).then("quantity"),
        price=price,
        value=pl.when(stage == 3).then(price * pl.col("quantity")).round(2),
    )
    return conform(frame, EVENTS)
