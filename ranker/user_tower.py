"""The user tower as it is trained: attention over a user's recent products gives a vector in the product space."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ranker.compiled_tower import HEADS
from ranker.recent import AGES, RECENT

_KINDS = 8


class _Mix(nn.Module):
    """One pre-norm self-attention layer (Vaswani et al. 2017). PyTorch's own encoder layer takes 6 ms for one user."""

    def __init__(self, width: int, heads: int = HEADS) -> None:
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
        self.age = nn.Embedding(AGES, space)
        self.kind = nn.Embedding(_KINDS, space)
        self.place = nn.Embedding(RECENT, space)
        self.mix = _Mix(space)
        self.weigh = nn.Linear(space, 1)
        self.out = nn.Linear(space, space)
        # Vectors name products: without this the tower learns by heart who bought what.
        self.forget = nn.Dropout(0.2)
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
        history = self.forget(history)
        x = history + self.age(ages) + self.kind(kinds) + self.place(back.clamp(0, RECENT - 1))
        x = history + self.mix(x, present)
        weights = self.weigh(x).squeeze(-1).masked_fill(~present, -1e9).softmax(-1)
        return F.normalize(self.out((weights[..., None] * x).sum(1)), dim=-1)
