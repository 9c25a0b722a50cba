"""Peers for queries: BM25 by the package `bm25s`, the encoder's cosine, and two ways to join them."""

import bm25s
import numpy as np

from indexer.arrays import Doubles, Floats, Ints
from indexer.encoder import Encoder
from indexer.text import normalise
from peers.context import Context, Peer
from ranker.log import Request

# The constant of reciprocal-rank fusion (Cormack et al., SIGIR 2009).
_RRF = 60.0


class Bm25:
    """BM25 over the titles with the package's defaults (Lù, BM25S, 2024).

    k1 1.5, b 0.75, Lucene's formula, English stop words, no stemmer.
    """

    name = "BM25 (bm25s)"

    def fit(self, context: Context) -> None:
        """Index the titles."""
        self._index = bm25s.BM25()
        self._index.index(bm25s.tokenize(list(context.titles), show_progress=False), show_progress=False)
        self._products = context.products

    def scores(self, request: Request, history: Ints) -> Doubles:
        """Every title's score; zero where no word of the query is known."""
        words = bm25s.tokenize([request.query], return_ids=False, show_progress=False)[0]
        known = [word for word in words if word in self._index.vocab_dict]
        return np.asarray(self._index.get_scores(known), np.float64) if known else np.zeros(self._products)


class TitleCosine:
    """The cosine of query and title by the encoder as it was published, not tuned to this shop.

    `vectors` are the titles' by that encoder, float32 [products, dimensions].
    """

    def __init__(self, encoder: Encoder, vectors: Floats, name: str) -> None:
        self._encoder, self._vectors, self.name = encoder, vectors, f"{name} cosine, zero-shot"

    def fit(self, context: Context) -> None:
        """Nothing is learnt."""

    def scores(self, request: Request, history: Ints) -> Doubles:
        """The dot products with the query's vector."""
        return np.asarray(self._vectors @ self._encoder.encode([normalise(request.query)])[0], np.float64)


class RankSum:
    """Reciprocal-rank fusion of two peers over the whole catalogue: the sum of 1 / (60 + rank)."""

    def __init__(self, first: Peer, second: Peer, name: str) -> None:
        self._peers, self.name = (first, second), name

    def fit(self, context: Context) -> None:
        """Fit both."""
        for peer in self._peers:
            peer.fit(context)

    def scores(self, request: Request, history: Ints) -> Doubles:
        """The sum of both peers' terms."""
        first, second = (reciprocal_ranks(peer.scores(request, history)) for peer in self._peers)
        return first + second


def reciprocal_ranks(scores: Doubles) -> Doubles:
    """1 / (60 + rank), rank from 1; equal scores share the last of their ranks, so that a tie is worth no place."""
    ordered = np.sort(-scores)
    return np.asarray(1.0 / (_RRF + np.searchsorted(ordered, -scores, side="right")), np.float64)
