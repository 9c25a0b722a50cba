"""Vitrine and public methods side by side: the same split, the same requests, the same metric, the whole catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from peers.clicks import compare_clicks, lists_of
from peers.compare import Say, by_query, by_user, fitted_rows
from peers.context import Case, Context, Log, Peer, cases_of
from peers.factors import ALS_GRID, BPR_GRID, Als, Bpr
from peers.figures import Order
from peers.neighbours import TIFU_GRID, ItemKnn, ScoreSum, TifuKnn, knn_and_titles
from peers.plain import OwnFrequency, Popularity, Random, TitleMean
from peers.queries import Bm25, RankSum, TitleCosine
from peers.sequence import SasRec
from peers.tuning import Tuned, earlier_context
from peers.vitrine import Vitrine, vitrine_scores
from result import environment, versions, write_result

from indexer.arrays import Doubles, Floats
from indexer.encoder import Encoder, load_encoder
from indexer.errors import SnapshotError
from indexer.snapshot import IndexSnapshot, open_latest
from indexer.store import Store
from indexer.tuned import encoder_of
from ranker.examples import Slice, slice_of_time
from ranker.log import Request, Sources, rated_requests
from ranker.model import Model, load_model
from ranker.stages import Prepared
from ranker.train import prepare
from server.config import Settings, load_settings
from server.rebuild import read_sources

_LIBRARIES = ("implicit", "bm25s", "ir-measures", "scipy", "scikit-learn", "sentence-transformers")
_FEWEST = 20


@dataclass(frozen=True)
class Shop:
    """A set, opened: its settings, index, log and the requests by slice."""

    settings: Settings
    store: Store
    snapshot: IndexSnapshot
    sources: Sources
    prepared: Prepared
    encoder: Encoder
    model: Model | None
    seed: int

    def requests(self, part: Slice, *, by_query: bool) -> list[Request]:
        """The slice's requests of one kind, in time order. By query only those with judged or shown rows are asked."""
        mine = [request for request, of in self.prepared.requests if of is part]
        if by_query:
            return [request for request in mine if request.query and request.rows is not None]
        return [request for request in mine if not request.query and request.user is not None]

    def published(self) -> tuple[Encoder, Floats]:
        """The configured encoder as it was published, and the titles' vectors by it: a peer is not tuned on the log."""
        if self.encoder.tuned is None:
            return self.encoder, np.asarray(self.snapshot.vectors)
        encoder = load_encoder(self.settings.indexer)
        return encoder, encoder.encode(self.snapshot.products.column("title").to_pylist())

    def context(self, log: Log, requests: Sequence[Request]) -> Context:
        """What peers are fitted in to be asked `requests`."""
        titles = self.snapshot.products.column("title").to_pylist()
        vectors = np.asarray(self.snapshot.vectors)
        return Context(log, requests[0].time, vectors, titles, cases_of(requests, log), self.seed)

    def explicit(self) -> list[tuple[Request, Slice]]:
        """Requests of users whose products were all answered, for or against."""
        found = [item for item in self.prepared.requests if item[0].rows is not None and not item[0].query]
        if found or self.sources.events is None:
            return found
        rated = rated_requests(self.sources.events, self.snapshot.row_of, self.settings.ranker.positive_rating)
        return [(request, slice_of_time(request.time, self.prepared.cuts)) for request in rated]

    def vitrine(self) -> list[Peer]:
        """The shop's own model as a peer, where it has one."""
        if self.model is None:
            return []
        return [Vitrine(self.model, self.snapshot, self.encoder, self.settings.ranker, self.prepared)]

    def probabilities(self, tests: Sequence[Request]) -> dict[str, Doubles]:
        """What the shop's own model says of every row of `tests`, one list after the other."""
        if self.model is None:
            return {}
        found = vitrine_scores(tests, self.prepared, self.model, self.snapshot, self.encoder, self.settings.ranker)
        fusion = self.model.members.fusion
        return {"Vitrine": fusion.probabilities(fusion.kind, np.concatenate([each.scores for each in found]))}


def open_shop(config: Path, seed: int = 0) -> Shop:
    """Read everything a comparison needs. Build the index first: `vitrine index build`.

    Where there is a model, the slices are those of its training: nothing of the test was learnt from.
    """
    settings = load_settings(config)
    store = Store(settings.store)
    snapshot = open_latest(store, settings.indexer)
    model = newest_model(store, snapshot, settings)
    sources = read_sources(settings)
    prepared = prepare(sources, snapshot, settings.ranker, model.manifest if model else None)
    encoder = encoder_of(store, snapshot.manifest, settings.indexer)
    return Shop(settings, store, snapshot, sources, prepared, encoder, model, seed)


def newest_model(store: Store, snapshot: IndexSnapshot, settings: Settings) -> Model | None:
    """The newest model of the store; None where there is none for this index, or none that ranks."""
    try:
        model = load_model(store, store.latest("models"), snapshot, settings.indexer)
    except SnapshotError as error:
        typer.echo(f"Without Vitrine's own row: {error}", err=True)
        return None
    if model.members is None:
        typer.echo(f"Without Vitrine's own row: {model.manifest['unranked']}", err=True)
        return None
    return model


def compare_users(shop: Shop, most: int, python: Path | None, seconds: float, say: Say) -> dict[str, Any] | None:
    """Requests by user over the whole catalogue; None where the set has too few."""
    tests = _thinned(shop.requests(Slice.TEST, by_query=False), most)
    if len(tests) < _FEWEST:
        return None
    log = Log(shop.prepared.engagements)
    context, order = shop.context(log, tests), Order(len(shop.snapshot), shop.seed)
    validate: list[Case] = cases_of(shop.requests(Slice.VALIDATE, by_query=False), log)
    sequence: list[Peer] = [] if python is None else [SasRec(python, seconds)]
    peers = [*user_peers(earlier_context(context, validate)), *sequence, *shop.vitrine()]
    say(f"{len(tests):,} requests by user, {context.products:,} products")
    rows = fitted_rows(peers, context, lambda scored: by_user(scored, order), say)
    strangers = sum(not len(case.history) for case in context.cases)
    return {"requests": len(tests), "strangers": strangers, "cut": context.cut, "peers": rows}


def user_peers(earlier: Context) -> list[Peer]:
    """The peers of requests by user; settings are chosen on the cases of `earlier`."""
    plain: list[Peer] = [Random(), Popularity(30.0), Popularity(), OwnFrequency(), TitleMean()]
    tuned: list[Peer] = [
        Tuned(Als, ALS_GRID, earlier),
        Tuned(Bpr, BPR_GRID, earlier),
        Tuned(TifuKnn, TIFU_GRID, earlier),
    ]
    return [*plain, ItemKnn(), knn_and_titles(), *tuned]


def compare_queries(shop: Shop, most: int, say: Say) -> dict[str, Any] | None:
    """Requests by query: NDCG@10 in their pools, recall@100 over the catalogue; None where the set has too few."""
    tests = _thinned(shop.requests(Slice.TEST, by_query=True), most)
    if len(tests) < _FEWEST:
        return None
    context, order = shop.context(Log(shop.prepared.engagements), tests), Order(len(shop.snapshot), shop.seed)
    grade = shop.settings.ranker.positive_grade
    say(f"{len(tests):,} requests by query, {context.products:,} products")
    peers = [*query_peers(*shop.published(), Path(shop.settings.indexer.encoder).name), *shop.vitrine()]
    rows = fitted_rows(peers, context, lambda scored: by_query(scored, order, grade), say)
    return {"requests": len(tests), "positive_grade": grade, "peers": rows}


def query_peers(encoder: Encoder, vectors: Floats, name: str) -> list[Peer]:
    """The peers of requests by query; `vectors` are the titles' by `encoder`."""
    cosine = TitleCosine(encoder, vectors, name)
    return [
        Random(),
        Bm25(),
        cosine,
        RankSum(Bm25(), cosine, "BM25 + cosine (RRF)"),
        ScoreSum(Bm25(), cosine, "BM25 + cosine (z-score sum)"),
    ]


def compare_explicit(shop: Shop, python: Path | None, say: Say) -> dict[str, Any] | None:
    """Lists of users with explicit answers; None where the set has too few."""
    requests = shop.explicit()
    tests = [request for request, part in requests if part is Slice.TEST]
    if len(tests) < _FEWEST:
        return None
    categories = shop.snapshot.products.column("category").to_pylist()
    lists = lists_of(requests, Log(shop.prepared.engagements), categories)
    test = lists.part(2)
    say(f"{len(tests):,} lists of {len(test):,} answers, {lists.positive_share(2):.3f} of them positive")
    rows = compare_clicks(lists, shop.probabilities(tests), python, shop.seed, say)
    return {"lists": len(tests), "answers": len(test), "trained_on": len(lists.part(0)), "models": rows}


def _thinned(requests: list[Request], most: int) -> list[Request]:
    """At most `most`, spread evenly; time order stays."""
    if len(requests) <= most:
        return requests
    return [requests[i] for i in np.linspace(0, len(requests) - 1, most).astype(int)]


app = typer.Typer(add_completion=False)


@app.command()
def main(
    context: typer.Context,
    config: Annotated[Path, typer.Option("-c", "--config", help="vitrine.toml of the set.")],
    out: Annotated[Path | None, typer.Option(help="JSON to write. [default: results/ranking-SET.json]")] = None,
    peers_python: Annotated[Path | None, typer.Option(help="Python with peers/requirements.txt installed.")] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="Bound of SASRec's training, on one core.")] = 600.0,
    most: Annotated[int, typer.Option(min=1, help="Test requests of a kind, spread evenly.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Compare on one set; write JSON. README.md explains the figures."""
    made, shop = environment(), open_shop(config, seed)
    name = config.resolve().parent.name
    body: dict[str, Any] = {"set": name, "index": shop.snapshot.id, "products": len(shop.snapshot)}
    body["by_user"] = compare_users(shop, most, peers_python, seconds, typer.echo)
    body["by_query"] = compare_queries(shop, most, typer.echo)
    body["explicit"] = compare_explicit(shop, peers_python, typer.echo)
    made["versions"] |= versions(_LIBRARIES)
    path = out or Path(__file__).parent / "results" / f"ranking-{name}.json"
    write_result(path, "ranking", context.params, made | {k: v for k, v in body.items() if v is not None})
    typer.echo(f"Wrote {path}.")


if __name__ == "__main__":
    app()
