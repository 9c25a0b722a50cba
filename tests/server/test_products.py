"""One product of a running server, shown and changed from the command line."""

import json
from collections.abc import Callable

import pytest
from harness import Running
from typer.testing import CliRunner, Result

from indexer.errors import ConfigError
from server.cli import app
from server.client import ServerError


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table as wide as its content."""
    monkeypatch.setenv("COLUMNS", "300")


@pytest.fixture
def live(start: Callable[..., Running]) -> Running:
    """A server of the test's own."""
    return start()


def run(server: Running, *words: str) -> Result:
    return CliRunner().invoke(app, ["product", *words, "--address", server.address], catch_exceptions=False)


def test_a_product_is_set_and_shown(live: Running) -> None:
    product = live.live.state.snapshot.ids[0]
    assert run(live, "set", product, "--price", "12.5", "--out-of-stock").output == f"{product} is set.\n"
    shown = json.loads(run(live, "show", product, "--json").output)
    assert (shown["id"], shown["price"], shown["inStock"]) == (product, 12.5, False)
    run(live, "set", product, "--in-stock")
    table = run(live, "show", product).output
    assert all(text in table for text in (product, shown["title"], "12.5", "in_stock", "True"))
    assert "products_with_live_inventory" in CliRunner().invoke(app, ["status", "--address", live.address]).output


def test_products_are_deleted(live: Running) -> None:
    p, q = live.live.state.snapshot.ids[:2]
    assert run(live, "delete", p).output == "Products deleted: 1; deleted before: 0.\n"
    assert run(live, "delete", p, q).output == "Products deleted: 1; deleted before: 1.\n"
    with pytest.raises(ServerError, match=f"NOT_FOUND: there is no product '{p}'") as caught:
        run(live, "show", p)
    assert caught.value.exit_code == 7


def test_an_unknown_product_is_told(live: Running) -> None:
    told = run(live, "set", "[gone]", "--price", "1").output
    assert told == "The live release does not hold '[gone]'. It is kept, and counts once a release does.\n"
    told = run(live, "delete", "[gone]").output
    assert "The live release does not hold '[gone]'. A release of an older catalogue will not list it." in told


def test_something_must_be_set(live: Running) -> None:
    with pytest.raises(ConfigError, match="--price, --in-stock or --out-of-stock") as caught:
        run(live, "set", "p")
    assert caught.value.exit_code == 2
    for price in ("-1", "nan", "cheap"):
        assert run(live, "set", "p", "--price", price).exit_code == 2
    with pytest.raises(ServerError, match=r"items\[0\]\.price: is not a finite number"):
        run(live, "set", "p", "--price", "inf")
    assert live.live.journal.changes() == []
