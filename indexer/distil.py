"""The table that stands in for the encoder at short queries, fitted at the build to queries made of the titles."""

import logging
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import scipy.sparse as sp

from indexer.arrays import Array, Floats, Ints
from indexer.encoder import Encoder
from indexer.exact import ExactIndex
from indexer.pieces import pieces
from indexer.query_table import QueryTable
from indexer.text import normalise

logger = logging.getLogger(__name__)

# Pieces of each title, and of all, since each has to be embedded: of 54,667 titles a third as many taught as much.
_PIECES, _MOST = 3, 75_000
# Pieces kept from the fit to be asked, at most, and how many of them for their neighbours.
_HELD_OUT, _ASKED, _NEIGHBOURS = 1_000, 200, 100
# Mean cosine to the encoder on those below which the table is not used.
_LEAST_COSINE = 0.85
# Ridge penalty; rounds of fitting the lengths of the targets, and steps of conjugate gradients in each.
_RIDGE, _ROUNDS, _STEPS = 1.0, 3, 20
# Lengths of the targets, at least and at most.
_LENGTHS = (0.3, 2.0)
# A token's vector in the sum of a few, before the fit: so much of what the encoder makes of the token alone.
_PRIOR = 0.5
# Tokens embedded, and titles tokenised, at a time.
_BATCH, _BLOCK = 256, 10_000


def distilled(
    encoder: Encoder, titles: Sequence[str], vectors: Floats, progress: Callable[[int, int], None]
) -> tuple[QueryTable | None, dict[str, Any]]:
    """A table fitted to `encoder`, or None where too little agrees; and the manifest's entry, which says how well.

    `vectors` [titles, dimensions] are the titles'. `progress` is told how many more texts are embedded, of how many.
    """
    started = time.perf_counter()
    texts = _texts(titles)
    token_ids = encoder.tokeniser([normalise(text) for text in texts])
    targets = encoder.encode(texts, lambda done: progress(done, len(texts)))
    held = min(_HELD_OUT, len(texts) // 10)
    table = fitted(encoder, token_ids[held:], targets[held:], _tokens(encoder, titles))
    entry: dict[str, Any] = {"texts": len(texts) - held, "tokens": len(table)}
    entry |= _agreement(table, token_ids[:held], targets[:held], vectors)
    entry["used"] = entry["cosine"] >= _LEAST_COSINE
    entry["seconds"] = round(time.perf_counter() - started, 2)
    if not entry["used"]:
        logger.warning(
            "Queries stay with the encoder: a table of token vectors agrees with it by a cosine of %.3f only, %.2f is "
            "needed (%d texts made of titles).",
            entry["cosine"],
            _LEAST_COSINE,
            entry["texts"],
        )
    return (table if entry["used"] else None), entry


def _texts(titles: Sequence[str]) -> list[str]:
    """Distinct queries made of titles, in no order."""
    chosen = titles[:: -(-len(titles) // _MOST)]
    times = max(min(_PIECES, _MOST // len(chosen)), 1)
    made = [piece for seed in range(1, times + 1) for piece in pieces(chosen, seed)]
    distinct = list(dict.fromkeys(made))
    return [distinct[i] for i in np.random.default_rng(0).permutation(len(distinct))]


def _tokens(encoder: Encoder, titles: Sequence[str]) -> Ints:
    """The distinct tokens of the titles, rising."""
    blocks = (titles[start : start + _BLOCK] for start in range(0, len(titles), _BLOCK))
    rows = (encoder.tokeniser([normalise(title) for title in block]) for block in blocks)
    return np.unique(np.concatenate([_distinct(each) for each in rows]))


def _distinct(rows: Sequence[Sequence[int]]) -> Ints:
    return np.unique(np.fromiter(chain.from_iterable(rows), np.int64))


def fitted(encoder: Encoder, token_ids: Sequence[Sequence[int]], targets: Floats, also: Ints) -> QueryTable:
    """The token vectors W that minimise sum_i |l_i y_i - x_i W|^2 + r |W - V|^2 (ridge regression), three times over.

    Text i has the encoder's vector y_i (row i of `targets`) and the counts of its tokens over the root of their number,
    x_i. Only the direction of x_i W matters, so the length l_i is what x_i W had along y_i in the round before, and V
    is that round's W: at first half of what the encoder makes of each token alone, which a token of `also` keeps that
    is in none of the texts.
    """
    tokens = np.union1d(_distinct(token_ids), also)
    counts = _counts(token_ids, tokens)
    weights = _PRIOR * _alone(encoder, tokens)
    lengths = np.ones((len(targets), 1), np.float32)
    for _ in range(_ROUNDS):
        weights = _ridge(counts, lengths * targets, weights)
        lengths = np.clip(np.sum((counts @ weights) * targets, 1, keepdims=True), *_LENGTHS)
    rows = np.full(int(tokens.max()) + 1, -1, np.int64)
    rows[tokens] = np.arange(len(tokens))
    # Half precision moves a cosine by 1e-6.
    return QueryTable(rows, weights.astype(np.float16))


def _counts(token_ids: Sequence[Sequence[int]], tokens: Ints) -> sp.csr_matrix:
    """The counts of `tokens`, which rise, in each text over the root of its length: float32 [texts, tokens]."""
    lengths = np.array([len(text) for text in token_ids])
    places = np.searchsorted(tokens, np.fromiter(chain.from_iterable(token_ids), np.int64))
    shares = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    matrix = sp.csr_matrix((shares, places, offsets), shape=(len(token_ids), len(tokens)))
    matrix.sum_duplicates()
    return matrix


def _alone(encoder: Encoder, tokens: Ints) -> Floats:
    """What the encoder makes of each token between the marks that every text begins and ends with; 0 of those marks."""
    marks = encoder.tokeniser([""])[0]
    before, after = marks[: len(marks) // 2], marks[len(marks) // 2 :]
    made = np.zeros((len(tokens), encoder.dimensions), np.float32)
    words = np.flatnonzero(~np.isin(tokens, marks))
    for start in range(0, len(words), _BATCH):
        part = words[start : start + _BATCH]
        made[part] = encoder.forward(*encoder.tokeniser.pad([[*before, int(tokens[i]), *after] for i in part]))
    return made


def _ridge(counts: sp.csr_matrix, targets: Array, start: Floats) -> Floats:
    """Ridge regression that is pulled towards `start`, by conjugate gradients (Hestenes and Stiefel 1952).

    All dimensions go together; scikit-learn's takes them one by one, more than three times as long.
    """
    transposed = counts.T.tocsr()
    rest = transposed @ (targets - counts @ start)
    change, way, power = np.zeros_like(start), rest.copy(), np.sum(rest * rest, 0)
    for _ in range(_STEPS):
        bent = transposed @ (counts @ way) + _RIDGE * way
        step = power / np.maximum(np.sum(way * bent, 0), 1e-12)
        change += step * way
        rest -= step * bent
        before, power = power, np.sum(rest * rest, 0)
        way = rest + power / np.maximum(before, 1e-12) * way
    return np.asarray(start + change, np.float32)


def _agreement(
    table: QueryTable, token_ids: Sequence[Sequence[int]], targets: Floats, vectors: Floats
) -> dict[str, float]:
    """Of texts that the table was not fitted to: the share it knows, and of those the mean cosine to the encoder's
    vectors and the mean share of the encoder's nearest titles among its own."""
    made = [table.embed(text) for text in token_ids]
    known = [i for i, vector in enumerate(made) if vector is not None]
    if not known:
        return {"known": 0.0, "cosine": 0.0, "overlap": 0.0}
    own, wanted = np.stack([v for v in made if v is not None]), targets[known]
    exact, k = ExactIndex(vectors), min(_NEIGHBOURS, len(vectors))
    near, truth = (exact.search(each[:_ASKED], k).rows for each in (own, wanted))
    overlap = np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(near, truth, strict=True)])
    return {
        "known": round(len(known) / len(made), 4),
        "cosine": round(float(np.mean(np.sum(own * wanted, 1))), 4),
        "overlap": round(float(overlap), 4),
    }
