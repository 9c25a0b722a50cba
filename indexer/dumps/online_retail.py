"""The UCI "Online Retail" transactions of a British gift shop: purchases and returns, and the catalogue they imply."""

from pathlib import Path

import polars as pl

from indexer.canonical import EVENTS, PRODUCTS, Dump, conform
from indexer.dumps.source import Tally, number, read_delimited, require, text, utc

NAMES = ("transactions.csv", "Online Retail.csv", "online_retail.csv")
FILES = "transactions.csv[.gz], Online Retail.csv[.gz] or online_retail.csv[.gz]"
COLUMNS = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")

# A product's code is five digits with up to three letters for the variant, or DCGS and the number or name of one of the
# shop's own articles. Everything else is bookkeeping: POST, DOT, C2 (carriage), M (manual), D (discount), S (samples),
# B (bad debt), BANK CHARGES, AMAZONFEE, CRUK (charity), PADS (an allowance), GIFT_0001_20 (vouchers), TEST001.
PRODUCT_CODE = r"^(\d{5}[A-Z]{0,3}|DCGS[0-9A-Z]+)$"

# Services and a voucher that were given codes of the form of a product's.
SERVICE_CODES = {
    "22016": "gift voucher",
    "23444": "next day carriage",
    "23574": "packing charge",
    "23702": "high resolution image",
}

# A description that is a note of the warehouse, not a title: no letter at all, or just such a word. Nearly all of these
# are on bookkeeping lines, which are dropped anyway; this keeps the others from becoming a title.
NOTE = (
    r"(?i)^[^\p{L}]*$|^\W*(adjust(ment)?|amazon|broken|check(ed)?|counted|crushed|damaged?|damages|dotcom|ebay|faulty|found"
    r"|lost|mailout|missing|mouldy|rusty|samples?|smashed|test|thrown away|wet)\W*$"
)

# The file as published has ISO times; copies saved by a spreadsheet have American ones.
TIME_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%m/%d/%Y %H:%M")


def read(folder: Path) -> Dump:
    """Read the transactions of `folder`. Each line is in an event or counted: lines = events + merged + dropped."""
    raw = read_delimited(require(folder, *NAMES), COLUMNS, legacy=True)
    tally = Tally()
    lines = _clean(raw, tally)
    products = _products(lines)
    lines = _of_products(lines, products, tally)
    events = _events(lines)
    counts = {
        "lines": raw.height,
        "lines_merged": lines.height - events.height,
        "products": products.height,
        "events": events.height,
        "purchases": events.filter(pl.col("event_type") == "purchase").height,
        "returns": events.filter(pl.col("event_type") == "return").height,
        "purchases_without_customer": events.filter(pl.col("user_id").is_null()).height,
    }
    return Dump(products, events, counts=counts, dropped=tally.dropped)


def _clean(raw: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    """The lines that are a sale or a return of a product; a dropped one is counted under the first reason that fits."""
    # A line equal in all eight columns is taken for a double entry. The file has no line number that could tell.
    lines = _parse(tally.first(raw, "line_repeated", *COLUMNS))
    complete = pl.all_horizontal(pl.col("invoice", "product_id", "quantity", "price", "event_time").is_not_null())
    lines = tally.keep(lines, "line_unreadable", complete)
    code = pl.col("product_id")
    is_product = code.str.contains(PRODUCT_CODE) & ~code.is_in(list(SERVICE_CODES))
    lines = tally.keep(lines, "not_a_product", is_product)
    lines = tally.keep(lines, "quantity_zero", pl.col("quantity") != 0)
    # No price and no customer: stock found, written off or moved to another channel.
    anonymous = pl.col("user_id").is_null()
    lines = tally.keep(lines, "stock_movement", ~(anonymous & (pl.col("price") == 0)))
    lines = tally.keep(lines, "price_not_positive", pl.col("price") > 0)
    # A return says something about a customer only; it was no demand for the product.
    return tally.keep(lines, "return_without_customer", ~(anonymous & (pl.col("event_type") == "return")))


def _parse(raw: pl.DataFrame) -> pl.DataFrame:
    quantity = number("Quantity")
    invoice = text("InvoiceNo").str.to_uppercase()
    cancelled = invoice.str.starts_with("C") | (quantity < 0)
    times = [text("InvoiceDate").str.to_datetime(form, strict=False, time_unit="us") for form in TIME_FORMATS]
    return raw.select(
        invoice=invoice,
        product_id=text("StockCode").str.to_uppercase(),
        title=text("Description"),
        quantity=quantity,
        price=number("UnitPrice"),
        user_id=number("CustomerID").cast(pl.Int64, strict=False).cast(pl.String),
        event_time=utc(pl.coalesce(times)),
        event_type=pl.when(cancelled).then(pl.lit("return")).otherwise(pl.lit("purchase")),
    )


def _products(lines: pl.DataFrame) -> pl.DataFrame:
    """One product for each code sold under a usable title: the most frequent one, then the first by letter."""
    sales = lines.filter(pl.col("event_type") == "purchase")
    titled = sales.filter(~pl.col("title").str.contains(NOTE))
    titles = (
        titled.group_by("product_id", "title")
        .len()
        .sort("product_id", -pl.col("len").cast(pl.Int64), "title")
        .unique("product_id", keep="first", maintain_order=True)
    )
    prices = sales.group_by("product_id").agg(pl.col("price").median())
    return conform(titles.join(prices, on="product_id", maintain_order="left"), PRODUCTS)


def _of_products(lines: pl.DataFrame, products: pl.DataFrame, tally: Tally) -> pl.DataFrame:
    sold = pl.col("event_type") == "purchase"
    sales = tally.known(lines.filter(sold), "sale_without_title", products)
    returns = tally.known(lines.filter(~sold), "return_of_unknown_product", products)
    return pl.concat([sales, returns])


def _events(lines: pl.DataFrame) -> pl.DataFrame:
    """One event for each (invoice, product, purchase or return): quantities summed, the price is the mean paid."""
    # The file's prices have three decimals at most; rounding takes off what the division adds.
    price = ((pl.col("price") * pl.col("quantity")).sum() / pl.col("quantity").sum()).round(4)
    merged = (
        lines.with_columns(pl.col("quantity").abs())
        .group_by("invoice", "product_id", "event_type")
        .agg(pl.col("event_time").min(), pl.col("user_id").max(), price=price, quantity=pl.col("quantity").sum())
    )
    named = merged.with_columns(
        event_id=pl.format("{}:{}:{}", "invoice", "product_id", "event_type"),
        session_id=pl.col("invoice"),
        request_id=pl.col("invoice"),
    )
    return conform(named, EVENTS).sort("event_time", "event_id")
