"""The DNN click model, forward only: target attention over the history, cross layers, and a multi-layer perceptron."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from indexer.arrays import Floats
from ranker.recent import AGES, Recent, recent
from ranker.scoring import Scorable
from ranker.weights import Weights


class NetworkInput(NamedTuple):
    """Candidates of some requests, flat. F features, d dimensions of the product space, L recent engagements."""

    features: Tensor  # float32 [candidates, F], NaN where a feature does not apply
    candidates: Tensor  # float32 [candidates, d], their vectors in the product space
    request: Tensor  # int64 [candidates], the request each belongs to
    queries: Tensor  # float32 [requests, d], zeros where there is no query
    history: Tensor  # float32 [requests, L, d]
    ages: Tensor  # int64 [requests, L]
    present: Tensor  # bool [requests, L]


class CrossLayer(nn.Module):
    """x0 * (U V x + b) + x, the low-rank cross layer of DCN-V2 (Wang et al., WWW 2021)."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank, bias=False)
        self.up = nn.Linear(rank, width)

    def forward(self, first: Tensor, x: Tensor) -> Tensor:
        crossed: Tensor = self.up(self.down(x))
        return first * crossed + x


class Network(nn.Module):
    """Click logit of each candidate.

    The candidate attends over the history (DIN, Zhou et al., KDD 2018, with scaled dot products); keys and values are
    made once a request. Features are standardised with the training slice's mean and deviation; a NaN becomes the mean.
    What the place of a row (column `place`, if there is one) does to its clicks is a term of its own (shallow tower,
    Zhao et al., RecSys 2019): served rows are all at the first place, where it is the same for each.
    """

    def __init__(self, features: int, space: int, place: int | None = None, ages: int = AGES) -> None:
        super().__init__()
        self.place = place
        self.seen = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.age = nn.Embedding(ages, space)
        self.key = nn.Linear(space, space)
        self.value = nn.Linear(space, space)
        self.ask = nn.Linear(space, space)
        width = features + 5 * space
        self.cross = nn.ModuleList(CrossLayer(width, 32) for _ in range(2))
        self.deep = nn.Sequential(
            nn.Linear(width, 128), nn.ReLU(), nn.Dropout(0.1), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.1)
        )
        # Vectors name products: without this the network learns the training slice's by heart.
        self.forget = nn.Dropout(0.2)
        self.logit = nn.Linear(width + 64, 1)

    def standardise(self, features: Tensor) -> None:
        """Take mean and deviation from the training slice's features."""
        self.mean = features.nanmean(0).nan_to_num(0.0)
        variance = (features - self.mean).square().nanmean(0).nan_to_num(1.0)
        self.deviation = variance.sqrt().clamp(min=1e-3)

    def forward(self, x: NetworkInput) -> Tensor:
        """Logits float32 [candidates]."""
        return self.combined(x.features, x.candidates, self._interest(x), x.queries[x.request])

    def combined(self, features: Tensor, candidates: Tensor, interest: Tensor, queries: Tensor) -> Tensor:
        """Logits float32 [candidates]; `interest` [candidates, d] by `attended`, `queries` [candidates, d].

        Features are float32, for they are of all scales; the rest may be coarser.
        """
        features = ((features - self.mean) / self.deviation).clamp(-6, 6).nan_to_num(0.0)
        shown = None if self.place is None else features[:, self.place, None]
        if self.place is not None:
            features = features.clone()
            features.select(1, self.place).zero_()
        vectors = [candidates, interest, interest * candidates, queries, queries * candidates]
        known = self.forget(torch.cat(vectors, dim=1))
        first = torch.cat([features.to(candidates.dtype), known], dim=1)
        crossed = first
        for layer in self.cross:
            crossed = layer(first, crossed)
        last = torch.cat([crossed, self.deep(first)], dim=1)
        # Whatever the rest was in: rounded to half precision, many logits of a list would be equal.
        with torch.autocast(last.device.type, enabled=False):
            clicked = self.logit(last.float())
            logits = clicked if shown is None else clicked + self.seen(shown)
        return logits.squeeze(1)  # type: ignore[no-any-return]

    def attended(self, asked: Tensor, history: Tensor, ages: Tensor, present: Tensor) -> Tensor:
        """What of each request's history bears on its candidates, [requests, candidates, d]; zeros without a history.

        `asked` [requests, candidates, d] are the candidates by `ask`, the others as in `NetworkInput`.
        """
        told = history + self.age(ages)
        # In float32, which the -1e9 needs.
        weights = (asked @ self.key(told).transpose(1, 2)).float() * told.shape[2] ** -0.5
        present = present[:, None, :]
        weights = weights.masked_fill(~present, -1e9).softmax(2) * present
        values = self.value(told)
        interest: Tensor = weights.to(values.dtype) @ values
        return interest

    def _interest(self, x: NetworkInput) -> Tensor:
        """`attended` for flat candidates, [candidates, d]."""
        counts = torch.bincount(x.request, minlength=len(x.history))
        place = torch.arange(len(x.request), device=x.request.device) - (counts.cumsum(0) - counts)[x.request]
        # Candidates side by side a request: the keys of a history are then used where they lie, not copied a candidate.
        asked = self.ask(x.candidates)
        table = asked.new_zeros(len(x.history), int(counts.max()), asked.shape[1])
        table = table.index_put((x.request, place), asked)
        return self.attended(table, x.history, x.ages, x.present)[x.request, place]


def network_input(lists: Sequence[Scorable], space: Floats) -> NetworkInput:
    """The network's input for some requests; `space` [products, d] are the vectors of the product space."""
    histories = [recent(item.context.history, item.context.now) for item in lists]
    together = Recent(*(np.concatenate(parts) for parts in zip(*histories, strict=True)))
    # The longest history decides the width: most requests need far fewer than the most the network takes.
    width = max(int((together.rows >= 0).sum(1).max()), 1)
    rows = together.rows[:, :width]
    nothing = np.zeros(space.shape[1], np.float32)
    queries = [nothing if (q := item.context.query_in_space) is None else q for item in lists]
    return NetworkInput(
        features=torch.from_numpy(np.concatenate([item.features for item in lists])),
        candidates=torch.from_numpy(np.asarray(space[np.concatenate([item.rows for item in lists])])),
        request=torch.from_numpy(np.repeat(np.arange(len(lists)), [len(item.rows) for item in lists])),
        queries=torch.from_numpy(np.stack(queries)),
        history=torch.from_numpy(np.asarray(space[np.maximum(rows, 0)])),
        ages=torch.from_numpy(together.ages[:, :width]),
        present=torch.from_numpy(rows >= 0),
    )


def network_of(weights: Weights, place: int | None) -> Network:
    """The network of such parameters, ready to score."""
    network = Network(len(weights["mean"]), weights["age.weight"].shape[1], place, len(weights["age.weight"]))
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
    return network.eval()
