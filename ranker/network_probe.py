"""Lists made up for one network, to compare and to time what runs it."""

import numpy as np

from indexer.arrays import Floats
from ranker.features import FIRST_PLACE, Context
from ranker.history import CLICK, History
from ranker.network import Network
from ranker.recent import RECENT
from ranker.scoring import Scorable

_NOW = 1_700_000_000.0
# The first list is the usual request: a short history and a query.
_ENGAGEMENTS = (10, RECENT, 0)
_MISSING = 0.1


def probe(network: Network, space: Floats, lists: int, rows: int, seed: int = 0) -> list[Scorable]:
    """So many lists of `rows` products, of all kinds: with and without a query and a history.

    Features are drawn with the training slice's mean and deviation, a tenth of them do not apply; vectors are the
    shop's own, a product's stands for the query's.
    """
    rng = np.random.default_rng(seed)
    return [_list(network, space, rows, _ENGAGEMENTS[i % 3], i % 2 == 0, rng) for i in range(lists)]


def _list(
    network: Network, space: Floats, rows: int, engagements: int, query: bool, rng: np.random.Generator
) -> Scorable:
    mean, deviation = (part.detach().cpu().numpy() for part in (network.mean, network.deviation))
    x = mean + deviation * rng.normal(size=(rows, len(mean)))
    x[rng.random(x.shape) < _MISSING] = np.nan
    if network.place is not None:
        x[:, network.place] = np.log(FIRST_PLACE)
    products = rng.integers(0, len(space), engagements)
    times = np.sort(_NOW - 10 ** rng.uniform(1, 8, engagements))
    history = History(tuple(products.tolist()), (CLICK,) * engagements, tuple(times.tolist()))
    vector = np.array(space[rng.integers(len(space))], np.float32) if query else None
    context = Context(_NOW, history, query_in_space=vector)
    return Scorable(context, rng.integers(0, len(space), rows), x.astype(np.float32))
