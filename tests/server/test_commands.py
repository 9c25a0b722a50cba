"""The commands that make things, in one process and with an encoder without a model."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from harness import Trained, copied, hash_encoder
from typer.testing import CliRunner, Result

from indexer import tuned
from indexer.config import IndexerConfig
from indexer.encoder import fingerprint, resolve
from indexer.errors import ConfigError, InputError, LockedError, SnapshotError
from indexer.snapshot import open_latest
from indexer.store import Store
from ranker.sqlite_journal import FILE, SqliteJournal
from ranker.upserts import Upsert
from server import commands
from server import rebuild as job
from server.cli import app
from server.release import GateError

Run = Callable[..., Result]


def published_encoder(store: Store, ranker: object, indexing: IndexerConfig, *_: object) -> str:
    """Stands in for the tuning: an encoder of the configured one that has seen half of the judged queries."""
    seen = {"queries_below": 0.5, "events_before": 0.0}
    base = fingerprint(resolve(indexing.encoder))
    return store.publish("encoders", lambda _: {"base": base, "seconds": 12.5, **seen})


@pytest.fixture
def run(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command over a copy of the trained store; the configuration is in the environment."""
    made = copied(trained, tmp_path)
    content = (
        f'store = "store"\n[indexer]\ncatalogue = "{made.settings.indexer.catalogue}"\ndevice = "cpu"\n'
        f'[ranker]\nevents = "{made.settings.ranker.events}"\nspace = 16\ntower_epochs = 1\nnetwork_epochs = 1\n'
        'trees = 5\nleaves = 7\ncandidates = 60\ndevice = "cpu"\n'
    )
    (tmp_path / "vitrine.toml").write_text(content)
    monkeypatch.setenv("VITRINE_CONFIG", str(tmp_path / "vitrine.toml"))
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(
        tuned, "load_encoder", lambda _, of=None, kept=None: hash_encoder(of["id"] if of else "hash", tuned=of)
    )
    for module in (commands, job):
        monkeypatch.setattr(module, "tune_encoder", published_encoder)

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return invoke


def test_a_sample_shop_is_the_same_by_its_seed(run: Run, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        result = run(
            "sample",
            "--products",
            "60",
            "--users",
            "20",
            "--sessions",
            "50",
            "--seed",
            seed,
            "-o",
            str(tmp_path / name),
        )
        assert result.exit_code == 0
        assert "products" in result.output
    tables = [pl.read_parquet(tmp_path / name / "products.parquet") for name in "abc"]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])
    assert json.loads((tmp_path / "a" / "import.json").read_text())["counts"]["products"] == 60


@pytest.mark.parametrize("words", [("--products", "5"), ("--seed", "-1"), ("--sessions", "0"), ("--colour", "red")])
def test_a_sample_that_cannot_be_made(run: Run, words: tuple[str, str]) -> None:
    assert run("sample", *words).exit_code == 2


def test_an_unknown_format_names_the_known(run: Run, tmp_path: Path) -> None:
    result = run("import", "ebay", str(tmp_path))
    assert isinstance(result.exception, InputError)
    assert "There is no format 'ebay'. Known: " in str(result.exception)
    assert "movielens" in str(result.exception)
    assert result.exception.exit_code == 3
    assert isinstance(run("import", "movielens", str(tmp_path / "gone")).exception, InputError)


def test_an_index_is_built_listed_and_verified(run: Run, trained: Trained, tmp_path: Path) -> None:
    built = run("index", "build")
    assert built.exit_code == 0, built.exception
    listed = json.loads(run("index", "list", "--json").output)
    assert [entry["counts"]["products"] for entry in listed] == [600, 600]
    # What the last index holds of the same titles is not embedded again.
    assert listed[1]["counts"]["embedded"] == 0
    assert listed[1]["id"] in run("index", "list").output
    assert "every file is as it was written" in run("index", "verify").output
    path = tmp_path / "store" / "indexes" / listed[0]["id"] / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-1])
    broken = run("index", "verify", listed[0]["id"])
    assert isinstance(broken.exception, SnapshotError)
    assert "vectors.npy has changed" in str(broken.exception)
    assert run("index", "verify").exit_code == 0


def test_an_index_takes_upserts_up(run: Run, trained: Trained, tmp_path: Path) -> None:
    with closing(SqliteJournal(tmp_path / "store" / FILE)) as journal:
        journal.upsert([Upsert("new", round((time.time() + 100) * 1e6), {"title": "zirconium teapot"})])
    assert run("index", "build").exit_code == 0
    assert "new" in open_latest(Store(tmp_path / "store"), trained.settings.indexer).row_of


def test_train_evaluate_and_release(run: Run) -> None:
    trained = run("train")
    assert trained.exit_code == 0, trained.exception
    assert "95 % bootstrap interval" in trained.output
    report = json.loads(run("evaluate", "--json").stdout)
    assert report["chosen"] in {row["scorer"] for row in report["table"]}
    made = run("release", "create", "--note", "with [brackets] and [/more]")
    assert "Make it live: vitrine release promote 2" in made.output.replace("\n", " ")
    listed = json.loads(run("release", "list", "--json").output)
    assert (listed["live"], [r["number"] for r in listed["releases"]]) == (1, [1, 2])
    assert "with [brackets] and [/more]" in run("release", "list").output
    assert "Release 2 is live." in run("release", "promote", "2").output
    assert "Release 1 is live." in run("release", "rollback").output
    assert isinstance(run("release", "rollback").exception, SnapshotError)
    assert isinstance(run("release", "promote", "9").exception, SnapshotError)
    assert run("release", "promote", "nine").exit_code == 2


def test_a_tuned_encoder_is_built_with_trained_with_and_evaluated_with(run: Run, tmp_path: Path) -> None:
    made = run("train", "encoder")
    assert made.exit_code == 0, made.exception
    store = Store(tmp_path / "store")
    (name,) = store.ids("encoders")
    assert f"Encoder {name}, tuned in 12.5 s." in made.output
    assert "`vitrine rebuild`, or `vitrine index build` and `vitrine train`" in made.output.replace("\n", " ")
    # The newest index is not of it yet.
    assert run("train", "model").exit_code == 0
    assert store.manifest("models", store.latest("models"))["encoder"] == hash_encoder().fingerprint
    assert f"tuned {name}" in run("index", "build").output
    assert run("train").exit_code == 0
    assert store.manifest("models", store.latest("models"))["encoder"] == hash_encoder(name).fingerprint
    assert json.loads(run("evaluate", "--json").stdout)["requests"] > 0


def test_a_rebuild_tunes_first_if_told_to(run: Run, tmp_path: Path) -> None:
    result = run("rebuild", "--quiet", "--tune")
    assert result.exit_code == 0, result.exception
    done = [line["step"] for line in map(json.loads, result.stderr.splitlines()) if line["state"] == "done"]
    assert done.index("tune encoder") < done.index("encoder") < done.index("build")
    store = Store(tmp_path / "store")
    (name,) = store.ids("encoders")
    assert store.manifest("indexes", store.latest("indexes"))["encoder"]["tuned"]["id"] == name


def test_an_encoder_that_is_not_to_be_used_is_told(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "vitrine.toml"
    path.write_text(path.read_text().replace("[indexer]", "[indexer]\ntuned = false"))
    assert "indexer.tuned = false" in run("train", "encoder").output


def test_another_encoder_than_the_indexs_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned, "load_encoder", lambda *_: hash_encoder("other"))
    for words in (("train",), ("evaluate",)):
        result = run(*words)
        assert isinstance(result.exception, SnapshotError)
        assert "fingerprint-other" in str(result.exception)


def test_the_whole_job_and_its_log(run: Run, tmp_path: Path) -> None:
    result = run("rebuild", "--quiet", "--note", "nightly")
    assert result.exit_code == 0, result.exception
    steps = [json.loads(line) for line in result.stderr.splitlines()]
    assert (steps[-1]["step"], steps[-1]["release"]) == ("rebuild", 2)
    assert result.stdout == ""
    run("rebuild", "--quiet", "--log", str(tmp_path / "job.jsonl"))
    assert json.loads((tmp_path / "job.jsonl").read_text().splitlines()[-1])["step"] == "rebuild"
    loud = run("rebuild")
    assert loud.exit_code == 0
    assert "release 4: test slice" in loud.output
    assert sum(line.startswith("{") and bool(json.loads(line)) for line in loud.stderr.splitlines()) == len(steps)


def test_a_refresh_brings_the_catalogue_live_and_says_so(run: Run, trained: Trained, tmp_path: Path) -> None:
    stays = run("refresh")
    assert (stays.exit_code, stays.stdout) == (0, "Release 1 stays live: no product has changed.\n")
    config, catalogue = tmp_path / "vitrine.toml", tmp_path / "products.parquet"
    config.write_text(config.read_text().replace(str(trained.settings.indexer.catalogue), str(catalogue)))
    products = trained.dump.products
    products[2:].with_columns(price=pl.col("price").round(1)).write_parquet(catalogue)
    told = run("refresh", "--note", "noon")
    assert told.exit_code == 0, told.exception
    assert "Release 2 is live: 0 products are new, 2 gone, " in told.stdout
    steps = [line for line in told.stderr.splitlines() if line.startswith("{")]
    assert json.loads(steps[-1])["dropped"] == 2
    listed = run("release", "list").output
    assert "noon" in listed
    assert f"carried from {trained.release.model}" in listed
    figures = [r["gate"]["ndcg"] for r in json.loads(run("release", "list", "--json").output)["releases"]]
    assert figures[0] == figures[1]
    quiet = run("refresh", "--quiet", "--log", str(tmp_path / "job.jsonl"))
    assert (quiet.exit_code, quiet.output) == (0, "")
    assert json.loads((tmp_path / "job.jsonl").read_text().splitlines()[-1])["state"] == "unchanged"


def test_a_carried_model_is_evaluated_as_what_it_is(run: Run, trained: Trained, tmp_path: Path) -> None:
    config, catalogue = tmp_path / "vitrine.toml", tmp_path / "products.parquet"
    first = json.loads(run("evaluate", "--json").stdout)
    config.write_text(config.read_text().replace(str(trained.settings.indexer.catalogue), str(catalogue)))
    trained.dump.products.with_columns(shelf=pl.lit("A")).write_parquet(catalogue)
    assert run("refresh", "--quiet").exit_code == 0
    again = run("evaluate", "--json")
    assert f"was carried from {trained.release.model}" in again.stderr
    # A column that no feature reads: the figures of the trained model.
    assert json.loads(again.stdout) == first


def test_without_a_log_the_commands_say_what_is_missing(run: Run, trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "vitrine.toml"
    path.write_text(path.read_text().replace(f'events = "{trained.settings.ranker.events}"\n', ""))
    missing = (
        "has no ranking: the log is too short to learn a ranking from (slice members has 0 requests, 20 are needed): "
        "hits come in recall order until the next rebuild."
    )
    taught = run("train")
    assert taught.exit_code == 0, taught.exception
    assert taught.stdout.startswith("model ")
    assert taught.stdout.endswith(f" {missing}\n")
    nothing = run("evaluate")
    assert isinstance(nothing.exception, InputError)
    assert "Nothing to evaluate: model " in str(nothing.exception)
    refused = run("rebuild", "--quiet")
    assert isinstance(refused.exception, GateError)
    assert refused.exception.exit_code == 6
    meant = run("rebuild", "--unranked")
    assert (meant.exit_code, meant.stdout) == (0, f"release 2 {missing}\n")
    assert "unranked" in run("release", "list").output
    listed = json.loads(run("release", "list", "--json").output)
    assert (listed["live"], [r["gate"]["ndcg"] is None for r in listed["releases"]]) == (2, [False, True])


def test_two_jobs_exclude_each_other(run: Run, trained: Trained, tmp_path: Path) -> None:
    with trained.store.__class__(tmp_path / "store").locked("rebuild"):
        for words in (
            ("rebuild", "--quiet"),
            ("refresh", "--quiet"),
            ("train",),
            ("train", "encoder"),
            ("index", "build"),
        ):
            result = run(*words)
            assert isinstance(result.exception, LockedError)
            assert result.exception.exit_code == 5


def test_the_configuration_is_shown(run: Run, tmp_path: Path) -> None:
    shown = run("config", "show").output
    assert "server.ranking_budget_ms" in shown
    assert "ranker.candidates" in shown
    told = json.loads(run("config", "show", "--json").output)
    assert told["store"] == str(tmp_path / "store")
    assert told["ranker"]["candidates"] == 60
    (tmp_path / "vitrine.toml").write_text("[server]\nprot = 1")
    result = run("config", "show")
    assert isinstance(result.exception, ConfigError)
    assert "Did you mean server.port?" in str(result.exception)
