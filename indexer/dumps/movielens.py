"""GroupLens MovieLens: films and ratings, in any of three layouts."""

from pathlib import Path

import polars as pl

from indexer.canonical import Dump
from indexer.dumps.source import Tally, catalogue, find, missing, number, ratings, read_delimited, require, text

FILES = "inter.tsv[.gz] and item.tsv[.gz]; or ratings.csv[.gz] and movies.csv[.gz]; or u.data[.gz] and u.item[.gz]"

# The order of the flags in u.item, from its u.genre.
GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
NO_GENRE = ("", "unknown", "(no genres listed)")


def read(folder: Path) -> Dump:
    """Read whichever layout `folder` holds. A rating is an event with `value` 0.5 to 5."""
    tally = Tally()
    items, rated = _layout(folder)
    products = catalogue(items.with_columns(_genres()).with_columns(category=_first_genre()), tally)
    lines = rated.select(
        user_id=text("user_id"),
        product_id=text("product_id"),
        value=number("value"),
        milliseconds=(number("seconds") * 1000).cast(pl.Int64, strict=False),
    )
    events = ratings(lines, products, tally)
    counts = {
        "product_lines": items.height,
        "rating_lines": rated.height,
        "products": products.height,
        "events": events.height,
    }
    return Dump(products, events, counts=counts, dropped=tally.dropped)


def _layout(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Films (product_id, title, year, genres as a list) and ratings (user_id, product_id, value, seconds)."""
    if find(folder, "inter.tsv"):
        return _typed_header(folder)
    if find(folder, "ratings.csv"):
        return _comma_separated(folder)
    if find(folder, "u.data"):
        return _hundred_thousand(folder)
    raise missing(folder, FILES)


def _typed_header(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    columns = ("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq")
    items = read_delimited(require(folder, "item.tsv"), columns, separator="\t", quote=None)
    # A handful of films have no year but a word in its place.
    year = text(columns[2]).cast(pl.Int64, strict=False)
    films = items.select(
        product_id=text(columns[0]),
        title=pl.concat_str(text(columns[1]), pl.format(" ({})", year).fill_null("")),
        year=year,
        genres=text(columns[3]).str.split(" "),
    )
    rated = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    return films, _rated(read_delimited(require(folder, "inter.tsv"), rated, separator="\t", quote=None))


def _comma_separated(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    items = read_delimited(require(folder, "movies.csv"), ("movieId", "title", "genres"))
    films = items.select(product_id=text("movieId"), title=text("title"), genres=text("genres").str.split("|"))
    rated = ("userId", "movieId", "rating", "timestamp")
    return films.with_columns(_year_of_title()), _rated(read_delimited(require(folder, "ratings.csv"), rated))


def _hundred_thousand(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    columns = ("id", "title", "release", "video", "url", *GENRES)
    path = require(folder, "u.item")
    items = read_delimited(path, columns, separator="|", quote=None, header=False, legacy=True)
    flags = [pl.when(pl.col(genre) == "1").then(pl.lit(genre)) for genre in GENRES]
    films = items.select(product_id=text("id"), title=text("title"), genres=pl.concat_list(flags).list.drop_nulls())
    rated = ("user", "item", "rating", "timestamp")
    lines = read_delimited(require(folder, "u.data"), rated, separator="\t", quote=None, header=False)
    return films.with_columns(_year_of_title()), _rated(lines)


def _rated(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.rename(dict(zip(lines.columns, ("user_id", "product_id", "value", "seconds"), strict=True)))


def _year_of_title() -> pl.Expr:
    return pl.col("title").str.extract(r"\((\d{4})\)$").cast(pl.Int64).alias("year")


def _genres() -> pl.Expr:
    named = pl.col("genres").list.eval(pl.element().filter(~pl.element().is_in(NO_GENRE)))
    return named.list.join("|").replace("", None)


def _first_genre() -> pl.Expr:
    return pl.col("genres").str.split("|").list.first()
