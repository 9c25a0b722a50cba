"""The products of the sample shop, their titles read back into codes, and the shelves they lie on."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.random import Generator

from indexer.canonical import PRODUCTS, conform
from indexer.sample.taxonomy import COLOUR, NONE, SLOTS, Bools, Floats, Ints, Taxonomy, load_taxonomy

IN_STOCK = 0.93
SLOT_FILLED = np.array([0.9, 0.8, 1.0, 0.85])  # how often a title names an attribute its type can have
ZH_SHARE = (0.09, 0.44)  # of brands without and with a Chinese name; over all products about a quarter
PACKS = (2, 3, 4, 6, 10, 12)
MODEL = r"([A-Z]{2}-|No\. )\d+"


@dataclass(frozen=True)
class Catalog:
    """Products as codes of the taxonomy; row i is product i of the table. `attributes` is [products, slots]."""

    kind: Ints
    brand: Ints
    zh: Bools
    attributes: Ints
    price: Floats
    in_stock: Bools

    def __len__(self) -> int:
        return len(self.kind)

    def price_rank(self) -> Floats:
        """Where each price lies among the products of its type: 0 the cheapest, 1 the dearest."""
        order = np.lexsort((self.price, self.kind))
        sizes = np.bincount(self.kind)
        place = np.arange(len(self)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        rank = np.empty(len(self))
        rank[order] = place / np.maximum(sizes[self.kind[order]] - 1, 1)
        return rank


@dataclass(frozen=True)
class Market:
    """The catalog with what no table tells (quality, popularity) and shelves: rows of a type, attribute, ..., all.

    A shelf lists popular products first: shelf s is `rows[start[s] : start[s] + size[s]]`.
    """

    catalog: Catalog
    price_rank: Floats
    quality: Floats
    popularity: Floats
    rows: Ints
    start: Ints
    size: Ints

    def draw(self, shelf: Ints, rng: Generator) -> Ints:
        """A random row of each shelf, popular ones more often."""
        return self.rows[self.start[shelf] + (self.size[shelf] * rng.random(shelf.shape) ** 1.6).astype(np.int64)]


def make_products(count: int, seed: int) -> pl.DataFrame:
    """`count` invented products as a canonical table, with the further columns department, colour and language.

    About a quarter have Chinese titles. Category, department and colour are English in every row.
    """
    words, rng = load_taxonomy(), np.random.default_rng([seed, 1])
    catalog = _draw_catalog(count, words, rng)
    frame = pl.DataFrame(
        {
            "product_id": ids("P", pl.int_range(1, count + 1, eager=True)),
            "title": _titles(catalog, words, rng),
            "category": words.types.name(catalog.kind),
            "brand": words.brands.name(catalog.brand),
            "price": catalog.price,
            "in_stock": catalog.in_stock,
            "department": words.departments.name(words.type_department[catalog.kind]),
            "colour": words.attributes.name(catalog.attributes[:, COLOUR]),
            "language": np.where(catalog.zh, "zh", "en"),
        }
    )
    return conform(frame, PRODUCTS, keep_others=True)


def read_catalog(products: pl.DataFrame) -> Catalog:
    """The codes behind a table of `make_products`: attributes are found again by their words in the title."""
    words = load_taxonomy()
    kind = _codes(products["category"], words.types.en)
    return Catalog(
        kind=kind,
        brand=_codes(products["brand"], words.brands.en),
        zh=(products["language"] == "zh").to_numpy(),
        attributes=_read_attributes(products["title"], words),
        price=products["price"].to_numpy(),
        in_stock=products["in_stock"].to_numpy(),
    )


def open_market(catalog: Catalog, rng: Generator) -> Market:
    """Draw the hidden quality and the popularity of products, and fill the shelves."""
    words = load_taxonomy()
    quality = rng.normal(size=len(catalog))
    popularity = 0.6 * quality + 0.8 * rng.normal(size=len(catalog))
    order = np.argsort(-popularity, kind="stable")
    kind, held = catalog.kind[order], catalog.attributes[order]
    row, slot = np.nonzero(held != NONE)
    types, attributes, departments = len(words.types), len(words.attributes), len(words.departments)
    department = types + attributes + words.type_department[kind]
    everything = np.full(len(catalog), types + attributes + departments)
    shelf = np.concatenate([kind, types + held[row, slot], department, everything])
    rows = np.concatenate([order, order[row], order, order])
    size = np.bincount(shelf, minlength=types + attributes + departments + 1)
    filled = rows[np.argsort(shelf, kind="stable")]
    return Market(catalog, catalog.price_rank(), quality, popularity, filled, np.cumsum(size) - size, size)


def ids(prefix: str, numbers: pl.Series, width: int = 7) -> pl.Series:
    """Identifiers such as "P0000001"."""
    return prefix + numbers.cast(pl.String).str.zfill(width)


def _draw_catalog(count: int, words: Taxonomy, rng: Generator) -> Catalog:
    weight = np.exp(rng.normal(0, 0.4, len(words.types)))
    kind = rng.choice(len(words.types), count, p=weight / weight.sum())
    brand = _draw_brands(kind, words, rng)
    bilingual = np.array([en != zh for en, zh in zip(words.brands.en, words.brands.zh, strict=True)])
    return Catalog(
        kind=kind,
        brand=brand,
        zh=rng.random(count) < np.where(bilingual[brand], ZH_SHARE[1], ZH_SHARE[0]),
        attributes=_draw_attributes(kind, words, rng),
        price=_draw_prices(kind, words.brand_tier[brand], words, rng),
        in_stock=rng.random(count) < IN_STOCK,
    )


def _draw_brands(kind: Ints, words: Taxonomy, rng: Generator) -> Ints:
    sizes = np.bincount(words.brand_department)
    department = words.type_department[kind]
    return (np.cumsum(sizes) - sizes)[department] + (rng.random(len(kind)) * sizes[department]).astype(np.int64)


def _draw_attributes(kind: Ints, words: Taxonomy, rng: Generator) -> Ints:
    options = (words.choices != NONE).sum(axis=2)[kind]
    pick = (rng.random(options.shape) * options).astype(np.int64)
    drawn = words.choices[kind[:, None], np.arange(len(SLOTS)), pick]
    return np.where(rng.random(options.shape) < SLOT_FILLED, drawn, NONE)


def _draw_prices(kind: Ints, tier: Floats, words: Taxonomy, rng: Generator) -> Floats:
    low, high = words.type_prices[kind].T
    place = np.clip(rng.normal(0.42, 0.2, len(kind)), 0, 1)
    price = low * (high / low) ** place * tier
    shown: Floats = np.where(price < 20, np.floor(price * 10) / 10 + 0.09, np.floor(price) + 0.99)
    return shown.round(2)


def _titles(catalog: Catalog, words: Taxonomy, rng: Generator) -> pl.Series:
    zh = catalog.zh
    lines = np.where(rng.random(len(zh)) < 0.6, rng.integers(len(words.lines), size=len(zh)), NONE)
    feature, material, colour, size = (words.attributes.name(codes, zh) for codes in catalog.attributes.T)
    parts = pl.DataFrame(
        {
            "brand": words.brands.name(catalog.brand, zh),
            "line": words.lines.name(lines, zh),
            "model": _models(catalog, words, rng),
            "feature": feature,
            "material": material,
            "type": words.types.name(catalog.kind, zh),
            "colour": colour,
            "size": size,
            "pack": _packs(catalog, words, rng),
            "zh": zh,
        }
    )
    head = pl.concat_str("brand", "line", "model", "feature", "material", "type", separator=" ", ignore_nulls=True)
    english = pl.concat_str(head, "colour", "size", "Pack of " + pl.col("pack"), separator=", ", ignore_nulls=True)
    name = pl.concat_str("feature", "material", "type", ignore_nulls=True)
    chinese = pl.concat_str(
        "brand", "line", "model", name, "colour", "size", pl.col("pack") + "件装", separator=" ", ignore_nulls=True
    )
    return parts.select(pl.when("zh").then(chinese).otherwise(english).alias("title"))["title"]


def _models(catalog: Catalog, words: Taxonomy, rng: Generator) -> pl.Series:
    """A model number such as "NV-2204" on most durable goods, "No. 27" on most consumables."""
    consumable = words.type_consumable[catalog.kind]
    durable = pl.Series(words.brand_codes).gather(catalog.brand) + "-"
    number = np.where(consumable, rng.integers(1, 100, len(catalog)), rng.integers(1000, 10_000, len(catalog)))
    prefix = durable.set(pl.Series(consumable), "No. ")
    given = rng.random(len(catalog)) < np.where(consumable, 0.6, 0.8)
    return (prefix + pl.Series(number).cast(pl.String)).set(pl.Series(~given), None)


def _packs(catalog: Catalog, words: Taxonomy, rng: Generator) -> pl.Series:
    packed = words.type_consumable[catalog.kind] & (rng.random(len(catalog)) < 0.7)
    pack = np.where(packed, rng.choice(PACKS, len(catalog)), NONE)
    return pl.Series(pack).cast(pl.String).set(pl.Series(~packed), None)


def _codes(column: pl.Series, names: tuple[str, ...]) -> Ints:
    return column.replace_strict(list(names), list(range(len(names))), return_dtype=pl.Int64).to_numpy()


def _read_attributes(titles: pl.Series, words: Taxonomy) -> Ints:
    code_of = {word: code for names in (words.attributes.en, words.attributes.zh) for code, word in enumerate(names)}
    longest_first = sorted(code_of, key=lambda word: (-len(word.encode()), word))
    # Without the model: "GZ-3611 Left-Handed" is not of "1 L".
    found = titles.str.replace(MODEL, "").str.extract_many(longest_first, leftmost=True)
    rows = np.repeat(np.arange(len(titles)), found.list.len().to_numpy())
    code = found.explode().drop_nulls().replace_strict(code_of, return_dtype=pl.Int64).to_numpy()
    attributes = np.full((len(titles), len(SLOTS)), NONE, dtype=np.int64)
    attributes[rows, words.attribute_slot[code]] = code
    return attributes
