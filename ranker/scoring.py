"""Lists of candidates to the network's input, one batch for several requests."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from indexer.arrays import Floats, Ints
from ranker.features import Context
from ranker.network import NetworkInput
from ranker.user_tower import Recent, recent


class Scorable(NamedTuple):
    """One request's candidates and their features."""

    context: Context
    rows: Ints
    features: Floats


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
