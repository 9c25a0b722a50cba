"""vitrine.toml: what is unknown or wrong is named, and paths are the file's own."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from indexer.errors import ConfigError
from server.cli import app
from server.config import Settings, load_settings


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "vitrine.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_an_empty_file_is_the_defaults_beside_it(tmp_path: Path) -> None:
    settings, default = load_settings(written(tmp_path, "")), Settings.model_validate({})
    assert settings.server == default.server
    assert settings.store == tmp_path / "store"
    assert settings.indexer.catalogue == tmp_path / "data" / "products.parquet"
    assert (settings.ranker.events, settings.ranker.judgments) == (None, None)
    assert settings.indexer.encoder == default.indexer.encoder


def test_relative_paths_belong_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    written(
        tmp_path / "shop",
        'store = "../s"\n[indexer]\ncatalogue = "c.csv"\nencoder = "./model"\n'
        '[ranker]\nevents = "/logs/e.parquet"\njudgments = "j.parquet"\n[server]\nrules = "rules.toml"\n',
    )
    monkeypatch.chdir(tmp_path)
    settings = load_settings(Path("shop/vitrine.toml"))
    folder = tmp_path / "shop"
    assert settings.store.resolve() == tmp_path / "s"
    assert settings.indexer.catalogue == folder / "c.csv"
    assert Path(settings.indexer.encoder) == folder / "model"
    assert settings.ranker.events == Path("/logs/e.parquet")
    assert settings.ranker.judgments == folder / "j.parquet"
    assert settings.server.rules == folder / "rules.toml"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('stor = "x"', r"stor: unknown key\. Did you mean store\? Known: store, journal, indexer, ranker, server"),
        ("[sever]\nport = 1", r"sever: unknown key\. Did you mean server\?"),
        ("[server]\nprot = 1", r"server\.prot: unknown key\. Did you mean server\.port\?"),
        ("[server]\nzzzz = 1", r"server\.zzzz: unknown key\. Did you mean server\."),
        ("[ranker]\nevent = 1", r"ranker\.event: unknown key\. Did you mean ranker\.events\?"),
        ("[indexer]\nencodr = 'x'", r"indexer\.encodr: unknown key\. Did you mean indexer\.encoder\?"),
        ("[server]\nport = 'many'", r"server\.port: .*integer.* \(got 'many'\)"),
        ("[server]\nport = 70000", r"server\.port: .*65535 \(got 70000\)"),
        ("[server]\nclock = 'sun'", r"server\.clock: .*\(got 'sun'\)"),
        ("server = 3", r"server: .*\(got 3\)"),
        ("[indexer.columns]\nname = 'x'", r"indexer\.columns: .*name is not one of the canonical columns"),
        ("[server", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        ("[server]\nprot = 1\nport = 'x'\n[ranker]\ntrees = 0", r"(?s)server\.port.*server\.prot|ranker\.trees"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load_settings(written(tmp_path, content))
    assert "vitrine.toml" in str(caught.value)
    assert caught.value.exit_code == 2


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(written(tmp_path, "x = 1\n[server]\nprot = 1\nport = 'x'\n[ranker]\ntrees = 0"))
    assert all(name in str(caught.value) for name in ("  x:", "server.prot", "server.port", "ranker.trees"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml cannot be read: .* Give another file with --config"):
        load_settings(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_settings(tmp_path)


def test_a_journal_is_a_file_of_the_store_or_a_database(tmp_path: Path) -> None:
    assert not load_settings(written(tmp_path, "")).journal
    for uri in (
        "postgresql://ann@db.example:5433/shop?sslmode=verify-full",
        "postgres://",
        "postgresql:///shop?host=/run",
    ):
        assert load_settings(written(tmp_path, f"journal = '{uri}'")).journal.get_secret_value() == uri


@pytest.mark.parametrize(
    ("journal", "says"),
    [
        ("'journal.sqlite'", "must be empty or a connection URI, postgresql://user@host/database"),
        ("'redis://ann:sesame@db/0'", "must be empty or a connection URI"),
        ("'://ann:sesame@db/shop'", "must be empty or a connection URI"),
        ("'host=db password=sesame'", "must be empty or a connection URI"),
        ("'postgresql://ann:ses@me@db/shop'", "write them as %2F, %3F, %40"),
        ("'postgresql://ann:ses/ame@db/shop'", "write them as %2F, %3F, %40"),
        ("'postgresql://ann:ses?ame@db/shop'", "write them as %2F, %3F, %40"),
        ("3", "journal: .*string"),
        ("['postgresql://ann:sesame@db/shop']", "journal: .*string"),
    ],
)
def test_a_journal_that_is_neither_is_refused_and_not_repeated(tmp_path: Path, journal: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load_settings(written(tmp_path, f"journal = {journal}"))
    assert "ses" not in str(caught.value)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    path = written(tmp_path, "journal = 'postgresql://ann:sesame@db.example/shop'")
    shown = [
        CliRunner().invoke(app, ["config", "show", "--config", str(path), *more]).output for more in ([], ["--json"])
    ]
    for told in (*shown, repr(load_settings(path))):
        assert "sesame" not in told
        assert "journal" in told
        assert "**********" in told


@pytest.mark.parametrize(("given", "held"), [("::1", "[::1]"), ("[::1]", "[::1]"), ("0.0.0.0", "0.0.0.0")])
def test_a_port_can_follow_an_address(given: str, held: str) -> None:
    assert Settings.model_validate({"server": {"address": given}}).server.address == held
