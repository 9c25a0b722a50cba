"""A shop whose catalogue may change, for the tests of the short job."""

import io
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import polars as pl
from harness import Trained

from indexer.difference import Difference
from indexer.snapshot import IndexSnapshot
from server import refresh as job
from server.rebuild import JobLog
from server.release import Release, Releases


class Shop(NamedTuple):
    """A live release with a catalogue of its own, which may change."""

    made: Trained

    @property
    def products(self) -> pl.DataFrame:
        return pl.read_parquet(self.made.settings.indexer.catalogue)

    def stock(self, products: pl.DataFrame) -> None:
        products.write_parquet(self.made.settings.indexer.catalogue)

    def change(self) -> tuple[str, str, str]:
        """One product dropped, one twice as dear, one new; their ids."""
        products = self.products
        gone, dear = products["product_id"][0], products["product_id"][1]
        price = pl.when(pl.col("product_id") == dear).then(4_321.0).otherwise(pl.col("price"))
        new = products[:1].with_columns(product_id=pl.lit("new"), title=pl.lit("zirconium teapot"))
        self.stock(pl.concat([products[1:].with_columns(price=price), new]))
        return gone, dear, "new"

    def refresh(self, stream: io.StringIO | None = None, keep: int | None = None) -> tuple[Release, Difference]:
        return job.refresh(self.made.settings, JobLog(stream or io.StringIO()), lambda *_: None, "again", keep)

    @property
    def live(self) -> Release:
        return Releases(self.made.store).live()


def with_catalogue(made: Trained, folder: Path) -> Shop:
    own = shutil.copyfile(made.settings.indexer.catalogue, folder / "products.parquet")
    indexer = made.settings.indexer.model_copy(update={"catalogue": own})
    return Shop(made._replace(settings=made.settings.model_copy(update={"indexer": indexer})))


def snapshot(shop: Shop, release: Release) -> IndexSnapshot:
    return IndexSnapshot(shop.made.store, release.index, shop.made.settings.indexer)


def touch(shop: Shop, moment: float) -> None:
    os.utime(shop.made.settings.indexer.catalogue, (moment, moment))
