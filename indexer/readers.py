"""Read a catalogue of any shop, CSV, JSON Lines or Parquet: canonical products, and the bad rows with their reasons."""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import polars as pl

from indexer.canonical import PRODUCTS
from indexer.errors import InputError
from indexer.text import normalise

# Limits of one row. A title is for people; what is longer is a file in the wrong column.
MOST_ID_BYTES = 128
MOST_TITLE_CHARACTERS = 2_000
# Lines of one CSV row. What is longer is a quote that was opened and never closed.
_MOST_LINES = 100
_FIELD_LIMIT = 64 * 1024 * 1024
# Rows held as Python's objects at a time: they take ten times what their columns do.
_BLOCK = 10_000

_NEEDED = {"product_id", "title"}
_TRUE = {"true", "1", "yes", "y", "t"}
_FALSE = {"false", "0", "no", "n", "f"}


class Reject(NamedTuple):
    """A row left out: its line in the file (1 is the first), its id if it has one, and why."""

    line: int
    product_id: str | None
    reason: str


class Catalogue(NamedTuple):
    """Canonical products in file order, and the rejected rows."""

    products: pl.DataFrame
    rejects: list[Reject]


def read_catalogue(path: Path, columns: Mapping[str, str] | None = None, *, typed: bool = True) -> Catalogue:
    """Read `path`; `columns` maps canonical names to the file's.

    A further column gets the type that all its values have; without `typed` it is text. Raises `InputError` where the
    file is missing, damaged, of an unknown type or lacks a column that is needed.
    """
    columns = columns or {}
    source = {name: columns.get(name, name) for name in PRODUCTS}
    seen: dict[str, None] = {}
    taken: set[str] = set()
    kept: list[dict[str, Any]] = []
    blocks: list[pl.DataFrame] = []
    rejects: list[Reject] = []
    for line, row in _rows(path):
        if isinstance(row, str):
            rejects.append(Reject(line, None, row))
            continue
        seen.update(dict.fromkeys(name for name in row if name))
        product, reason = _product(row, source, taken)
        if reason:
            rejects.append(Reject(line, _shown(row.get(source["product_id"])), reason))
        else:
            taken.add(product["product_id"])
            kept.append(product)
            if len(kept) == _BLOCK:
                blocks.append(_block(kept))
                kept = []
    _check_columns(path, list(seen), [source[name] for name in PRODUCTS if name in columns or name in _NEEDED])
    return Catalogue(_frame([*blocks, _block(kept)], typed), rejects)


def _check_columns(path: Path, seen: list[str], wanted: list[str]) -> None:
    """A column that is missing altogether is one mistake of the configuration, not one of every row."""
    missing = [name for name in wanted if name not in seen]
    if seen and missing:
        raise InputError(
            f"{path} has no column {', '.join(map(repr, missing))}. Its columns are {', '.join(map(repr, seen[:30]))}. "
            'Say in indexer.columns which of them to take, such as title = "name"; of `vitrine product upsert` it is '
            "--column title=name."
        )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line, row), or (line, reason) for a line that holds no row."""
    try:
        yield from _parsed(path)
    except (OSError, EOFError, zlib.error, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} is damaged, or not of the type its name says: {error}") from error


def _parsed(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    if not path.is_file():
        raise InputError(
            f"The catalogue {path} does not exist. Set indexer.catalogue, or make one with `vitrine import`."
        )
    suffixes = [s for s in path.suffixes if s != ".gz"]
    match suffixes[-1] if suffixes else "":
        case ".csv":
            return _csv_rows(path)
        case ".jsonl" | ".ndjson":
            return _json_rows(path)
        case ".parquet":
            return ((i, row) for i, row in enumerate(pl.read_parquet(path).iter_rows(named=True), 1))
        case other:
            raise InputError(f"{path}: cannot read a catalogue of type {other!r}; give .csv, .jsonl or .parquet.")


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    csv.field_size_limit(_FIELD_LIMIT)
    with _open(path) as raw:
        # Undecodable bytes become lone surrogates, so that one bad row does not end the file.
        lines = (line.decode("utf-8-sig" if i == 0 else "utf-8", "surrogateescape") for i, line in enumerate(raw))
        reader = csv.DictReader(lines)
        while True:
            begin = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.reader.line_num, f"not CSV: {error}"
            else:
                spanned = reader.line_num - begin + 1
                if spanned <= _MOST_LINES:
                    yield reader.line_num, row
                else:
                    # One reject a line: the rows that a stray quote swallowed count in the share of rejects.
                    for line in range(begin, reader.line_num + 1):
                        yield line, f"in a field of {spanned} lines from line {begin}: a quote is not closed there"


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with _open(path) as raw:
        for number, line in enumerate(raw, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except UnicodeDecodeError:
                yield number, "not UTF-8"
            except json.JSONDecodeError as error:
                yield number, f"not JSON: {error.msg}"
            except (ValueError, RecursionError) as error:  # A number of 5,000 digits, lists 1,000 deep.
                yield number, f"not JSON: {error}"
            else:
                yield number, row if isinstance(row, dict) else "not a JSON object"


def _product(row: dict[str, Any], source: Mapping[str, str], taken: set[str]) -> tuple[dict[str, Any], str]:
    """The canonical product of a row and "", or an unusable one and the reason."""
    if any(isinstance(value, str) and not _is_text(value) for value in (*row, *row.values())):
        return {}, "not UTF-8"
    if None in row:
        return {}, "more fields than the header has"
    product_id = _string(row.get(source["product_id"])).strip()
    title = normalise(_string(row.get(source["title"])))
    reason = _identity_fault(product_id, title, taken)
    if reason:
        return {}, reason
    try:
        product = {
            "product_id": product_id,
            "title": title,
            "category": _text(row.get(source["category"])),
            "brand": _text(row.get(source["brand"])),
            "price": _price(row.get(source["price"])),
            "in_stock": _flag(row.get(source["in_stock"])),
        }
    except ValueError as error:
        return {}, str(error)
    used = set(source.values())
    return product | {name: value for name, value in row.items() if name not in used and name not in PRODUCTS}, ""


def _identity_fault(product_id: str, title: str, taken: set[str]) -> str:
    if not product_id:
        return "no id"
    if len(product_id.encode()) > MOST_ID_BYTES:
        return f"id longer than {MOST_ID_BYTES} bytes"
    # PostgreSQL stores none, so no request may name one.
    if "\0" in product_id:
        return "id with a NUL character"
    if product_id in taken:
        return "duplicate id"
    if not title:
        return "empty title"
    if len(title) > MOST_TITLE_CHARACTERS:
        return f"title longer than {MOST_TITLE_CHARACTERS} characters"
    return ""


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _string(value: Any) -> str:
    return "" if value is None else str(value)


def _text(value: Any) -> str | None:
    return normalise(_string(value)) or None


def _price(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        price = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"price is not a number: {_shown(value)!r}") from None
    if not math.isfinite(price) or price < 0:
        raise ValueError(f"price is not a number from 0 up: {_shown(value)!r}")
    return price


def _flag(value: Any) -> bool | None:
    if value is None or value == "":
        return None
    word = str(value).strip().casefold()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(f"in_stock is neither true nor false: {_shown(value)!r}")


def _shown(value: Any) -> str | None:
    return None if value is None else str(value).encode("utf-8", "backslashreplace").decode()[:80]


def _block(products: list[dict[str, Any]]) -> pl.DataFrame:
    """Canonical columns of their types, further ones as they are written."""
    names = dict.fromkeys([*PRODUCTS, *(name for product in products for name in product)])
    return pl.DataFrame({name: _column(name, [product.get(name) for product in products]) for name in names})


def _column(name: str, values: list[Any]) -> pl.Series:
    if name in PRODUCTS:
        return pl.Series(name, values, PRODUCTS[name])
    return pl.Series(name, [None if v is None or v == "" else str(v) for v in values], pl.String)


def _frame(blocks: list[pl.DataFrame], typed: bool) -> pl.DataFrame:
    """One frame; if `typed`, a further column becomes Int64, Float64 or Boolean if every value of it is one."""
    whole = pl.concat(blocks, how="diagonal", rechunk=True)
    if not typed:
        return whole
    return whole.with_columns(_typed(whole[name]) for name in whole.columns if name not in PRODUCTS)


def _typed(texts: pl.Series) -> pl.Series:
    if texts.null_count() == len(texts) or _holds_codes(texts):
        return texts
    words = texts.str.to_lowercase()
    if words.drop_nulls().is_in(["true", "false"]).all():
        return words == "true"
    for dtype in (pl.Int64, pl.Float64):
        typed = texts.cast(dtype, strict=False)
        if typed.null_count() == texts.null_count():
            return typed.fill_nan(None)
    return texts


def _holds_codes(texts: pl.Series) -> bool:
    """Whether a value would lose leading zeros or last digits as a number: codes such as 00123 stay text."""
    return bool(texts.str.contains(r"^0\d|^\d{19,}$").any())
