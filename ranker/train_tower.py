"""Fit the user tower: next product from the products before, in-batch softmax with log-Q correction."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.arrays import Floats
from ranker.config import RankerConfig
from ranker.history import DISLIKE, RETURN
from ranker.precision import mixed
from ranker.recent import RECENT, age_buckets
from ranker.space import principal_projection
from ranker.user_tower import UserTower

# Fewer histories with something after them than this teach nothing.
FEWEST = 100
# Histories in a step, and targets drawn from what followed each: a basket of twenty is one history, not twenty.
_BATCH = 256
_TARGETS = 4
_TEMPERATURE = 0.07
# Share of products whose residual is hidden in a step, so that the title alone learns to place a new product.
_RESIDUAL_DROPOUT = 0.3


class _Histories(NamedTuple):
    """Engagements sorted by user and time; history i, `rows[first[i]:end[i]]`, was followed by `rows[end[i]:stop[i]]`.

    What followed happened at one time, strictly after the history: a basket is predicted from the baskets before.
    """

    rows: np.ndarray
    kinds: np.ndarray
    times: np.ndarray
    first: np.ndarray
    end: np.ndarray
    stop: np.ndarray


def fit_tower(
    engagements: pl.DataFrame,
    vectors: Floats,
    config: RankerConfig,
    device: torch.device,
    progress: Callable[[str], None],
) -> tuple[UserTower, Floats] | None:
    """The tower and the product vectors float32 [products, space]; None where the log is too short.

    `engagements` has user_id, row, kind, time, sorted by time.
    Loss: Yi et al., RecSys 2019, sampled softmax with the correction log Q of the batch's own frequencies.
    """
    histories = _histories(engagements)
    if len(histories.end) < FEWEST:
        return None
    torch.manual_seed(config.seed)
    tower = UserTower(vectors.shape[1], config.space)
    tower.project.weight.data = torch.from_numpy(principal_projection(vectors, config.space))
    residual = nn.Embedding(len(vectors), config.space, sparse=True)
    nn.init.zeros_(residual.weight)
    tower.to(device).train()
    residual.to(device)
    log_q = _log_frequency(histories, len(vectors)).to(device)
    titles = torch.from_numpy(np.array(vectors, np.float32)).to(device)
    dense = torch.optim.AdamW(tower.parameters(), lr=1e-3, weight_decay=1e-3)
    sparse = torch.optim.SparseAdam(residual.parameters(), lr=5e-3)
    rng = np.random.default_rng(config.seed)
    for epoch in range(config.tower_epochs):
        losses = []
        for batch in _batches(len(histories.end), rng):
            loss = _loss(tower, residual, titles, histories, batch, log_q, rng)
            dense.zero_grad()
            sparse.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            dense.step()
            sparse.step()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
        progress(f"user tower, pass {epoch + 1} of {config.tower_epochs}: loss {np.mean(losses):.4f}")
    tower.eval()
    with torch.inference_mode():
        space = tower.products(titles, residual.weight).cpu().numpy()
    return tower.cpu(), np.asarray(space, np.float32)


def _histories(engagements: pl.DataFrame) -> _Histories:
    # A served history holds no returns and no dislikes, and nobody wants either recommended.
    chosen = pl.col("user_id").is_not_null() & ~pl.col("kind").is_in([RETURN, DISLIKE])
    known = engagements.filter(chosen).sort(["user_id", "time"], maintain_order=True)
    rows, kinds, times = (known[name].to_numpy() for name in ("row", "kind", "time"))
    users = known["user_id"].rle_id().to_numpy()
    new_user = np.flatnonzero(np.diff(users, prepend=-1))
    moments = np.flatnonzero(np.diff(users, prepend=-1).astype(bool) | (np.diff(times, prepend=-np.inf) != 0))
    stops = np.append(moments[1:], len(rows))
    start = new_user[np.searchsorted(new_user, moments, side="right") - 1] if len(moments) else moments
    told = moments > start
    end, stop = moments[told], stops[told]
    return _Histories(rows, kinds, times, np.maximum(start[told], end - RECENT), end, stop)


def _log_frequency(histories: _Histories, products: int) -> Tensor:
    counts = np.maximum(np.bincount(histories.rows, minlength=products), 1)
    return torch.from_numpy(np.log(counts / counts.sum()).astype(np.float32))


def _batches(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    order = rng.permutation(count)
    return [order[i : i + _BATCH] for i in range(0, count, _BATCH) if len(order[i : i + _BATCH]) > 1]


def _loss(
    tower: UserTower,
    residual: nn.Embedding,
    titles: Tensor,
    histories: _Histories,
    batch: np.ndarray,
    log_q: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    device = titles.device
    first, end = histories.first[batch], histories.end[batch]
    steps = first[:, None] + np.arange(int((end - first).max()))
    present = steps < end[:, None]
    steps = np.where(present, steps, first[:, None])
    ages = torch.from_numpy(age_buckets(histories.times[end, None] - histories.times[steps])).to(device)
    kinds = torch.from_numpy(histories.kinds[steps].astype(np.int64)).to(device)
    rows = torch.from_numpy(histories.rows[steps]).to(device)
    with mixed(device):
        history = _product_vectors(tower, residual, titles, rows)
        users = tower(history, ages, kinds, torch.from_numpy(present).to(device))

    drawn = np.minimum(histories.stop[batch] - end, _TARGETS)
    owner = np.repeat(np.arange(len(batch)), drawn)
    places = end[owner] + rng.integers(0, (histories.stop[batch] - end)[owner])
    targets = torch.from_numpy(histories.rows[places]).to(device)
    with mixed(device):
        products = _product_vectors(tower, residual, titles, targets)
    mine = torch.from_numpy(owner).to(device)
    # Outside, in float32: by the temperature a cosine's error counts fourteen times.
    logits = users.float()[mine] @ products.float().T / _TEMPERATURE - log_q[targets]
    # A column that is this row's target again, or another target of the same history, is no negative.
    known = (targets[:, None] == targets[None, :]) | (mine[:, None] == mine[None, :])
    known.fill_diagonal_(False)
    return F.cross_entropy(logits.masked_fill(known, -1e9), torch.arange(len(targets), device=device))


def _product_vectors(tower: UserTower, residual: nn.Embedding, titles: Tensor, rows: Tensor) -> Tensor:
    """Vectors of `rows`, each distinct row projected once."""
    distinct, where = torch.unique(rows, return_inverse=True)
    shown = (torch.rand(len(distinct), 1, device=rows.device) >= _RESIDUAL_DROPOUT).float()
    return tower.products(titles[distinct], residual(distinct) * shown)[where]
