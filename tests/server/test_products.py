"""One product of a running server, shown and changed from the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import Running
from typer.testing import CliRunner, Result

from indexer.errors import ConfigError, InputError
from server import amendments, product_file, products
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


def catalogue(folder: Path, *rows: str) -> str:
    path = folder / "new.csv"
    path.write_text("\n".join(("product_id,name,price,colour", *rows)), encoding="utf-8")
    return str(path)


def test_a_file_of_products_is_upserted(live: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amendments, "MOST_CHANGED", 1)
    held = live.live.state.snapshot.ids[:2]
    path = catalogue(tmp_path, "[new],zirconium teapot,9.50,42", *(f"{product},iron kettle,1," for product in held))
    told = run(live, "upsert", path, "--column", "title=name").output
    assert told.startswith(
        "Products written: 3; outdated: 0; pending: 1.\nWhat is pending comes with `vitrine refresh`: so many"
    )
    titles = [json.loads(run(live, "show", product, "--json").output)["title"] for product in held]
    assert (titles[0], titles[1] == "iron kettle") == ("iron kettle", False)
    shown = json.loads(run(live, "show", "[new]", "--json").output)
    assert (shown["title"], shown["price"], shown["attributes"]) == (
        "zirconium teapot",
        9.5,
        {"colour": {"stringValue": "42"}},
    )
    path = catalogue(tmp_path, "[new],zirconium teapot,8,")
    told = run(live, "upsert", path, "--column", "title=name").output
    assert told == "Products written: 1; outdated: 0; pending: 0.\n"


def test_a_row_that_cannot_be_used_keeps_all_others_back(live: Running, tmp_path: Path) -> None:
    path = catalogue(tmp_path, "new,zirconium teapot,9.50,", "newer,,,")
    with pytest.raises(InputError, match=r"1 of 2 rows of .* nothing was sent.*\n  line 3 \(newer\): empty") as caught:
        run(live, "upsert", path, "--column", "title=name")
    assert caught.value.exit_code == 3
    assert live.live.journal.upserts() == []
    with pytest.raises(ConfigError, match="--column name=title"):
        run(live, "upsert", path, "--column", "name=title")
    assert run(live, "upsert", str(tmp_path / "missing.csv")).exit_code == 2


def test_a_file_that_the_server_refuses_says_how_far_it_got(
    live: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_file, "MOST_PRODUCTS", 2)
    path = catalogue(tmp_path, *(f"n{i},zirconium teapot,1," for i in range(5)))
    real = products.call

    def refused(server: Any, stub: Any, method: str, request: Any) -> Any:
        if method == "UpsertProducts" and request.items[0].product.id == "n4":
            request.items[0].product.title = ""
        return real(server, stub, method, request)

    monkeypatch.setattr(products, "call", refused)
    with pytest.raises(
        ServerError, match=r"title: is empty.*\nThe first 4 products of .*new\.csv are written"
    ) as caught:
        run(live, "upsert", path, "--column", "title=name")
    assert caught.value.exit_code == 7
    assert len(live.live.journal.upserts()) == 4


def test_a_column_that_the_release_does_not_have_is_refused(live: Running, tmp_path: Path) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text('{"product_id": "new", "title": "zirconium teapot", "size": 42}\n', encoding="utf-8")
    with pytest.raises(ServerError) as caught:
        run(live, "upsert", str(path))
    assert "items[0].product.attributes[size]: the live release has no such column" in str(caught.value)
    assert "are written" not in str(caught.value)
