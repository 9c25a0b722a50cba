"""The assortment: what of a release is on offer now, with the prices and the stock of now."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from indexer.arrays import Ints, Mask
from indexer.rendered import Inventory, Rendered
from indexer.snapshot import IndexSnapshot
from ranker.changes import NEVER, Change
from ranker.products import ProductTable, numbers


@dataclass(frozen=True)
class Offer:
    """The assortment at one moment. It never changes, so that what passes a filter by its price shows that price.

    `products` are what filters read, `table` what features are made of, `rendered` what a page shows. `listed` [rows]
    is None while nothing is deleted: then no request looks at it.
    """

    products: pa.Table
    table: ProductTable
    rendered: Rendered
    listed: Mask | None = None

    def lists(self, row: int) -> bool:
        """Whether a product is not deleted."""
        return self.listed is None or bool(self.listed[row])

    @property
    def stocked(self) -> int:
        """How many products have a price or stock that is not the catalogue's."""
        inventory = self.rendered.inventory
        return 0 if inventory is None else int(np.count_nonzero(inventory.live))

    @property
    def deleted(self) -> int:
        """How many products are deleted."""
        return 0 if self.listed is None else int(np.count_nonzero(~self.listed))


class Assortment:
    """Applies changes, one caller at a time; `offer` is the one reference that readers take, once for all they do.

    A change is held against the moment at which the catalogue file was last modified: what is not later is in the file.
    """

    def __init__(self, snapshot: IndexSnapshot, table: ProductTable) -> None:
        self.since = catalogue_moment(snapshot.manifest)
        self._row_of: Mapping[str, int] = snapshot.row_of
        self._built = Offer(snapshot.products, table, snapshot.rendered)
        self.offer = self._built

    def amended(
        self, row_of: Mapping[str, int], products: pa.Table, table: ProductTable, rendered: Rendered
    ) -> "Assortment":
        """What is on offer where products were said anew, in their rows and behind; live prices and stock stay."""
        built = Offer(products, table, rendered)
        made, now = copy.copy(self), self.offer
        made._row_of, made._built, made.offer = row_of, built, built
        if now.rendered.inventory is not None:
            made.offer = _offered(built, _kept(now.rendered.inventory, products), None)
        if now.listed is not None:
            room = len(products) - len(now.listed)
            made.offer = replace(made.offer, listed=np.pad(now.listed, (0, room), constant_values=True))
        return made

    def apply(self, changes: Iterable[Change]) -> None:
        """Let changes count. Each is all that is known of its product, so to apply one again changes nothing."""
        prices: dict[int, float] = {}
        in_stock: dict[int, float] = {}
        listed: dict[int, bool] = {}
        for change in changes:
            row = self._row_of.get(change.product_id)
            if row is None:
                continue
            if change.price is not None and change.price_time > self.since:
                prices[row] = change.price
            if change.in_stock is not None and change.stock_time > self.since:
                in_stock[row] = change.in_stock
            listed[row] = change.deleted_time <= self.since
        offer = self.offer
        if prices or in_stock:
            offer = _stocked(self._built, offer, prices, in_stock)
        self.offer = _listing(offer, listed)


def catalogue_moment(manifest: Mapping[str, Any]) -> int:
    """When the catalogue file of an index was last modified, in Unix microseconds; NEVER where it does not say."""
    return moment_of(manifest.get("catalogue", {}).get("modified"))


def moment_of(modified: float | None) -> int:
    """The time of a file, in Unix seconds, as changes have theirs; NEVER where it is not known."""
    return NEVER if modified is None else max(round(modified * 1e6), NEVER)


def _stocked(built: Offer, offer: Offer, prices: Mapping[int, float], in_stock: Mapping[int, float]) -> Offer:
    """An offer with some prices and stock changed; arrays of all products are copied, 1 ms for 100,000 of them."""
    known = offer.rendered.inventory
    if known is None:
        as_built = np.zeros(len(offer.products), bool)
        known = Inventory(numbers(offer.products, "price"), numbers(offer.products, "in_stock"), as_built, as_built)
    inventory = Inventory(known.price.copy(), known.in_stock.copy(), known.priced.copy(), known.stocked.copy())
    for values, live, changed in (
        (inventory.price, inventory.priced, prices),
        (inventory.in_stock, inventory.stocked, in_stock),
    ):
        rows = _rows(changed)
        values[rows] = np.fromiter(changed.values(), np.float64, len(changed))
        live[rows] = True
    return _offered(built, inventory, offer.listed)


def _offered(built: Offer, inventory: Inventory, listed: Mask | None) -> Offer:
    """What was built, with the prices and stock of an inventory."""
    products = built.products
    columns = {
        "price": pa.array(inventory.price, mask=np.isnan(inventory.price)),
        "in_stock": pa.array(inventory.in_stock == 1, mask=np.isnan(inventory.in_stock)),
    }
    for name, values in columns.items():
        products = products.set_column(products.schema.get_field_index(name), name, values)
    return Offer(products, built.table.stocked(inventory), built.rendered.stocked(inventory), listed)


def _kept(inventory: Inventory, products: pa.Table) -> Inventory:
    """An inventory for `products`, which are more, or said anew: what is live in it, and all else as they have it."""
    made = []
    for name, known, live in (
        ("price", inventory.price, inventory.priced),
        ("in_stock", inventory.in_stock, inventory.stocked),
    ):
        # A table's numbers may be a view of it.
        values, rows = numbers(products, name).copy(), np.flatnonzero(live)
        values[rows] = known[rows]
        made.append((values, np.pad(live, (0, len(products) - len(live)))))
    (price, priced), (in_stock, stocked) = made
    return Inventory(price, in_stock, priced, stocked)


def _listing(offer: Offer, changed: Mapping[int, bool]) -> Offer:
    """An offer with some rows listed or not listed from now on."""
    if offer.listed is None and all(changed.values()):
        return offer
    listed = np.ones(len(offer.products), bool) if offer.listed is None else offer.listed.copy()
    listed[_rows(changed)] = np.fromiter(changed.values(), bool, len(changed))
    return replace(offer, listed=None if listed.all() else listed)


def _rows(changed: Mapping[int, object]) -> Ints:
    return np.fromiter(changed, np.int64, len(changed))
