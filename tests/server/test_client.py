"""The commands that ask a running server: tables for people, JSON for programs, and what to do where none answers."""

import json
from typing import Any

import pytest
from harness import Running, Trained, hash_encoder, make_trained
from rich.console import Console
from typer.testing import CliRunner, Result

from indexer.canonical import Dump
from indexer.errors import ConfigError
from indexer.sample.shop import make_shop
from server import answers, client
from server.cli import app
from server.client import ServerError


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table as wide as its content."""
    monkeypatch.setenv("COLUMNS", "300")


def run(server: Running, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--address", server.address], catch_exceptions=False)


def test_a_search_as_a_table(server: Running) -> None:
    result = run(server, "search", "red boots", "-n", "5")
    assert result.exit_code == 0
    assert "search “red boots”" in result.output
    assert "dense" in result.output
    assert "120 candidates" in result.output
    assert all(stage in result.output for stage in ("encode", "recall", "features", "score", "page"))


def test_a_mended_query_is_told(server: Running) -> None:
    assert (
        "searched “leather boots”: no product has all words as they were typed"
        in run(server, "search", "laether boots").output
    )
    assert "searched" not in run(server, "search", "red boots").output


def test_recommendations_as_a_table(server: Running) -> None:
    user = next(iter(server.live.state.behaviour.users))
    assert "history" in run(server, "recommend", user, "-n", "50").output
    stranger = run(server, "recommend", "nobody knows")
    assert "Nothing is known of this user" in stranger.output
    product = server.live.state.snapshot.ids[0]
    seen = run(server, "recommend", "nobody knows", "--recent", product, "--recent", product)
    assert "Nothing is known" not in seen.output


def test_similar_products_and_the_status_as_tables(server: Running) -> None:
    product = server.live.state.snapshot.ids[0]
    assert f"similar to {product}" in run(server, "similar", product).output
    told = run(server, "status").output
    assert server.live.state.snapshot.id in told
    assert "journal_sequence" in told or "index_kind" in told


def test_suggestions_as_a_table(server: Running) -> None:
    brand = server.live.state.snapshot.products.column("brand").to_pylist()[0]
    told = run(server, "suggest", brand[:4])
    assert told.exit_code == 0
    assert f"suggestions for “{brand[:4]}”" in told.output
    assert brand in told.output
    assert "asked before" in run(server, "suggest").output


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("suggest", "-n", "3"), {"queries", "values"}),
        (("search", "boots"), {"hits", "info", "nextPageToken"}),
        (("recommend", "u"), {"hits", "info", "nextPageToken", "fallback"}),
        (("similar",), {"hits", "info", "nextPageToken"}),
        (("status",), {"versions", "products", "filterColumns"}),
    ],
)
def test_json_for_programs(server: Running, words: tuple[str, ...], names: set[str]) -> None:
    extra = (server.live.state.snapshot.ids[0],) if words == ("similar",) else ()
    assert names <= set(json.loads(run(server, *words, *extra, "--json").output))


def test_filters_are_sent(server: Running) -> None:
    category = server.live.state.snapshot.products.column("category").to_pylist()[0]
    result = run(
        server, "search", "boots", "--max-price", "60", "--category", category, "--in-stock", "--json", "-n", "100"
    )
    for hit in json.loads(result.output).get("hits", []):
        product = hit["product"]
        assert (product["category"], product["inStock"]) == (category, True)
        assert product["price"] <= 60
    assert "no candidate" in run(server, "search", "boots", "--category", "none such").output


@pytest.mark.parametrize("words", [("search", "boots"), ("recommend", "nobody knows")])
def test_an_order_is_sent(server: Running, words: tuple[str, ...]) -> None:
    found = json.loads(run(server, *words, "-n", "100", "--order-by", "price", "--descending", "--json").output)["hits"]
    prices = [hit["product"]["price"] for hit in found if "price" in hit["product"]]
    assert len(found) == 50
    assert prices == sorted(prices, reverse=True)
    with pytest.raises(ConfigError, match="--descending needs --order-by"):
        run(server, *words, "--descending")


def test_a_refusal_names_the_fields(server: Running) -> None:
    with pytest.raises(ServerError) as caught:
        run(server, "search", " ", "-n", "-1")
    assert "INVALID_ARGUMENT" in str(caught.value)
    assert "\n  query: is empty" in str(caught.value)
    assert "\n  page_size: is negative" in str(caught.value)
    with pytest.raises(ServerError, match="NOT_FOUND: there is no product 'gone'"):
        run(server, "similar", "gone")
    assert caught.value.exit_code == 7


def test_no_server_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real = client.grpc.channel_ready_future

    class Hurried:
        def __init__(self, channel: Any) -> None:
            self._future = real(channel)

        def result(self, timeout: float) -> Any:
            try:
                return self._future.result(timeout=min(timeout, 0.2))
            finally:
                self._future.cancel()

    monkeypatch.setattr(client.grpc, "channel_ready_future", Hurried)
    result = CliRunner().invoke(app, ["status", "--address", "127.0.0.1:1"])
    assert isinstance(result.exception, ServerError)
    assert "No server answers at 127.0.0.1:1. Start one with `vitrine serve`" in str(result.exception)
    assert result.exception.exit_code == 7


def test_brackets_in_titles_are_titles(monkeypatch: pytest.MonkeyPatch, server: Running) -> None:
    """Shops write sizes and stock notes in brackets; rich would take them for markup."""
    title = "Cable [/2m] [bold]new[/bold] :smile: \\[x]"
    response = server.search(client.search_service_pb2.SearchRequest(query="boots", page_size=1))
    response.hits[0].product.title = title
    console = Console(markup=client.out._markup, emoji=client.out._emoji, width=200, record=True)
    monkeypatch.setattr(client, "out", console)
    answers.show(client.out, response, "search “[/x]”", 0.1)
    assert title in console.export_text()


def test_a_shop_without_prices_is_printed(loop: Any, tmp_path: Any) -> None:
    dump = make_shop(300, sessions=1_500)
    bare = Dump(dump.products.select("product_id", "title"), dump.events, dump.judgments)
    small: dict[str, Any] = {"trees": 5, "tower_epochs": 1, "network_epochs": 1}
    made: Trained = make_trained(bare, tmp_path, hash_encoder(), **small)
    with Running(made, loop) as running:
        assert "dense" in run(running, "search", "boots").output
