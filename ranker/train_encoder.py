"""Tune the encoder on the shop's own log: queries near the titles they led to, histories near what came next."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import functional as F

from indexer.arrays import Ints
from indexer.config import IndexerConfig
from indexer.device import choose
from indexer.encoder import fingerprint, load_sentence_transformer, resolve
from indexer.errors import InputError
from indexer.lexical import LexicalIndex
from indexer.readers import read_catalogue
from indexer.store import Store
from indexer.text import normalise
from indexer.tokenise import Tokeniser
from ranker.config import RankerConfig
from ranker.log import Sources
from ranker.pools import Pool, make_pools
from ranker.stages import Say

# Pools with fewer than this many anchors teach nothing that holds elsewhere.
_FEWEST = 200
# Anchors in a step, titles of one pool in it, and longest texts in tokens: titles say what they are early.
_ANCHORS, _TITLES, _TOKENS = 48, 6, 64
_RATE, _WARM_UP = 1e-4, 0.1
# Texts of a step are encoded in so many parts by length, so that little is padding: twice as fast.
_PARTS = 5
# BM25 neighbours from here to there that nobody wanted stand in as hard negatives, so many a pool. The first places
# are left out: on sparse judgments many of them are right.
_HARD, _HARD_FROM, _HARD_TO = 1, 20, 100


def tune_encoder(store: Store, config: RankerConfig, indexing: IndexerConfig, sources: Sources, say: Say) -> str:
    """Fit and publish an encoder; returns its id. It is used by the next `vitrine index build`.

    Loss: softmax over the titles of the step (in-batch negatives, Henderson et al. 2017; hard ones from BM25), plus
    the list loss of ListNet (Cao et al., ICML 2007) where a pool is graded. Raises `InputError` where the log and the
    judgments hold too little.
    """
    started = time.perf_counter()
    torch.manual_seed(config.seed)
    device = choose(config.device)
    base = resolve(indexing.encoder)
    products = read_catalogue(indexing.catalogue, indexing.columns).products
    titles = [normalise(title) for title in products["title"].to_list()]
    row_of = {product: row for row, product in enumerate(products["product_id"].to_list())}
    pools, seen = make_pools(sources, row_of, titles, config)
    if len(pools) < _FEWEST:
        raise InputError(
            f"Cannot tune the encoder: {len(pools)} queries or histories with something wanted, {_FEWEST} are needed. "
            "Set ranker.events or ranker.judgments to a longer log."
        )
    model = load_sentence_transformer(base, device)
    say(f"encoder: {len(pools):,} pools of titles, on {device}")
    _fit(model, pools, titles, config, say)

    def fill(folder: Path) -> Mapping[str, Any]:
        model.save(str(folder / "model"), create_model_card=False)
        return {
            "base": fingerprint(base),
            "encoder": indexing.encoder,
            "pools": len(pools),
            **seen,
            "seconds": round(time.perf_counter() - started, 2),
        }

    return store.publish("encoders", fill)


def _fit(
    model: SentenceTransformer, pools: Sequence[Pool], titles: Sequence[str], config: RankerConfig, say: Say
) -> None:
    tokeniser = Tokeniser.of(model.tokenizer, _TOKENS)
    title_tokens, anchor_tokens = tokeniser(titles), tokeniser([pool.anchor for pool in pools])
    hard = _hard_negatives(pools, titles, config.seed)
    scale = torch.nn.Parameter(torch.tensor(np.log(20.0), dtype=torch.float32, device=model.device))
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}, {"params": [scale], "lr": 1e-3}]
    optimiser = torch.optim.AdamW(groups, lr=_RATE, weight_decay=0.01)
    batches = list(_batches(len(pools), config))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _warmed(step, len(batches)))
    rng, losses = np.random.default_rng(config.seed), []
    model.train()
    for i, batch in enumerate(batches, 1):
        drawn = [_drawn(pools[j], rng) for j in batch]
        rows = np.concatenate([*(pool.rows for pool in drawn), *(hard[j] for j in batch)])
        anchors = _encode(model, tokeniser, [anchor_tokens[j] for j in batch])
        loss = _loss(anchors @ _encode(model, tokeniser, [title_tokens[r] for r in rows]).T * scale.exp(), drawn, rows)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
        if i % max(len(batches) // 10, 1) == 0:
            say(f"encoder, step {i:,} of {len(batches):,}: loss {np.mean(losses):.4f}")
            losses = []
    model.eval()


def _hard_negatives(pools: Sequence[Pool], titles: Sequence[str], seed: int) -> list[Ints]:
    """For each pool, titles that share words with its anchor and were not wanted."""
    lexical, rng = LexicalIndex.build(titles), np.random.default_rng(seed)
    out = []
    for pool in pools:
        near = lexical.search(pool.anchor, _HARD_TO).rows[_HARD_FROM:]
        others = np.setdiff1d(near, pool.rows)
        out.append(rng.permutation(others)[:_HARD])
    return out


def _batches(count: int, config: RankerConfig) -> Iterator[Ints]:
    rng = np.random.default_rng(config.seed)
    for _ in range(config.encoder_epochs):
        order = rng.permutation(count)
        yield from (order[start : start + _ANCHORS] for start in range(0, count, _ANCHORS))


def _warmed(step: int, steps: int) -> float:
    """The rate's share: up over the first steps, then down to nearly nothing."""
    warm = _WARM_UP * steps
    return min((step + 1) / max(warm, 1.0), max(0.02, (steps - step) / max(steps - warm, 1.0)))


def _drawn(pool: Pool, rng: np.random.Generator) -> Pool:
    if len(pool.rows) <= _TITLES:
        return pool
    kept = rng.permutation(len(pool.rows))[:_TITLES]
    return pool._replace(rows=pool.rows[kept], gains=pool.gains[kept])


def _encode(model: SentenceTransformer, tokeniser: Tokeniser, texts: Sequence[Sequence[int]]) -> Tensor:
    """Unit vectors [texts, dimensions] with gradients, in mixed precision."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    vectors = []
    for part in np.array_split(np.array(order), min(_PARTS, len(order))):
        arrays = tokeniser.features(*tokeniser.pad([texts[i] for i in part]))
        inputs = {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}
        with torch.autocast(model.device.type, torch.bfloat16):
            embedded = model(inputs)["sentence_embedding"]
        vectors.append(F.normalize(embedded.float(), dim=-1))
    return torch.cat(vectors)[torch.from_numpy(np.argsort(order)).to(model.device)]


def _loss(scores: Tensor, pools: Sequence[Pool], rows: Ints) -> Tensor:
    """`scores` [anchors, titles of the step]: the pools' titles one pool after the other, then the hard negatives."""
    owner = np.repeat(np.arange(len(pools)), [len(pool.rows) for pool in pools])
    worth = torch.zeros(scores.shape, device=scores.device)
    own = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    # A title wanted by an anchor is no negative of it, in whatever pool it stands.
    for i, pool in enumerate(pools):
        own[i] = torch.from_numpy(np.isin(rows, pool.rows)).to(scores.device)
    places = torch.arange(len(owner), device=scores.device)
    mine = torch.from_numpy(owner).to(scores.device)
    gain = torch.from_numpy(np.concatenate([pool.gains for pool in pools]).astype(np.float32)).to(scores.device)
    others = scores.masked_fill(own, -1e9).logsumexp(1)[mine]
    wanted = scores[mine, places]
    against_others = (gain * (torch.logaddexp(others, wanted) - wanted)).sum() / gain.sum().clamp(min=1e-9)
    worth[mine, places] = gain
    within = torch.zeros_like(own).index_put((mine, places), torch.ones_like(mine, dtype=torch.bool))
    shares = worth / worth.sum(1, keepdim=True).clamp(min=1e-9)
    lists = -(shares * scores.masked_fill(~within, -1e9).log_softmax(1)).sum(1)
    return against_others + lists.sum() / (worth.sum(1) > 0).sum().clamp(min=1)
