"""Fit the user tower: next product from the products before, in-batch softmax with log-Q correction."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

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
# Histories of like length that go through the tower together: padded to the longest of a whole batch, they would take
# 44 places each on Games, where they are 8 long.
_ALIKE = 32
_TEMPERATURE = 0.1
_RATE, _RESIDUAL_RATE = 1e-3, 5e-3
# Share of the steps over which the rates rise; from there they fall to nothing, without which the last passes only
# learn the slice by heart.
_WARM = 0.05
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
    dense = torch.optim.AdamW(tower.parameters(), lr=_RATE, weight_decay=1e-3)
    sparse = torch.optim.SparseAdam(residual.parameters(), lr=_RESIDUAL_RATE)
    rng = np.random.default_rng(config.seed)
    passes = [_batches(len(histories.end), rng) for _ in range(config.tower_epochs)]
    rates = _schedules((dense, sparse), sum(map(len, passes)))
    for epoch, batches in enumerate(passes):
        losses = []
        for batch in batches:
            loss = _loss(tower, residual, titles, histories, batch, log_q, rng)
            dense.zero_grad()
            sparse.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            dense.step()
            sparse.step()  # type: ignore[no-untyped-call]
            for rate in rates:
                rate.step()
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
    batch = batch[np.argsort(histories.end[batch] - histories.first[batch], kind="stable")]
    end = histories.end[batch]
    users = _users(tower, residual, titles, histories, batch)
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


def _users(
    tower: UserTower, residual: nn.Embedding, titles: Tensor, histories: _Histories, batch: np.ndarray
) -> Tensor:
    """User vectors [histories, space] of a batch sorted by length: those of like length go together."""
    device = titles.device
    first, end = histories.first[batch], histories.end[batch]
    rows = np.unique(np.concatenate([histories.rows[since:until] for since, until in zip(first, end, strict=True)]))
    vectors = []
    with mixed(device):
        products = _product_vectors(tower, residual, titles, torch.from_numpy(rows).to(device))
        for start in range(0, len(batch), _ALIKE):
            since, until = first[start : start + _ALIKE], end[start : start + _ALIKE]
            steps = since[:, None] + np.arange(int((until - since).max()))
            present = steps < until[:, None]
            steps = np.where(present, steps, since[:, None])
            shown = np.searchsorted(rows, histories.rows[steps])
            ages = age_buckets(histories.times[until, None] - histories.times[steps])
            told = (ages, histories.kinds[steps].astype(np.int64), present)
            history = F.embedding(torch.from_numpy(shown).to(device), products)
            vectors.append(tower(history, *(torch.from_numpy(part).to(device) for part in told)))
    return torch.cat(vectors)


def _schedules(optimisers: Sequence[Optimizer], steps: int) -> list[LambdaLR]:
    """Rates that rise over the first of `steps` and then fall to nothing."""
    warm = max(_WARM * steps, 1.0)
    return [LambdaLR(each, lambda step: min((step + 1) / warm, 1.0) * (1.0 - step / steps)) for each in optimisers]


def _product_vectors(tower: UserTower, residual: nn.Embedding, titles: Tensor, rows: Tensor) -> Tensor:
    """Vectors of `rows`, each distinct row projected once."""
    distinct, where = torch.unique(rows, return_inverse=True)
    shown = (torch.rand(len(distinct), 1, device=rows.device) >= _RESIDUAL_DROPOUT).float()
    return tower.products(titles[distinct], residual(distinct) * shown)[where]
