"""The product space, and the user tower: attention over a user's recent products gives a vector in that space."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.arrays import Floats
from ranker.history import History

# Engagements the tower and the DNN attend over.
RECENT = 50
_AGES = 12
_KINDS = 8
_DAY = 86_400.0


class Recent(NamedTuple):
    """The newest engagements of some users, padded at the end: int64 [users, RECENT], row -1 where there is none."""

    rows: np.ndarray
    ages: np.ndarray
    kinds: np.ndarray


def recent(history: History, now: float) -> Recent:
    """The newest RECENT engagements of one history as of `now`, as arrays of one user."""
    rows, ages, kinds = (np.full((1, RECENT), fill, np.int64) for fill in (-1, 0, 0))
    taken = min(len(history.rows), RECENT)
    if taken:
        rows[0, :taken] = history.rows[-taken:]
        kinds[0, :taken] = history.kinds[-taken:]
        ages[0, :taken] = age_buckets(now - np.array(history.times[-taken:]))
    return Recent(rows, ages, kinds)


def age_buckets(seconds: np.ndarray) -> np.ndarray:
    """Ages by doubling days: 0 below 15 minutes, then 1 up to a day, 2 up to three days, 3 up to seven ..."""
    days = np.maximum(seconds, 0.0) / _DAY
    buckets = 1 + np.floor(np.log2(days + 1.0)).astype(np.int64)
    return np.where(seconds < 900, 0, buckets).clip(0, _AGES - 1)


class _Mix(nn.Module):
    """One pre-norm self-attention layer (Vaswani et al. 2017). PyTorch's own encoder layer takes 6 ms for one user."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.before = nn.LayerNorm(width)
        self.parts = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        users, length, width = x.shape
        parts = self.parts(self.before(x)).view(users, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        told = F.scaled_dot_product_attention(query, key, value, attn_mask=present[:, None, None, :])
        x = x + self.join(told.transpose(1, 2).reshape(users, length, width))
        return x + self.feed(x)  # type: ignore[no-any-return]


class UserTower(nn.Module):
    """Title vector -> product space by a projection; recent products in that space -> user vector.

    Pooling attention (Bahdanau et al. 2015) over one self-attention layer; ages, kinds and places of the engagements
    are embedded beside the products.
    """

    def __init__(self, title: int, space: int) -> None:
        super().__init__()
        self.project = nn.Linear(title, space, bias=False)
        self.age = nn.Embedding(_AGES, space)
        self.kind = nn.Embedding(_KINDS, space)
        self.place = nn.Embedding(RECENT, space)
        self.mix = _Mix(space)
        self.weigh = nn.Linear(space, 1)
        self.out = nn.Linear(space, space)
        for table in (self.age, self.kind, self.place):
            nn.init.normal_(table.weight, std=0.02)
        # Starts as the plain mean of the recent products, which recommends sensibly from the first step.
        nn.init.zeros_(self.weigh.weight)
        nn.init.eye_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def products(self, titles: Tensor, residual: Tensor | float = 0.0) -> Tensor:
        """Unit product vectors [n, space] of title vectors [n, title]; a new product has no residual."""
        return F.normalize(F.normalize(self.project(titles), dim=-1) + residual, dim=-1)

    def forward(self, history: Tensor, ages: Tensor, kinds: Tensor, present: Tensor) -> Tensor:
        """Unit user vectors [users, space] of product vectors [users, L, space]; `present` bool [users, L]."""
        # Steps back from the newest, which stands last of those present.
        back = present.sum(1, keepdim=True) - 1 - torch.arange(present.shape[1], device=present.device)
        x = history + self.age(ages) + self.kind(kinds) + self.place(back.clamp(0, RECENT - 1))
        x = history + self.mix(x, present)
        weights = self.weigh(x).squeeze(-1).masked_fill(~present, -1e9).softmax(-1)
        return F.normalize(self.out((weights[..., None] * x).sum(1)), dim=-1)


def user_vector(tower: UserTower, space: Floats, history: History, now: float) -> Floats:
    """The vector float32 [space] of one non-empty history. One user at a time: a batch could change its last bits."""
    rows, ages, kinds = (part[:, : len(history.rows)] for part in recent(history, now))
    vectors = torch.from_numpy(np.asarray(space[rows]))
    with torch.inference_mode():
        vector = tower(vectors, torch.from_numpy(ages), torch.from_numpy(kinds), torch.from_numpy(rows >= 0))
    return np.asarray(vector[0].numpy(), np.float32)


def in_space(projection: Floats, vector: Floats) -> Floats:
    """A title or query vector [title] as a unit vector [space]; `projection` is the tower's weight [space, title]."""
    projected = projection @ vector
    return np.asarray(projected / max(float(np.linalg.norm(projected)), 1e-12), np.float32)


def principal_projection(vectors: Floats, space: int) -> Floats:
    """The projection [space, title] on the titles' principal axes: the product space of a shop without a log."""
    sample = np.asarray(vectors[:20_000], np.float32)
    axes = np.linalg.svd(sample, full_matrices=False)[2]
    axes = axes[: min(space, len(axes))]
    return np.asarray(np.pad(axes, ((0, space - len(axes)), (0, 0))), np.float32)
