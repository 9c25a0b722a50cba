"""The offline job: build, train, evaluate, release, promote. A failure at any step leaves the live release."""

import json
import sys
import time
from collections.abc import Callable
from contextlib import closing
from typing import IO, Any, TypeVar

from indexer.build import Amend, Progress, build_index
from indexer.canonical import read_judgments
from indexer.readers import Catalogue
from indexer.snapshot import IndexSnapshot
from indexer.store import Store
from indexer.tuned import newest_encoder
from ranker.journals import kept_journal, read_log
from ranker.log import Sources
from ranker.model import stored_report
from ranker.train import train
from ranker.train_encoder import tune_encoder
from ranker.upserts import amended
from server.assortment import moment_of
from server.config import Settings
from server.release import Release, Releases

T = TypeVar("T")


class JobLog:
    """One JSON line for each step, to a stream: what cron mails and a log collector reads."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._start = time.monotonic()

    def write(self, step: str, state: str, **fields: Any) -> None:
        """Write a line."""
        line = {
            "time": time.time(),
            "elapsed": round(time.monotonic() - self._start, 3),
            "step": step,
            "state": state,
            **fields,
        }
        print(json.dumps(line, ensure_ascii=False, default=str), file=self._stream, flush=True)

    def step(self, name: str, work: Callable[[], T]) -> T:
        """Run a step between its two lines; a failure is logged and goes on up."""
        self.write(name, "started")
        start = time.monotonic()
        try:
            result = work()
        except BaseException as error:
            self.write(
                name, "failed", seconds=round(time.monotonic() - start, 3), error=f"{type(error).__name__}: {error}"
            )
            raise
        self.write(name, "done", seconds=round(time.monotonic() - start, 3))
        return result


def rebuild(
    settings: Settings,
    log: JobLog,
    progress: Progress,
    say: Callable[[str], None],
    note: str,
    *,
    tune: bool = False,
    unranked: bool = False,
    wait: bool = False,
) -> Release:
    """Read the latest catalogue and log, and bring a new release live.

    While another run works: with `wait` once it has ended, else `LockedError`. With `tune`, the encoder is first tuned
    on the log. Only with `unranked` may a model that a too short log left without a ranking follow one that ranks;
    else `GateError`, and no release is made.
    """
    store = Store(settings.store)
    releases = Releases(store)
    with store.locked("rebuild", wait=wait):
        sources = log.step("read log", lambda: read_sources(settings))
        if tune:
            log.step("tune encoder", lambda: tune_encoder(store, settings.ranker, settings.indexer, sources, say))
        encoder = log.step("encoder", lambda: newest_encoder(store, settings.indexer))
        index = log.step(
            "build", lambda: build_index(store, settings.indexer, encoder, progress, amend=amendment(settings))
        )
        snapshot = log.step("open index", lambda: IndexSnapshot(store, index, settings.indexer))
        model = log.step(
            "train", lambda: train(store, settings.ranker, settings.indexer, snapshot, encoder, sources, say)
        )
        _log_figures(log, store, model)
        if not unranked:
            log.step("gate", lambda: releases.check_ranked(model))
        release = bring_live(log, releases, lambda: releases.create(index, model, note, settings.indexer))
        log.write("rebuild", "done", release=release.number, index=index, model=model)
    return release


def bring_live(log: JobLog, releases: Releases, create: Callable[[], Release]) -> Release:
    """The last two steps: the release that `create` makes, promoted."""
    release = log.step("release", create)
    log.step("promote", lambda: releases.promote(release.number))
    return release


def read_sources(settings: Settings) -> Sources:
    """The configured log, with the journal, and the configured judgments."""
    judgments = settings.ranker.judgments
    return Sources(
        read_log(settings.ranker.events, settings.store, settings.journal),
        None if judgments is None else read_judgments(judgments),
    )


def amendment(settings: Settings) -> Amend:
    """What puts the journal's upserts into a catalogue: those that are later than its file, which has all others."""

    def amend(catalogue: Catalogue, file_time: float | None) -> Catalogue:
        if not (journal := kept_journal(settings.store, settings.journal)):
            return catalogue
        since = moment_of(file_time)
        with closing(journal):
            upserts, changes = journal.upserts(since), journal.changes(since)
        return catalogue._replace(products=amended(catalogue.products, upserts, changes))

    return amend


def _log_figures(log: JobLog, store: Store, model: str) -> None:
    report = stored_report(store, model)
    if report is None:
        log.write("evaluate", "skipped", reason=store.manifest("models", model)["unranked"])
    else:
        log.write("evaluate", "done", requests=report["requests"], chosen=report["chosen"], table=_short(report))


def _short(report: dict[str, Any]) -> dict[str, float]:
    return {row["scorer"]: round(row["metrics"]["ndcg@10"]["mean"], 4) for row in report["table"]}
