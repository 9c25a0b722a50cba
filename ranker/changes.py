"""Live changes to the catalogue, as the journal keeps them: of each product the newest price, stock and deletion."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Before every time that a change can have.
NEVER = -1


class Change(NamedTuple):
    """What is said of a product, each part with its time in Unix microseconds; NEVER where nothing is."""

    product_id: str
    price: float | None = None
    price_time: int = NEVER
    in_stock: bool | None = None
    stock_time: int = NEVER
    deleted_time: int = NEVER

    def after(self, known: "Change") -> "Change":
        """What is known of the product after this, too: of each part the newest, and of equally new ones this."""
        price = self if self.price_time >= known.price_time else known
        stock = self if self.stock_time >= known.stock_time else known
        return Change(
            self.product_id,
            price.price,
            price.price_time,
            stock.in_stock,
            stock.stock_time,
            max(self.deleted_time, known.deleted_time),
        )


def taken(known: Mapping[str, Change], changes: Sequence[Change]) -> tuple[list[Change | None], list[Change]]:
    """Changes in turn, on top of what is `known` of their products.

    Returns what was known of each one's product before it, and the rows to write, in turn: a product may have several.
    """
    held, before, rows = dict(known), list[Change | None](), list[Change]()
    for change in changes:
        was = held.get(change.product_id)
        after = change if was is None else change.after(was)
        if after != was:
            held[change.product_id] = after
            rows.append(after)
        before.append(was)
    return before, rows


def relisted(known: Mapping[str, Change], changes: Sequence[tuple[Change, int]]) -> list[Change]:
    """The rows to write, in turn, of products that are listed from a time on and of which a change is said.

    A deletion that is not later than that time is undone. Every one is written, even where nothing in it differs:
    whoever reads on is told all that is known of the product.
    """
    held, rows = dict(known), list[Change]()
    for change, listed in changes:
        was = held.get(change.product_id)
        after = change if was is None else change.after(was)
        rows.append(after if after.deleted_time > listed else after._replace(deleted_time=NEVER))
        held[change.product_id] = rows[-1]
    return rows
