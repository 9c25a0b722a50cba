"""The short job: the present catalogue goes live with the live release's model. A failure leaves the live release."""

from contextlib import closing
from typing import cast

import polars as pl

from indexer.build import Progress, build_index, check_rejects, modified
from indexer.difference import Difference, difference
from indexer.readers import read_catalogue
from indexer.snapshot import IndexSnapshot
from indexer.store import Store
from ranker.carry import carry
from ranker.journals import kept_journal
from server.assortment import catalogue_moment, moment_of
from server.config import Settings
from server.encoder import fitting_encoder
from server.rebuild import JobLog, amendment, bring_live
from server.release import Release, Releases


def refresh(
    settings: Settings, log: JobLog, progress: Progress, note: str, keep: int | None = None
) -> tuple[Release, Difference]:
    """Bring the present catalogue live, trained as the live release is; returns the live release and what changed.

    Where nothing did, nothing is done. Of the releases that refreshes made the newest `keep` stay in the store, or all.
    Raises `LockedError` while another run works, `SnapshotError` where nothing is live yet, and `GateError` where
    another release went live meanwhile.
    """
    store = Store(settings.store)
    releases = Releases(store)
    with store.locked("rebuild"):
        live = releases.live()
        was = log.step("open live index", lambda: _live_index(store, live, settings))
        found = log.step("compare", lambda: _difference(store, was, settings))
        if not any(found):
            log.write("refresh", "unchanged", release=live.number)
            return live, found
        encoder = log.step("encoder", lambda: fitting_encoder(store, was.manifest, settings.indexer))
        index = log.step(
            "build", lambda: build_index(store, settings.indexer, encoder, progress, was, amendment(settings))
        )
        snapshot = log.step("open index", lambda: IndexSnapshot(store, index, settings.indexer))
        model = log.step("carry", lambda: carry(store, live.model, snapshot, settings.indexer))
        release = bring_live(log, releases, lambda: releases.create(index, model, note, settings.indexer, live))
        if keep is not None:
            log.step("clear", lambda: clear(store, releases, keep))
        log.write("refresh", "done", release=release.number, index=index, model=model, **found._asdict())
    return release, found


def clear(store: Store, releases: Releases, keep: int) -> None:
    """Remove the releases that refreshes made but for the newest `keep` and the live one, and what refreshes left over.

    Carried models of no release go, with their indexes unless another release or model is of them. What was trained
    stays.
    """
    live = releases.live()
    carried = [each for each in releases.list() if "carried_from" in each.gate]
    for each in carried[: max(len(carried) - keep, 0)]:
        if each != live:
            releases.forget(each.number)
    listed = releases.list()
    told = {name: store.manifest("models", name) for name in store.ids("models")}
    loose = {name for name in told if "carried_from" in told[name]} - {each.model for each in listed}
    needed = {each.index for each in listed} | {told[name]["index"] for name in told.keys() - loose}
    # Indexes first: whoever was interrupted finds the rest by the models.
    for index in ({told[name]["index"] for name in loose} - needed) & {*store.ids("indexes")}:
        store.remove("indexes", index)
    for name in loose:
        store.remove("models", name)


def _live_index(store: Store, live: Release, settings: Settings) -> IndexSnapshot:
    """It is read and not searched: it need not be copied to a card."""
    return IndexSnapshot(store, live.index, settings.indexer.model_copy(update={"device": "cpu"}))


def _difference(store: Store, was: IndexSnapshot, settings: Settings) -> Difference:
    """What differs from the live index, upserts too. So does what the file knows better by now than the journal."""
    file_time = modified(settings.indexer.catalogue)
    catalogue = read_catalogue(settings.indexer.catalogue, settings.indexer.columns)
    check_rejects(store, catalogue, settings.indexer)
    catalogue = amendment(settings)(catalogue, file_time)
    found = difference(cast(pl.DataFrame, pl.from_arrow(was.products)), catalogue.products)
    return found if any(found) else found._replace(changed=_overtaken(store, was, file_time, settings))


def _overtaken(store: Store, was: IndexSnapshot, file_time: float | None, settings: Settings) -> int:
    """How many products have a live change or upsert that holds on the live index, and is older than the file."""
    if file_time is None or not (journal := kept_journal(store.root, settings.journal)):
        return 0
    since, until = catalogue_moment(was.manifest), moment_of(file_time)
    with closing(journal):
        changes, upserts = journal.changes(since), journal.upserts(since)
    moments = [
        (change.product_id, moment)
        for change in changes
        if change.product_id in was.row_of
        for moment in (change.price_time, change.stock_time, change.deleted_time)
    ]
    # A product that the live index does not hold is found by its upsert alone.
    moments += [(upsert.product_id, upsert.time) for upsert in upserts]
    return len({product for product, moment in moments if since < moment <= until})
