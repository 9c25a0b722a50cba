"""What the importers share: find and read the files of a data set, clean its rows, count every row that is left out."""

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from indexer.canonical import EVENTS, JUDGMENTS, PRODUCTS, TIME, conform
from indexer.errors import InputError


class Tally:
    """Filters rows and remembers, by reason, how many were left out. A reason that dropped nothing is listed with 0."""

    def __init__(self) -> None:
        self.dropped: dict[str, int] = {}

    def keep(self, frame: pl.DataFrame, reason: str, condition: pl.Expr) -> pl.DataFrame:
        """The rows for which `condition` is true; the others (false or null) are counted under `reason`."""
        return self._count(reason, frame, frame.filter(condition))

    def first(self, frame: pl.DataFrame, reason: str, *keys: str) -> pl.DataFrame:
        """The first row of each combination of `keys`, in the order of the file."""
        return self._count(reason, frame, frame.unique(keys, keep="first", maintain_order=True))

    def known(self, frame: pl.DataFrame, reason: str, products: pl.DataFrame) -> pl.DataFrame:
        """The rows whose `product_id` is in `products`."""
        kept = frame.join(products.select("product_id"), on="product_id", how="semi", maintain_order="left")
        return self._count(reason, frame, kept)

    def _count(self, reason: str, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
        self.dropped[reason] = self.dropped.get(reason, 0) + before.height - after.height
        return after


def find(folder: Path, *names: str) -> Path | None:
    """The first of `names` that is a file in `folder`, as it is or gzipped."""
    candidates = (folder / f"{name}{end}" for name in names for end in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def require(folder: Path, *names: str) -> Path:
    """As `find`. Raises `InputError` where there is none."""
    path = find(folder, *names)
    if path is None:
        raise missing(folder, " or ".join(f"{name}[.gz]" for name in names))
    return path


def missing(folder: Path, files: str) -> InputError:
    """The error to raise where `folder` lacks `files`."""
    return InputError(
        f"{folder} does not hold what this format needs: looked for {files}. "
        "Unpack the data set there, or name the folder that holds it; docs/data.md shows the layout of each format."
    )


def read_delimited(
    path: Path,
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    separator: str = ",",
    quote: str | None = '"',
    header: bool = True,
    legacy: bool = False,
) -> pl.DataFrame:
    """The named columns of a delimited text file, gzipped or not, all of type String; absent `optional` ones are null.

    Without a `header`, `columns` names the columns in order. With `legacy`, a file not in UTF-8 is read as Latin-1.
    """
    source = io.BytesIO(decoded(path).encode()) if legacy else path
    try:
        frame = pl.read_csv(source, separator=separator, quote_char=quote, has_header=header, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise unreadable(path, error) from error
    if not header:
        frame = frame.rename(dict(zip(frame.columns, columns, strict=False)))
    check_columns(path, frame.columns, columns)
    absent = [pl.lit(None, pl.String).alias(name) for name in optional if name not in frame.columns]
    return frame.with_columns(absent).select(*columns, *optional)


def check_columns(path: Path, present: Sequence[str], needed: Sequence[str]) -> None:
    """Raises `InputError` naming the columns of `needed` that are not `present` in the file at `path`."""
    lacking = [name for name in needed if name not in present]
    if lacking:
        raise InputError(
            f"{path} lacks the columns {', '.join(lacking)}; it has {', '.join(present) or 'none'}. "
            "docs/data.md shows the layout this format expects."
        )


def unreadable(path: Path, error: Exception) -> InputError:
    """The error to raise where the content of `path` is not what the format says."""
    return InputError(f"{path} cannot be read: {error}. Get the file again; docs/data.md shows its layout.")


def unpacked(path: Path) -> bytes:
    """The content of a file, gzipped or not."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def decoded(path: Path) -> str:
    """The text of a file, gzipped or not: UTF-8 where its bytes are, else Latin-1."""
    raw = unpacked(path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def text(column: str) -> pl.Expr:
    """The column with every run of white space as one space; null where nothing is left."""
    return pl.col(column).str.replace_all(r"\s+", " ").str.strip_chars().replace("", None)


def number(column: str) -> pl.Expr:
    """The column as Float64; null where it holds no finite number."""
    value = pl.col(column).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value).alias(column)


def catalogue(rows: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """The canonical products, and any extra columns, of rows with `product_id` and `title` already cleaned."""
    rows = tally.keep(rows, "product_without_id", pl.col("product_id").is_not_null())
    rows = tally.keep(rows, "product_without_title", pl.col("title").is_not_null())
    return conform(tally.first(rows, "product_repeated", "product_id"), PRODUCTS, keep_others=True)


def ratings(rows: pl.DataFrame, products: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """Canonical rating events of rows with `user_id`, `product_id`, `value` and `milliseconds` since 1970."""
    complete = pl.all_horizontal(pl.col("user_id", "product_id", "value", "milliseconds").is_not_null())
    rows = tally.keep(rows, "rating_unreadable", complete)
    rows = tally.known(rows, "rating_of_unknown_product", products)
    rows = tally.first(rows, "rating_repeated", "user_id", "product_id", "milliseconds")
    events = rows.with_columns(
        event_id=pl.format("{}:{}:{}", "user_id", "product_id", "milliseconds"),
        event_time=utc(pl.from_epoch("milliseconds", time_unit="ms")),
        event_type=pl.lit("rating"),
    )
    return conform(events, EVENTS).sort("event_time", "event_id")


def judgments(rows: pl.DataFrame, products: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """Canonical judgments of rows with `query`, `product_id`, `grade` and perhaps `split`."""
    rows = tally.keep(rows, "judgment_without_query", pl.col("query").is_not_null())
    rows = tally.keep(rows, "judgment_without_grade", pl.col("grade").is_not_null())
    rows = tally.known(rows, "judgment_of_unknown_product", products)
    return conform(tally.first(rows, "judgment_repeated", "query", "product_id"), JUDGMENTS)


def utc(naive: pl.Expr) -> pl.Expr:
    """A time without a zone, taken as UTC."""
    return naive.cast(pl.Datetime("us")).dt.replace_time_zone("UTC").cast(TIME)
