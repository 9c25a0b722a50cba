"""The file of rules while a server runs: changes count, faults are told, and what a release cannot follow waits."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from harness import Running, SearchRequest, Trained, copied, ids, wait_until
from shops import with_catalogue
from vitrine.v1 import admin_service_pb2

from indexer import tuned
from indexer.errors import ConfigError
from server.live import Live
from server.rulebook import Rulebook
from server.rules import NOTHING

Serve = Callable[..., Running]
COLUMNS = {"brand": "string"}


def pin(product: str, name: str = "r") -> str:
    return f'[[rule]]\nname = "{name}"\npin = ["{product}"]\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rules.toml"


@pytest.fixture
def made(trained: Trained, tmp_path: Path, path: Path) -> Trained:
    """A store of the test's own, whose settings name the file of rules."""
    return copied(trained, tmp_path, rules=path)


def status(server: Running) -> tuple[int, list[str]]:
    told = server.status(admin_service_pb2.GetStatusRequest())
    return told.rules, list(told.rules_faults)


def first(server: Running) -> str:
    return ids(server.search(SearchRequest(query="boots", page_size=1)))[0]


def test_a_changed_file_counts_without_a_restart(start: Serve, made: Trained, path: Path) -> None:
    one, other = made.dump.products["product_id"][:2]
    path.write_text(pin(one))
    server = start(made)
    assert (first(server), status(server)) == (one, (1, []))
    path.write_text(pin(other, "other") + pin(one, "one"))
    wait_until(lambda: first(server) == other)
    assert status(server) == (2, [])
    path.write_text("")
    wait_until(lambda: status(server) == (0, []))
    assert first(server) != other


def test_every_worker_looks_itself(start: Serve, made: Trained, path: Path) -> None:
    one, other = made.dump.products["product_id"][:2]
    path.write_text(pin(one))
    server, second = start(made), Live(made.store, made.settings, lambda _: made.encoder, made.release)
    path.write_text(pin(other))
    wait_until(lambda: first(server) == other)
    columns = second.state.columns
    assert list(second.rulebook.applied(columns, "search", "boots").pins) == [one]
    second.reread_rules()
    assert list(second.rulebook.applied(columns, "search", "boots").pins) == [other]
    second.journal.close()


def test_a_faulty_file_leaves_the_rules_from_before_and_is_told_once(
    start: Serve, made: Trained, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = made.dump.products["product_id"][:2]
    path.write_text(pin(one))
    server = start(made)
    with caplog.at_level(logging.WARNING):
        path.write_text(pin(other) + "boots = 3\n")
        wait_until(lambda: bool(status(server)[1]))
        [fault] = status(server)[1]
        assert "rules.toml cannot be used" in fault
        assert "rule 'r': boots: unknown key" in fault
        assert (first(server), status(server)[0]) == (one, 1)
        time.sleep(0.3)
        assert caplog.text.count("unknown key") == caplog.text.count("The rules from before stay in force") == 1
        path.unlink()
        wait_until(lambda: "cannot be read" in status(server)[1][0])
        assert first(server) == one
    path.write_text(pin(other))
    wait_until(lambda: status(server) == (1, []))
    assert first(server) == other


def test_a_faulty_file_stops_the_start(made: Trained, path: Path) -> None:
    for content in (None, "[[rule]]\nname = 'r'\n"):
        if content:
            path.write_text(content)
        with pytest.raises(ConfigError, match=r"rules\.toml cannot be") as caught:
            Live(made.store, made.settings, lambda _: made.encoder, made.release)
        assert caught.value.exit_code == 2


def test_a_rule_waits_for_a_release_that_has_its_column(
    start: Serve,
    made: Trained,
    path: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuned, "load_encoder", lambda *_: made.encoder)
    shop = with_catalogue(made, tmp_path)
    on_shelf = shop.products["product_id"][5]
    path.write_text('[[rule]]\nname = "r"\nonly = { shelf = "A" }\n' + pin(on_shelf, "p"))
    with caplog.at_level(logging.WARNING):
        server = start(shop.made)
        rules, [fault] = status(server)
        assert (rules, fault.startswith("r: there is no column 'shelf'; there are: brand")) == (1, True)
        assert caplog.text.count("a rule is out of force: r: there is no column 'shelf'") == 1
        # It is no fault of a request.
        answer = server.search(SearchRequest(query="boots"))
        assert [rule.name for rule in answer.info.applied_rules] == ["p"]
        shelf = pl.when(pl.col("product_id") == on_shelf).then(pl.lit("A")).otherwise(pl.lit("B"))
        shop.stock(shop.products.with_columns(shelf=shelf))
        later, _ = shop.refresh()
        server.swap(later)
        assert status(server) == (2, [])
        assert ids(server.search(SearchRequest(query="boots"))) == [on_shelf]
        # Back to the release that lacks it: told again.
        server.swap(made.release)
        assert (status(server)[0], caplog.text.count("there is no column 'shelf'")) == (1, 2)
        assert len(ids(server.search(SearchRequest(query="boots")))) == 24


def test_the_status_counts_what_is_in_force_now(start: Serve, made: Trained, path: Path) -> None:
    windows = ("from = 2999-01-01", "until = 2001-01-01", "from = 2001-01-01\nuntil = 2999-01-01", "")
    path.write_text("".join(pin("p", f"r{i}") + f"{window}\n" for i, window in enumerate(windows)))
    server = start(made)
    assert status(server) == (2, [])
    assert [rule.name for rule in server.search(SearchRequest(query="boots")).info.applied_rules] == ["r2", "r3"]


def test_without_a_file_there_is_nothing() -> None:
    book = Rulebook(None)
    assert book.applied(COLUMNS, "search", "boots") is NOTHING
    assert (book.reread(), book.faults(COLUMNS), book.of(COLUMNS).in_force(0.0)) == (False, [], 0)


def test_rules_are_held_against_columns_once(path: Path) -> None:
    path.write_text('[[rule]]\nname = "r"\nhide = { brand = "x" }\n')
    book = Rulebook(path)
    held = book.of(COLUMNS)
    assert book.of(COLUMNS) is held
    other = {"maker": "string"}
    assert [bool(rules.faults) for rules in (held, book.of(other), book.of(COLUMNS))] == [False, True, False]


def test_a_file_of_another_time_is_read_and_one_of_the_same_is_not(path: Path) -> None:
    path.write_text(pin("a"))
    book = Rulebook(path)
    assert not book.reread()
    os.utime(path, ns=(1, 1))
    assert book.reread()
    assert not book.reread()
