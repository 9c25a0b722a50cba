"""One release answers alike on the CPU and on a card: pages up to ties, scores within a tolerance, NDCG within noise.

What compares is tested on the CPU; the comparison with a card is marked `gpu`.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

from indexer.agreement import AGREEMENT
from indexer.arrays import Doubles, Floats, Ints
from indexer.config import IndexerConfig
from indexer.dumps.registry import write
from indexer.encoder import Encoder, load_encoder
from indexer.exact import ExactIndex
from indexer.sample.shop import make_shop
from indexer.store import Store
from indexer.threads import one_thread
from ranker.config import RankerConfig
from ranker.journals import read_log
from ranker.metrics import ndcg
from ranker.significance import flip_test
from server import pipeline
from server.config import ServerConfig, Settings
from server.filters import All, Equals, Filter, Range
from server.pipeline import Answer, Ask
from server.rebuild import JobLog, rebuild
from server.release import Release
from server.state import State, load_state

pytestmark = pytest.mark.slow

# Without a ranking, scores are of equal ranks, or cosines in float32.
UNRANKED = 1e-5
# With one: a card's logits of the network may be off by a hundredth (`ranker.network_choice`).
RANKED = 0.01
# Share of the pages that may differ by more: a cosine off in its last digit may cross a tree's threshold.
_STRAYED = 0.02
# NDCG@10 by which the card may be off on average, and the p below which that is no chance.
_NOISE, _CHANCE = 0.01, 0.01
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "indexer": {"backend": "torch", "threads": 1},
    "ranker": {"space": 16, "tower_epochs": 1, "network_epochs": 1, "trees": 20, "leaves": 7, "candidates": 120},
}
FILTERS: Sequence[Filter] = (
    Equals("in_stock", True),
    Range("price", None, 30.0),
    All([Equals("in_stock", True), Range("price", 10.0, None)]),
)


class Page(NamedTuple):
    """Rows, best first, and their scores."""

    rows: Ints | Sequence[int]
    scores: Floats | Doubles | Sequence[float]


def differences(expected: Page, found: Page, tolerance: float) -> list[str]:
    """How two pages differ beyond ties; products that score within `tolerance` of one another are tied.

    Only at the end may one page hold what the other does not: a product tied with the other's last.
    """
    told = []
    if len(expected.rows) != len(found.rows):
        return [f"{len(found.rows)} hits, not {len(expected.rows)}"]
    for place, (a, b) in enumerate(zip(expected.scores, found.scores, strict=True), start=1):
        if not abs(a - b) <= tolerance:
            told.append(f"place {place} scores {b}, not {a}")
    for mine, other in ((expected, found), (found, expected)):
        known = dict(zip(other.rows, other.scores, strict=True))
        for row, score in zip(mine.rows, mine.scores, strict=True):
            there = known.get(row, other.scores[-1])
            if not abs(there - score) <= tolerance:
                told.append(f"row {row} scores {score} on one page and {'' if row in known else 'below '}{there}")
    return told


def page_of(answer: Answer) -> Page:
    """What is compared of an answer."""
    return Page(answer.hits.rows, answer.hits.scores)


class Shop(NamedTuple):
    """A released sample shop, and what is asked of it."""

    settings: Settings
    release: Release
    judgments: pl.DataFrame
    users: list[str]

    def on(self, device: str) -> tuple[Settings, Encoder]:
        """Settings and encoder of a device."""
        # The configured backend is the CPU's.
        changed = {"device": device} | ({} if device == "cpu" else {"backend": "auto"})
        indexer = self.settings.indexer.model_copy(update=changed)
        return self.settings.model_copy(update={"indexer": indexer}), load_encoder(indexer)

    def state(self, device: str) -> State:
        """The release, opened on a device."""
        settings, encoder = self.on(device)
        store = Store(settings.store)
        return load_state(
            store, self.release, settings, encoder, read_log(settings.ranker.events, store.root, settings.journal)
        )

    @property
    def queries(self) -> list[str]:
        """Those that are judged."""
        return self.judgments["query"].unique(maintain_order=True).to_list()


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is popular now is the same for whoever asks first."""
    monkeypatch.setattr(State, "now", lambda _: 1.8e9)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    dump = make_shop(300, sessions=1_500, seed=0)
    write(dump, folder)
    tables = {name: folder / f"{name}.parquet" for name in ("products", "events", "judgments")}
    indexer = {**SETTINGS["indexer"], "device": "cpu", "catalogue": tables["products"]}
    ranker = {**SETTINGS["ranker"], "device": "cpu", "events": tables["events"], "judgments": tables["judgments"]}
    settings = Settings(
        store=folder / "store",
        indexer=IndexerConfig.model_validate(indexer),
        ranker=RankerConfig.model_validate(ranker),
        server=ServerConfig.model_validate({"ranking_budget_ms": 0, "network_budget_ms": 0}),
    )
    release = rebuild(settings, JobLog(io.StringIO()), lambda *_: None, lambda _: None, "parity")
    assert dump.events is not None
    assert dump.judgments is not None
    users = dump.events["user_id"].drop_nulls().unique(maintain_order=True).head(30).to_list()
    return Shop(settings, release, dump.judgments, users)


@pytest.fixture(scope="module")
def on_cpu(shop: Shop) -> State:
    return shop.state("cpu")


@pytest.fixture(scope="module")
def on_card(shop: Shop) -> State:
    state = shop.state("cuda:0")
    assert state.snapshot.index.kind.startswith("exact on cuda:0")
    return state


Asked = dict[str, tuple[Callable[[State, Sequence[Ask]], list[Answer]], list[Ask], float]]


def asked_of(shop: Shop, state: State) -> Asked:
    """By name: the request path, what it is asked, and the tolerance. `state` embeds the queries, for both sides."""
    queries = shop.queries[:60]
    vectors = state.encoder.encode(queries)
    asks = [
        Ask(query=query, vector=vector, user=shop.users[i % 30] if i % 2 else None, size=50)
        for i, (query, vector) in enumerate(zip(queries, vectors, strict=True))
    ]
    users = [Ask(user=user, size=50) for user in shop.users]
    products = [Ask(product=product, size=50) for product in list(state.snapshot.row_of)[:60]]
    return {
        "search": (pipeline.search, asks, RANKED),
        "filtered search": (pipeline.search, filtered(asks), RANKED),
        "recommend": (pipeline.recommend, users, RANKED),
        "similar": (pipeline.similar, products, UNRANKED),
        "filtered similar": (pipeline.similar, filtered(products), UNRANKED),
    }


def filtered(asks: Sequence[Ask]) -> list[Ask]:
    """Each with one of the filters."""
    return [ask._replace(condition=FILTERS[i % len(FILTERS)]) for i, ask in enumerate(asks)]


def strayed(shop: Shop, expected: State, found: State) -> dict[str, list[list[str]]]:
    """By name: the differences of each page that has any, and that at least one page was long."""
    told = {}
    for name, (path, asks, tolerance) in asked_of(shop, expected).items():
        pages = [[page_of(answer) for answer in path(state, asks)] for state in (expected, found)]
        assert max(len(page.rows) for page in pages[0]) > 20, name
        each = [differences(a, b, tolerance) for a, b in zip(*pages, strict=True)]
        told[name] = [found for found in each if found]
        assert len(told[name]) <= _STRAYED * len(asks), (name, told[name])
    return told


def ndcgs(shop: Shop, state: State) -> Doubles:
    """NDCG@10 of each judged query, its vector made by the state's own encoder."""
    answers = pipeline.search(state, [Ask(query=query, size=50) for query in shop.queries])
    made = []
    for query, answer in zip(shop.queries, answers, strict=True):
        judged = shop.judgments.filter(pl.col("query") == query)
        rows = [state.snapshot.row_of[product] for product in judged["product_id"]]
        grades = dict(zip(rows, judged["grade"].to_list(), strict=True))
        mine = np.array([grades.pop(row, 0.0) for row in answer.hits.rows.tolist()])
        made.append(ndcg(answer.hits.scores, mine, np.array(list(grades.values()), np.float64)))
    return np.array(made)


def check_noise(expected: Doubles, found: Doubles) -> None:
    """Two orders of the same queries are equally good, as far as these queries can tell."""
    difference = (found - expected)[:, None]
    assert abs(float(np.nanmean(difference))) <= _NOISE
    assert float(flip_test(difference)[0]) >= _CHANCE


def neighbours_differ(state: State, other: State, mine: Floats, theirs: Floats) -> list[list[str]]:
    """Differences of the title neighbours of queries, each index asked the vectors of its own encoder.

    By Cauchy-Schwarz a score differs by at most the distance of both vectors of a query.
    """
    found, others = state.snapshot.index.search(mine, 50), other.snapshot.index.search(theirs, 50)
    apart = np.linalg.norm(mine - theirs, axis=1) + UNRANKED
    each = [
        differences(Page(found.rows[i], found.scores[i]), Page(others.rows[i], others.scores[i]), float(apart[i]))
        for i in range(len(mine))
    ]
    return [differing for differing in each if differing]


def test_equal_pages_and_those_that_differ_by_ties_pass() -> None:
    page = Page([4, 7, 1, 9], [0.9, 0.5, 0.5, 0.1])
    assert differences(page, page, 0.0) == []
    assert differences(page, Page([4, 1, 7, 9], [0.9, 0.5, 0.5, 0.1]), 0.0) == []
    assert differences(page, Page([4, 1, 7, 9], [0.9001, 0.5, 0.4999, 0.1]), 1e-3) == []
    # Of several that tie for the last place any may be there.
    assert differences(page, Page([4, 7, 1, 3], [0.9, 0.5, 0.5, 0.1]), 0.0) == []


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(Page([7, 4, 1, 9], [0.9, 0.5, 0.5, 0.1]), id="order"),
        pytest.param(Page([4, 7, 1, 9], [0.9, 0.6, 0.5, 0.1]), id="score"),
        pytest.param(Page([4, 3, 1, 9], [0.9, 0.5, 0.5, 0.1]), id="another in the middle"),
        pytest.param(Page([4, 7, 1], [0.9, 0.5, 0.5]), id="too few"),
        pytest.param(Page([4, 7, 1, 9], [0.9, 0.5, np.nan, 0.1]), id="not a number"),
    ],
)
def test_other_pages_do_not(found: Page) -> None:
    assert differences(Page([4, 7, 1, 9], [0.9, 0.5, 0.5, 0.1]), found, 1e-3)


def test_a_release_agrees_with_itself(shop: Shop, on_cpu: State) -> None:
    assert not any(strayed(shop, on_cpu, shop.state("cpu")).values())
    own = ndcgs(shop, on_cpu)
    assert float(np.nanmean(own)) > 0.1
    check_noise(own, own)


def test_a_wrong_order_is_seen(shop: Shop, on_cpu: State, monkeypatch: pytest.MonkeyPatch) -> None:
    other = shop.state("cpu")
    real = pipeline._page
    right = ndcgs(shop, on_cpu)

    def reversed_for_other(state: State, *arguments: object) -> Answer:
        answer = real(state, *arguments)  # type: ignore[arg-type]
        if state is other:
            answer.hits.rows[:] = answer.hits.rows[::-1].copy()
        return answer

    monkeypatch.setattr(pipeline, "_page", reversed_for_other)
    with pytest.raises(AssertionError, match="search"):
        strayed(shop, on_cpu, other)
    with pytest.raises(AssertionError):
        check_noise(right, ndcgs(shop, other))


def test_neighbours_of_other_vectors_are_seen(shop: Shop, on_cpu: State) -> None:
    vectors = on_cpu.encoder.encode(shop.queries[:20])
    nearly = np.asarray(vectors + 1e-4, np.float32)
    assert neighbours_differ(on_cpu, on_cpu, vectors, nearly) == []
    wrong = ExactIndex(np.roll(on_cpu.snapshot.vectors, 1, axis=0))
    other: Any = SimpleNamespace(snapshot=SimpleNamespace(index=wrong))
    assert len(neighbours_differ(on_cpu, other, vectors, nearly)) == len(vectors)


@pytest.mark.gpu
def test_pages_of_a_card(shop: Shop, on_cpu: State, on_card: State) -> None:
    strayed(shop, on_cpu, on_card)


@pytest.mark.gpu
def test_query_vectors_and_neighbours_of_a_card(shop: Shop, on_cpu: State, on_card: State) -> None:
    mine, theirs = (state.encoder.encode(shop.queries) for state in (on_cpu, on_card))
    assert float((mine * theirs).sum(1).min()) >= AGREEMENT
    assert neighbours_differ(on_cpu, on_card, mine, theirs) == []


@pytest.mark.gpu
def test_answers_of_a_card_are_as_good(shop: Shop, on_cpu: State, on_card: State) -> None:
    check_noise(ndcgs(shop, on_cpu), ndcgs(shop, on_card))
