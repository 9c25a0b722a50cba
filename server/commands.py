"""The commands that make things: import, sample, index, train, evaluate, release, rebuild, refresh, config."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from indexer.build import build_index
from indexer.dumps.registry import FORMATS, write
from indexer.errors import InputError, SnapshotError
from indexer.sample.shop import make_shop
from indexer.snapshot import IndexSnapshot, open_latest
from indexer.store import Store
from indexer.tuned import newest_encoder
from ranker.model import load_model, stored_report
from ranker.report import write_report
from ranker.train import evaluate_again, train
from ranker.train_encoder import tune_encoder
from server import tables
from server.config import Settings, load_settings
from server.encoder import fitting_encoder
from server.options import DEFAULT, AsJson, Config
from server.progress import Bar, Say, errors
from server.rebuild import JobLog, amendment, read_sources, rebuild
from server.refresh import refresh
from server.release import Releases

out = Console()

Quiet = Annotated[bool, typer.Option("--quiet", help="Only the JSON log, for cron.")]
Log = Annotated[Path | None, typer.Option(help="Append the JSON log to this file, not to standard error.")]
Note = Annotated[str, typer.Option(help="A word for whoever reads the list of releases.")]


class Part(StrEnum):
    """What `vitrine train` trains."""

    MODEL = "model"
    ENCODER = "encoder"


index = typer.Typer(help="Build, verify and list indexes.", no_args_is_help=True)
release = typer.Typer(help="Create, list, promote and roll back releases.", no_args_is_help=True)
config = typer.Typer(help="The configuration.", no_args_is_help=True)


def import_dump(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of: {', '.join(FORMATS)}.")],
    folder: Annotated[Path, typer.Argument(help="The folder with the data set's files.")],
    to: Annotated[Path, typer.Option("--out", "-o", help="Where the canonical files go.")] = Path("data"),
) -> None:
    """Bring a public data set to canonical Parquet files (see docs/data.md)."""
    if format_name not in FORMATS:
        raise InputError(f"There is no format {format_name!r}. Known: {', '.join(FORMATS)}.")
    dump = FORMATS[format_name].read(folder)
    write(dump, to)
    tables.counts(out, f"{format_name} → {to}", dump.counts, dump.dropped)


def sample(
    products: Annotated[int, typer.Option(min=20, help="How many products.")] = 5_000,
    users: Annotated[
        int | None, typer.Option(min=1, help="How many users; by default a fifth of the products, 200 to 50,000.")
    ] = None,
    sessions: Annotated[
        int | None, typer.Option(min=1, help="How many sessions; by default twice the products, 2,000 to 200,000.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same shop.")] = 0,
    to: Annotated[Path, typer.Option("--out", "-o", help="Where the canonical files go.")] = Path("data"),
) -> None:
    """Make a sample shop: products, events and judgments, deterministic by seed."""
    dump = make_shop(products, users, sessions, seed)
    write(dump, to)
    tables.counts(out, f"sample shop → {to}", dump.counts, dump.dropped)


@index.command("build")
def index_build(path: Config = DEFAULT) -> None:
    """Build and publish an index of the configured catalogue; the live release is not touched."""
    settings = load_settings(path)
    store = Store(settings.store)
    with store.locked("rebuild"), Bar() as bar:
        encoder = newest_encoder(store, settings.indexer)
        name = build_index(store, settings.indexer, encoder, bar.advance, amend=amendment(settings))
    tables.built(out, store.manifest("indexes", name))


@index.command("verify")
def index_verify(
    name: Annotated[str | None, typer.Argument(help="An index id; by default the newest.")] = None,
    path: Config = DEFAULT,
) -> None:
    """Read every file of an index and compare its checksum. Exit code 4 where one is missing or has changed."""
    store = Store(load_settings(path).store)
    name = name or store.latest("indexes")
    faults = store.verify("indexes", name)
    if faults:
        raise SnapshotError(f"Index {name} is damaged: {'; '.join(faults)}. Build it again: `vitrine index build`.")
    out.print(f"Index {name}: every file is as it was written.")


@index.command("list")
def index_list(path: Config = DEFAULT, as_json: AsJson = False) -> None:
    """List the published indexes, oldest first."""
    store = Store(load_settings(path).store)
    manifests = [store.manifest("indexes", name) for name in store.ids("indexes")]
    _print_json(manifests) if as_json else tables.indexes(out, manifests)


def train_part(
    part: Annotated[Part, typer.Argument(help="model: rank by the newest index; encoder: tune it on the log.")] = (
        Part.MODEL
    ),
    path: Config = DEFAULT,
) -> None:
    """Train a model on the newest index, or tune the encoder, and publish it; the live release is not touched."""
    settings = load_settings(path)
    store = Store(settings.store)
    with store.locked("rebuild"):
        (_train_encoder if part is Part.ENCODER else _train_model)(store, settings)


def _train_model(store: Store, settings: Settings) -> None:
    snapshot = open_latest(store, settings.indexer)
    encoder = fitting_encoder(store, snapshot.manifest, settings.indexer)
    name = train(store, settings.ranker, settings.indexer, snapshot, encoder, read_sources(settings), Say())
    _show_report(store, name, f"model {name}")


def _train_encoder(store: Store, settings: Settings) -> None:
    name = tune_encoder(store, settings.ranker, settings.indexer, read_sources(settings), Say())
    seconds = store.manifest("encoders", name)["seconds"]
    out.print(f"Encoder {name}, tuned in {seconds:.1f} s.", highlight=False, soft_wrap=True)
    if settings.indexer.tuned:
        out.print("The next index is built with it: `vitrine rebuild`, or `vitrine index build` and `vitrine train`.")
    else:
        out.print("It is not used: indexer.tuned = false. Set it to true, then `vitrine rebuild`.")


def evaluate(
    model: Annotated[str | None, typer.Option(help="A model id; by default the newest.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="Where the report page goes; by default reports/<model>.html in the store.")
    ] = None,
    path: Config = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Rank the requests kept from training, and those logged since, by every member and every fusion, side by side."""
    settings = load_settings(path)
    store = Store(settings.store)
    name = model or store.latest("models")
    snapshot = IndexSnapshot(store, store.manifest("models", name)["index"], settings.indexer)
    opened = load_model(store, name, snapshot, settings.indexer)
    encoder = fitting_encoder(store, snapshot.manifest, settings.indexer)
    report = evaluate_again(opened, settings.ranker, snapshot, encoder, read_sources(settings), Say())
    page = page or settings.store / "reports" / f"{name}.html"
    write_report(report, page, f"Evaluation of model {name}")
    _print_json(report) if as_json else tables.report(out, report, f"model {name}")
    if trained := opened.manifest.get("carried_from"):
        says = f"Model {name} was carried from {trained}; what is no longer in the catalogue counts as never asked for."
        errors.print(says, highlight=False, soft_wrap=True, markup=False)
    errors.print(f"Report to look at: {page}", highlight=False, soft_wrap=True, markup=False)


@release.command("create")
def release_create(
    index_id: Annotated[str | None, typer.Option("--index", help="By default the model's.")] = None,
    model_id: Annotated[str | None, typer.Option("--model", help="By default the newest.")] = None,
    note: Annotated[str, typer.Option(help="A word for whoever reads the list.")] = "",
    path: Config = DEFAULT,
) -> None:
    """Check that an index and a model belong together and are sound, and number the pair. It does not go live."""
    settings = load_settings(path)
    store = Store(settings.store)
    model_id = model_id or store.latest("models")
    index_id = index_id or str(store.manifest("models", model_id)["index"])
    made = Releases(store).create(index_id, model_id, note, settings.indexer)
    out.print(
        f"Release {made.number}: index {made.index}, model {made.model}. "
        f"Make it live: vitrine release promote {made.number}"
    )


@release.command("list")
def release_list(path: Config = DEFAULT, as_json: AsJson = False) -> None:
    """List the releases, oldest first, and which is live."""
    releases = Releases(Store(load_settings(path).store))
    live = releases.current()
    listed = releases.list()
    if as_json:
        _print_json({"live": live.number if live else None, "releases": [asdict(r) for r in listed]})
    else:
        tables.releases(out, listed, live)


@release.command("promote")
def release_promote(number: Annotated[int, typer.Argument(help="A release number.")], path: Config = DEFAULT) -> None:
    """Make a release live; running servers follow within server.reload_seconds."""
    Releases(Store(load_settings(path).store)).promote(number)
    out.print(f"Release {number} is live.")


@release.command("rollback")
def release_rollback(path: Config = DEFAULT) -> None:
    """Make the release before the live one live again."""
    out.print(f"Release {Releases(Store(load_settings(path).store)).rollback().number} is live.")


def rebuild_all(
    note: Note = "rebuild",
    quiet: Quiet = False,
    log: Log = None,
    tune: Annotated[bool, typer.Option("--tune", help="First tune the encoder on the log.")] = False,
    unranked: Annotated[
        bool, typer.Option("--unranked", help="Go live even if the log got too short to learn a ranking from.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Begin when another run has ended, in place of exit code 5.")] = (
        False
    ),
    path: Config = DEFAULT,
) -> None:
    """The offline job: build, train, evaluate, release, promote. A failure at any step leaves the live release.

    Writes two JSON lines a step. Exit codes: 0 live; 2 configuration; 3 input; 4 damaged or unfitting
    snapshot; 5 another run holds the lock; 6 the gate refused the release; 8 the journal cannot be read; 1 anything
    else.
    """
    settings = load_settings(path)
    with _job(log, quiet) as (told, bar):
        made = rebuild(settings, told, bar.advance, Say(quiet), note, tune=tune, unranked=unranked, wait=wait)
    if not quiet:
        _show_report(Store(settings.store), made.model, f"release {made.number}")


def refresh_all(
    note: Note = "refresh",
    quiet: Quiet = False,
    log: Log = None,
    keep: Annotated[
        int | None, typer.Option(min=2, help="Remove what refreshes made, but for the newest so many; else all stays.")
    ] = None,
    path: Config = DEFAULT,
) -> None:
    """The short job: bring the present catalogue live with the live release's model; nothing is trained.

    Does nothing where no product changed. A failure at any step leaves the live release. Writes two JSON lines a step.
    Exit codes: 0 live, or unchanged; 2 configuration; 3 input; 4 nothing is live yet, or a damaged snapshot; 5 another
    run holds the lock; 6 the gate refused the release, or another one went live meanwhile; 8 the journal cannot be
    read; 1 anything else.
    """
    settings = load_settings(path)
    with _job(log, quiet) as (told, bar):
        live, found = refresh(settings, told, bar.advance, note, keep)
    if quiet:
        return
    if any(found):
        says = f"{found.new:,} products are new, {found.dropped:,} gone, {found.changed:,} changed"
        out.print(f"Release {live.number} is live: {says}.", highlight=False)
    else:
        out.print(f"Release {live.number} stays live: no product has changed.", highlight=False)


@contextlib.contextmanager
def _job(log: Path | None, quiet: bool) -> Iterator[tuple[JobLog, Bar]]:
    """What a job tells: its log, to a file or to standard error, and how far it is."""
    with contextlib.ExitStack() as open_things:
        stream = None if log is None else open_things.enter_context(log.open("a", encoding="utf-8"))
        yield JobLog(stream), open_things.enter_context(Bar(disable=quiet))


@config.command("show")
def config_show(path: Config = DEFAULT, as_json: AsJson = False) -> None:
    """Print every setting in force, defaults included."""
    settings = load_settings(path)
    if as_json:
        _print_json(json.loads(settings.model_dump_json()))
    else:
        tables.settings(out, settings, Settings.model_validate({}))


def _show_report(store: Store, model: str, title: str) -> None:
    report = stored_report(store, model)
    if report is None:
        reason = store.manifest("models", model)["unranked"]
        out.print(f"{title} has no ranking: {reason}.", highlight=False, soft_wrap=True)
    else:
        tables.report(out, report, title)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False, default=str))
