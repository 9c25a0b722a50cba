"""What the ranker's tests share: an encoder without a model, small catalogues, and a sample shop trained on."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import polars as pl
import pytest
import torch

from indexer.arrays import Floats
from indexer.build import build_index
from indexer.canonical import EVENTS, PRODUCTS, Dump, conform
from indexer.config import IndexerConfig
from indexer.encoder import Encoder
from indexer.exact import ExactIndex
from indexer.lexical import LexicalIndex
from indexer.sample.shop import make_shop
from indexer.snapshot import IndexSnapshot, TokenLists, open_latest
from indexer.store import Store
from indexer.text import token_hashes
from ranker.config import RankerConfig
from ranker.covisited import Covisited, fit_covisited
from ranker.ease import Ease, empty_ease
from ranker.features import Catalogue
from ranker.history import CLICK
from ranker.log import Sources
from ranker.model import Model, load_model
from ranker.network import Network
from ranker.products import ProductTable, product_table
from ranker.space import ProductSpace
from ranker.train import train

DIMENSIONS = 32


@cache
def _token_vector(token: int) -> np.ndarray:
    return np.random.default_rng(token).normal(size=DIMENSIONS).astype(np.float32)


class HashEncoder:
    """A text is the sum of one random vector for each of its tokens: shared words make texts near."""

    name, fingerprint, dimensions, backend, tuned = "hash", "0123456789abcdef", DIMENSIONS, "numpy", None
    choice = None

    def encode(self, texts: Sequence[str], progress: Callable[[int], None] | None = None) -> np.ndarray:
        sums = [sum((_token_vector(int(t)) for t in token_hashes(text)), _token_vector(0) * 1e-3) for text in texts]
        vectors = np.array(sums, np.float32).reshape(len(texts), DIMENSIONS)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def stream(self, texts: Iterable[str]) -> Iterator[tuple[list[str], np.ndarray]]:
        for text in texts:
            yield [text], self.encode([text])


class _Titles:
    """What the ranker reads of a snapshot."""

    def __init__(self, products: pl.DataFrame) -> None:
        titles = products["title"].to_list()
        lists = [token_hashes(title) for title in titles]
        self.products = products.to_arrow()
        self.tokens = TokenLists(np.concatenate(lists), np.cumsum([0, *map(len, lists)], dtype=np.int64))
        self.vectors = HashEncoder().encode(titles)
        self.index, self.lexical = ExactIndex(self.vectors), LexicalIndex.build(titles)
        self.query_table = None

    def __len__(self) -> int:
        return len(self.vectors)


class Shop(NamedTuple):
    """A store with an index of a sample shop, a model trained on its log, and how both were made."""

    dump: Dump
    store: Store
    indexing: IndexerConfig
    config: RankerConfig
    snapshot: IndexSnapshot
    encoder: Encoder
    model: Model
    said: list[str]

    @property
    def sources(self) -> Sources:
        return Sources(self.dump.events, None)

    def train(self, config: RankerConfig | None = None, sources: Sources | None = None) -> str:
        wanted, learnt = config or self.config, sources or self.sources
        return train(self.store, wanted, self.indexing, self.snapshot, self.encoder, learnt, lambda _: None)

    def load(self, name: str) -> Model:
        return load_model(self.store, name, self.snapshot, self.indexing)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return cast(Encoder, HashEncoder())


@pytest.fixture(scope="session")
def titles() -> Callable[..., IndexSnapshot]:
    """Makes what stands for an index of titles; further columns by keyword, absent ones are null."""

    def make(*titles: str, **columns: Sequence[object]) -> IndexSnapshot:
        ids = [f"P{row}" for row in range(len(titles))]
        frame = pl.DataFrame({"product_id": ids, "title": list(titles), **columns})
        return cast(IndexSnapshot, _Titles(conform(frame, PRODUCTS)))

    return make


@pytest.fixture(scope="session")
def table(titles: Callable[..., IndexSnapshot]) -> Callable[..., ProductTable]:
    """Makes a product table, as `titles` makes an index."""
    return lambda *names, **columns: product_table(titles(*names, **columns))


@pytest.fixture(scope="session")
def engaged() -> Callable[..., pl.DataFrame]:
    """Makes a frame of engagements, sorted by time, of tuples: user, row, time and, unless it is CLICK, the kind."""

    def make(*rows: tuple[object, ...]) -> pl.DataFrame:
        schema = {"user_id": pl.String, "row": pl.Int64, "time": pl.Float64, "kind": pl.Int64, "query": pl.String}
        whole = [(*row, *(CLICK, "")[len(row) - 3 :]) for row in rows]
        return pl.DataFrame(whole, schema, orient="row").sort("time", maintain_order=True)

    return make


@pytest.fixture(scope="session")
def catalogue(table: Callable[..., ProductTable], engaged: Callable[..., pl.DataFrame]) -> Callable[..., Catalogue]:
    """Makes a catalogue whose product space is the titles' own space; without tables no product has neighbours."""

    def make(
        *titles: str, covisited: Covisited | None = None, ease: Ease | None = None, **columns: Sequence[object]
    ) -> Catalogue:
        made, none = table(*titles, **columns), fit_covisited(engaged(), len(titles))
        alone = empty_ease(len(titles))
        return Catalogue(made, LexicalIndex.build(titles), made.vectors, covisited or none, ease or alone)

    return make


@pytest.fixture(scope="session")
def plain_space() -> Callable[[Floats], ProductSpace]:
    """Makes a product space that is the titles' own, without a tower."""
    return lambda vectors: ProductSpace(None, np.eye(DIMENSIONS, dtype=np.float32), vectors, ExactIndex(vectors))


@pytest.fixture(scope="session")
def strong_network() -> Callable[..., Network]:
    """Makes a network of `features` and a product space of 16 whose every part bears on its logits."""

    def make(features: int, place: int | None = None, seed: int = 0) -> Network:
        torch.manual_seed(seed)
        network = Network(features, 16, place)
        for weights in network.parameters():
            # Untrained ones are so small that half of the network could be missing unseen.
            weights.data.mul_(2.0)
        network.standardise(torch.randn(200, features) * 3 + 5)
        return network.eval()

    return make


@pytest.fixture(scope="session")
def events() -> Callable[..., pl.DataFrame]:
    """Makes canonical events of dicts; `t` stands for event_time in Unix seconds."""

    def make(*rows: dict[str, object]) -> pl.DataFrame:
        others = [{name: value for name, value in row.items() if name != "t"} for row in rows]
        frame = pl.DataFrame(
            others, schema={name: EVENTS[name] for name in dict.fromkeys(n for r in others for n in r)}
        )
        times = pl.from_epoch(pl.Series([row["t"] for row in rows], dtype=pl.Int64), time_unit="s")
        return conform(frame.with_columns(event_time=times.dt.replace_time_zone("UTC").dt.cast_time_unit("us")), EVENTS)

    return make


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Shop:
    """A shop of 600 products and 1,500 sessions, and a small model of it."""
    folder: Path = tmp_path_factory.mktemp("shop")
    dump = make_shop(600, sessions=1_500, seed=0)
    dump.products.write_parquet(folder / "products.parquet")
    store, indexing = Store(folder / "store"), IndexerConfig(catalogue=folder / "products.parquet", device="cpu")
    build_index(store, indexing, encoder, lambda *_: None)
    snapshot = open_latest(store, indexing)
    config = RankerConfig(device="cpu", space=16, tower_epochs=2, network_epochs=2, trees=40, leaves=7, candidates=50)
    said: list[str] = []
    name = train(store, config, indexing, snapshot, encoder, Sources(dump.events, None), said.append)
    model = load_model(store, name, snapshot, indexing)
    return Shop(dump, store, indexing, config, snapshot, encoder, model, said)
