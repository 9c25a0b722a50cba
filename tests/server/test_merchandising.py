"""Rules of a merchandiser, as callers see them: what they do to answers, and to those of several pages."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import (
    RecommendRequest,
    Running,
    SearchRequest,
    SimilarRequest,
    Trained,
    at_most,
    channels,
    content,
    copied,
    equals,
    ids,
    refusal,
)
from vitrine.v1 import catalog_service_pb2, facet_pb2, product_pb2
from vitrine.v1.diversity_pb2 import Diversity
from vitrine.v1.event_pb2 import Event
from vitrine.v1.filter_pb2 import Filter
from vitrine.v1.order_pb2 import OrderBy

from ranker.history import PURCHASE
from server.state import State

QUERY = "boots"
Serve = Callable[..., Running]


@pytest.fixture
def serve(start: Serve, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Starts a server with the given rules; its clock stands still, so that answers can be compared."""
    monkeypatch.setattr(State, "now", lambda _: 1.8e9)

    def begin(*rules: str) -> Running:
        path = tmp_path / "rules.toml"
        path.write_text("".join(f"[[rule]]\nname = {f'r{i}'!r}\n{rule}\n" for i, rule in enumerate(rules)))
        return start(copied(trained, tmp_path, rules=path))

    return begin


@pytest.fixture
def plain(server: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """The server without rules, under the same clock."""
    monkeypatch.setattr(State, "now", lambda _: 1.8e9)
    return server


def search(server: Running, query: str = QUERY, **more: Any) -> Any:
    return server.search(SearchRequest(query=query, **{"page_size": 10, **more}))


def applied(answer: Any) -> dict[str, list[str]]:
    """The applied rules, with what they pinned."""
    return {rule.name: list(rule.pinned_product_ids) for rule in answer.info.applied_rules}


def every(server: Running, **more: Any) -> list[Any]:
    """The hits of all pages of a search."""
    hits: list[Any] = []
    token = ""
    while not hits or token:
        answer = search(server, page_token=token, page_size=50, **more)
        hits, token = [*hits, *answer.hits], answer.next_page_token
    return hits


def names(hits: list[Any]) -> list[str]:
    return [hit.product.id for hit in hits]


def strangers(server: Running, number: int) -> list[str]:
    """Products that recall does not propose for the query."""
    found = set(names(every(server)))
    return [product for product in server.live.state.snapshot.ids if product not in found][:number]


def bought(server: Running) -> tuple[str, str]:
    """A user, and a product that the user bought."""
    state = server.live.state
    for user, history in state.behaviour.users.items():
        for row, kind in zip(history.rows, history.kinds, strict=True):
            if kind == PURCHASE:
                return user, state.snapshot.ids[row]
    raise AssertionError("nobody bought anything")


def test_without_a_rule_that_holds_nothing_changes(serve: Serve, plain: Running) -> None:
    ruled = serve('queries = ["lamp"]\nhide = { category = "Boots" }', "from = 2999-01-01\npin = ['x']")
    answer = search(ruled)
    assert content(answer) == content(search(plain))
    assert (list(answer.info.applied_rules), answer.redirect_uri) == ([], "")


def test_pinned_products_come_first_on_whatever_page_and_the_rest_stays(serve: Serve, plain: Running) -> None:
    before = names(every(plain))
    pins = [before[30], *strangers(plain, 1), before[7]]
    ruled = serve(f"words = ['boot']\npin = {pins}")
    first = search(ruled, page_size=2)
    second = search(ruled, page_size=3, page_token=first.next_page_token)
    assert ids(first) == pins[:2]
    assert ids(second)[0] == pins[2]
    assert [hit.rank for hit in (*first.hits, *second.hits)] == [1, 2, 3, 4, 5]
    assert applied(first) == applied(second) == {"r0": pins}
    assert first.info.candidates == len(before) + 1
    found = names(every(ruled))
    assert found[:3] == pins
    assert sorted(found) == sorted({*before, *pins})


def test_a_pinned_product_that_was_recalled_leaves_all_else_as_it_was(serve: Serve, plain: Running) -> None:
    before = every(plain)
    pins = names(before)[9:11]
    after = every(serve(f"pin = {pins}"))
    assert names(after) == pins + [name for name in names(before) if name not in pins]
    scores = {hit.product.id: hit.score for hit in before}
    assert {hit.product.id: hit.score for hit in after} == pytest.approx(scores)


def test_a_pinned_product_that_was_not_recalled_is_ranked_and_explained_as_any(serve: Serve, plain: Running) -> None:
    [stranger] = strangers(plain, 1)
    hit = search(serve(f"pin = ['{stranger}']"), explain=True).hits[0]
    assert hit.product.id == stranger
    assert channels(hit) == set()
    assert hit.member_scores.recall == 0.0
    assert all(hit.member_scores.HasField(name) for name in ("network", "trees", "recall"))
    told = hit.explanation
    total = told.base + sum(each.contribution for each in told.contributions) + told.others
    assert total == pytest.approx(told.total, abs=1e-4)
    assert told.total == pytest.approx(hit.score, abs=1e-4)


def test_pins_pass_the_requests_filter_and_the_rules_own(serve: Serve, plain: Running) -> None:
    table = plain.live.state.snapshot.products
    rows = table.select(["product_id", "brand", "price"]).to_pylist()
    priced = sorted((row for row in rows if row["price"] is not None and row["brand"]), key=lambda row: row["price"])
    cheap, dear = priced[0], priced[-1]
    hidden = next(row for row in priced[1:] if row["brand"] not in (cheap["brand"], dear["brand"]))
    pins = [dear["product_id"], hidden["product_id"], cheap["product_id"]]
    ruled = serve(f"pin = {pins}", f"hide = {{ brand = {hidden['brand']!r} }}")
    assert ids(search(ruled))[:2] == [pins[0], pins[2]]
    answer = search(ruled, filter=at_most("price", dear["price"] - 0.01))
    assert ids(answer)[0] == pins[2]
    assert pins[0] not in ids(answer)
    assert applied(answer) == {"r0": [pins[2]], "r1": []}
    nothing = search(ruled, filter=equals("brand", "none such"))
    assert (ids(nothing), applied(nothing)) == ([], {"r0": [], "r1": []})


def test_deleted_unknown_and_new_products(serve: Serve, plain: Running) -> None:
    before = ids(search(plain))
    pins = [before[5], "unknown", "new", before[6]]
    ruled = serve(f"pin = {pins}")
    assert ids(search(ruled))[:2] == [before[5], before[6]]
    lamp = product_pb2.Product(id="new", title="zephyrix lamp")
    item = catalog_service_pb2.UpsertProductsRequest.Item(product=lamp)
    ruled.upsert(catalog_service_pb2.UpsertProductsRequest(items=[item]))
    assert ids(search(ruled))[:3] == [before[5], "new", before[6]]
    ruled.delete(catalog_service_pb2.DeleteProductsRequest(product_ids=[before[5]]))
    answer = search(ruled)
    assert ids(answer)[:2] == ["new", before[6]]
    assert before[5] not in ids(answer)
    assert applied(answer) == {"r0": ["new", before[6]]}
    again = search(ruled, filter=at_most("price", 1e9))
    assert ids(again)[0] == before[6]


def test_what_is_hidden_is_made_up_for_and_pages_stay_full(serve: Serve, plain: Running) -> None:
    brand, count = Counter(hit.product.brand for hit in every(plain)).most_common(1)[0]
    assert count > 1
    ruled = serve(f"hide = {{ brand = {brand!r} }}")
    hits = every(ruled)
    assert brand not in {hit.product.brand for hit in hits}
    assert len(hits) == len(every(plain)) == 120
    assert applied(search(ruled)) == {"r0": []}


@pytest.mark.parametrize("kind", ["search", "recommend", "similar"])
def test_only_what_is_asked_for_is_shown(serve: Serve, plain: Running, kind: str) -> None:
    state = plain.live.state
    category = Counter(state.snapshot.products.column("category").to_pylist()).most_common(1)[0][0]
    ruled = serve(f"on = ['{kind}']\nonly = {{ category = [{category!r}], price = {{ most = 60 }} }}")
    answers = {
        "search": search(ruled),
        "recommend": ruled.recommend(RecommendRequest(page_size=10)),
        "similar": ruled.similar(SimilarRequest(product_id=state.snapshot.ids[0], page_size=10)),
    }
    for each, answer in answers.items():
        shown = [hit.product.category == category and hit.product.price <= 60 for hit in answer.hits]
        assert len(shown) == 10
        assert all(shown) is (each == kind)
        assert bool(applied(answer)) is (each == kind)


def test_a_rules_filter_joins_the_requests(serve: Serve, plain: Running) -> None:
    category = Counter(plain.live.state.snapshot.products.column("category").to_pylist()).most_common(1)[0][0]
    ruled = serve("only = { price = { most = 60 } }")
    answer = search(ruled, filter=equals("category", category))
    assert len(answer.hits) == 10
    assert all(hit.product.category == category and hit.product.price <= 60 for hit in answer.hits)


def test_boosts_divide_places(serve: Serve, plain: Running) -> None:
    before = every(plain)
    (up, _), (down, _) = Counter(hit.product.brand for hit in before).most_common(2)
    moved = [f"{{ where = {{ brand = {brand!r} }}, times = {times} }}" for brand, times in ((up, 3), (down, 0.5))]
    again = f"boost = [{{ where = {{ brand = {up!r}, in_stock = true }}, times = 2 }}]"
    after = every(serve(f"boost = [{', '.join(moved)}]", again))

    def place(at: int, hit: Any) -> float:
        times = {up: 6.0 if hit.product.in_stock else 3.0, down: 0.5}.get(hit.product.brand, 1.0)
        return at / times

    placed = {hit.product.id: place(at, hit) for at, hit in enumerate(before, 1)}
    expected = sorted(names(before), key=lambda name: placed[name])
    assert expected != names(before)
    assert names(after) == expected
    scores = {hit.product.id: hit.score for hit in before}
    assert {hit.product.id: hit.score for hit in after} == pytest.approx(scores)


def test_diversity_comes_after_boosts_and_before_pins(serve: Serve, plain: Running) -> None:
    before = every(plain)
    brand_of = {hit.product.id: hit.product.brand for hit in before}
    up = next(brand for brand, count in Counter(brand_of.values()).items() if count > 3)
    pins = [name for name in brand_of if brand_of[name] == up][-2:]

    def boosted_first(order: list[str]) -> list[str]:
        placed = {name: at / (4.0 if brand_of[name] == up else 1.0) for at, name in enumerate(order, 1)}
        return sorted(order, key=lambda name: placed[name])

    def spread(order: list[str]) -> list[str]:
        seen: Counter[str] = Counter()
        rounds = {}
        for name in order:
            rounds[name] = seen[brand_of[name]]
            # A product without a brand is like no other.
            seen[brand_of[name]] += bool(brand_of[name])
        return sorted(order, key=lambda name: rounds[name])

    def pinned(order: list[str]) -> list[str]:
        return pins + [name for name in order if name not in pins]

    ruled = serve(f"boost = [{{ where = {{ brand = {up!r} }}, times = 4 }}]\npin = {pins}")
    found = names(every(ruled, diversity=Diversity(column="brand", most=1)))
    assert found == pinned(spread(boosted_first(names(before))))
    assert found != pinned(boosted_first(spread(names(before))))
    assert found != spread(pinned(boosted_first(names(before))))


def test_a_customers_own_order_goes_before_pins_and_boosts(serve: Serve, plain: Running) -> None:
    """What rules leave out stays out; what they only move is where the customer wants it, and they are not told."""
    before = every(plain)
    brand = Counter(hit.product.brand for hit in before[:20]).most_common(1)[0][0]
    ruled = serve(
        f"pin = {names(before)[8:10] + strangers(plain, 1)}",
        f"boost = [{{ where = {{ brand = {brand!r} }}, times = 9 }}]",
        f"hide = {{ brand = {brand!r} }}\npin = {names(before)[3:4]}",
    )
    cheapest = OrderBy(column="price", among=20)
    answer = search(ruled, page_size=20, order_by=cheapest)
    hidden = Filter(none=equals("brand", brand))
    assert ids(answer) == ids(search(plain, page_size=20, filter=hidden, order_by=cheapest))
    assert applied(answer) == {"r2": []}
    # The same rules move what nobody ordered.
    assert list(applied(search(ruled))) == ["r0", "r1", "r2"]


def test_a_rewritten_query_is_searched_in_place_of_what_was_typed(serve: Serve, plain: Running) -> None:
    ruled = serve(
        'queries = ["Gumboots"]\nrewrite = "waterproof boots"',
        'words = ["gumboot"]\nrewrite = "lamp"\nredirect = "/second"',
        'queries = ["waterproof boots"]\nrewrite = "mug"\nredirect = "/third"',
        'queries = ["gumboots"]\nredirect = "/fourth"',
    )
    answer = search(ruled, "gumboots")
    assert ids(answer) == ids(search(plain, "waterproof boots")) != ids(search(plain, "gumboots"))
    told = {rule.name: rule.rewritten_query for rule in answer.info.applied_rules}
    assert told == {"r0": "waterproof boots", "r1": "", "r3": ""}
    assert answer.redirect_uri == "/second"
    # Rules are looked up by what was typed: those of the other query are its own.
    assert ids(search(ruled, "waterproof boots")) == ids(search(plain, "mug"))


def test_what_is_known_of_the_rewritten_query_counts(serve: Serve, plain: Running) -> None:
    query, _ = max(plain.live.state.behaviour.queries.items(), key=lambda item: len(item[1]))
    ruled = serve(f"queries = ['qwertz']\nrewrite = {query!r}")
    assert any("ENGAGED" in channels(hit) for hit in search(ruled, "qwertz", page_size=100).hits)
    assert not any("ENGAGED" in channels(hit) for hit in search(plain, "qwertz", page_size=100).hits)


def test_without_rules_every_rpc_answers_as_if_there_were_none(serve: Serve, plain: Running) -> None:
    pin = strangers(plain, 1)
    product = next(name for name in plain.live.state.snapshot.ids if name not in pin)
    ruled = serve(f"pin = {pin}", f"queries = ['{QUERY}']\nredirect = '/sale'")
    asks: list[tuple[str, Any]] = [
        ("search", SearchRequest(query=QUERY)),
        ("recommend", RecommendRequest(recent_product_ids=[product])),
        ("similar", SimilarRequest(product_id=product)),
    ]
    for rpc, request in asks:
        answer = getattr(ruled, rpc)(request)
        assert ids(answer)[0] == pin[0]
        first = answer.next_page_token
        expected = content(getattr(plain, rpc)(request))
        request.without_rules = True
        bare = getattr(ruled, rpc)(request)
        for told in (expected, without := content(bare)):
            told.pop("next_page_token")
        assert without == expected
        # A page of the one is not a page of the other.
        request.page_token = first
        assert "page_token" in refusal(getattr(ruled, rpc), request).fields


def test_recommend_does_not_pin_what_the_user_is_not_to_see(serve: Serve, plain: Running) -> None:
    user, product = bought(plain)
    history = plain.live.state.behaviour.history(user).rows
    other = next(name for row, name in enumerate(plain.live.state.snapshot.ids) if row not in history)
    ruled = serve(f"on = ['recommend']\npin = ['{product}', '{other}']")
    answer = ruled.recommend(RecommendRequest(user_id=user))
    assert ids(answer)[:2] == [product, other]
    for condition in (None, at_most("price", 1e9)):
        answer = ruled.recommend(RecommendRequest(user_id=user, exclude=[Event.PURCHASE], filter=condition))
        assert ids(answer)[0] == other
        assert product not in ids(answer)
        assert applied(answer) == {"r0": [other]}


def test_similar_is_boosted_and_pinned_but_by_the_product_itself(serve: Serve, plain: Running) -> None:
    state = plain.live.state
    product = state.snapshot.ids[0]
    ask = SimilarRequest(product_id=product, page_size=100)
    before = plain.similar(ask)
    brand = before.hits[20].product.brand
    pin = ids(before)[50]
    ruled = serve(
        f"on = ['similar']\npin = ['{product}', '{pin}']\nboost = [{{ where = {{ brand = {brand!r} }}, times = 9 }}]"
    )
    after = ruled.similar(ask)
    assert (ids(after)[0], applied(after)) == (pin, {"r0": [pin]})
    assert product not in ids(after)
    placed = {
        hit.product.id: at / (9.0 if hit.product.brand == brand else 1.0) for at, hit in enumerate(before.hits, 1)
    }
    known = [name for name in ids(after)[1:] if name in placed]
    assert known == sorted((name for name in placed if name != pin and name in known), key=lambda name: placed[name])
    assert known != [name for name in ids(before) if name in known]


def test_facets_count_pinned_products(serve: Serve, plain: Running) -> None:
    [stranger] = strangers(plain, 1)
    ruled = serve(f"pin = ['{stranger}']")
    spec = [facet_pb2.FacetSpec(column="category", limit=100)]
    [before], [after] = (search(each, facets=spec).facets for each in (plain, ruled))
    total = [sum(each.count for each in facet.counts) + facet.missing for facet in (before, after)]
    assert total == [120, 121]


def test_two_rules_pin_one_after_the_other_each_product_once(serve: Serve, plain: Running) -> None:
    a, b, c = ids(search(plain))[4:7]
    answer = search(serve(f"pin = ['{c}', '{a}']", f"words = ['boot']\npin = ['{a}', '{b}']"))
    assert ids(answer)[:3] == [c, a, b]
    assert applied(answer) == {"r0": [c, a], "r1": [b]}


def test_hits_in_recall_order_are_moved_alike(unlogged: Trained, start: Serve, tmp_path: Path) -> None:
    product = unlogged.dump.products["product_id"][3]
    path = tmp_path / "rules.toml"
    path.write_text(f"[[rule]]\nname = 'r'\npin = ['{product}']\n")
    ruled = start(copied(unlogged, tmp_path, rules=path))
    answer = search(ruled)
    assert (ids(answer)[0], [d.stage for d in answer.info.degraded]) == (product, ["score"])
    # Nothing is popular yet: what is pinned is all there is.
    assert ids(ruled.recommend(RecommendRequest())) == [product]
