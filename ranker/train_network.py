"""Fit the DNN click model on lists: a click loss that calibrates and a list loss that ranks."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from indexer.arrays import Doubles, Floats
from ranker import ranked
from ranker.config import RankerConfig
from ranker.examples import Example
from ranker.features import PLACE
from ranker.metrics import gains
from ranker.network import Network, NetworkInput, network_input
from ranker.precision import mixed
from ranker.scoring import Scorable

_REQUESTS = 32
_RATE = 5e-4
# Rows of a list that a training step looks at: all that were wanted and a fresh draw of the others.
_LIST = 48
# How often a pass is measured on the later slice, and measurements without a better NDCG before training stops.
_MEASURED = 2
_PATIENCE = 4
# Lists of the later slice it is measured on: of ten thousand, measuring would take three quarters of the training.
_WATCHED = 2_000
# Steps over which the weights are averaged, a pass at most: the average ranks better than the last step's, and more
# steadily. Over more than a pass it would still hold the weights of the start where a log is short.
_AVERAGED = 100


class Fitted(NamedTuple):
    """A network, and after how many parts of a pass over its lists it ranked later ones best."""

    network: Network
    parts: int


class _Part(NamedTuple):
    """The state after one part of a pass: the averaged network, and whether the pass ends here."""

    network: Network
    epoch: int
    part: int
    ends: bool
    loss: float


def fit_network(
    train: Sequence[Example],
    later: Sequence[Example],
    space: Floats,
    config: RankerConfig,
    device: torch.device,
    progress: Callable[[str], None],
    place: int | None = PLACE,
) -> Fitted:
    """The network that ranks `later` best after some part of a pass over `train`."""
    watched = [later[i] for i in np.linspace(0, len(later) - 1, min(len(later), _WATCHED)).astype(int)]
    best: dict[str, Tensor] = {}
    best_score, best_parts, done = -np.inf, 0, 0
    parts = _parts(train, space, config, device, place)
    while True:
        network, epoch, part, ends, loss = next(parts)
        done += 1
        score = mean_ndcg(logits(network, watched, space, device), watched)
        progress(f"DNN, pass {epoch}.{part}: loss {loss:.4f}, later NDCG@10 {score:.4f}")
        if score > best_score or not best:
            best_score, best_parts = score, done
            best = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        if ends and (epoch == config.network_epochs or done - best_parts >= _PATIENCE):
            network.load_state_dict(best)
            return Fitted(network.cpu().eval(), best_parts)


def train_network(
    train: Sequence[Example],
    parts: int,
    space: Floats,
    config: RankerConfig,
    device: torch.device,
    place: int | None = PLACE,
) -> Network:
    """The network after so many parts of a pass over `train`, trained as `fit_network` does."""
    network = next(islice(_parts(train, space, config, device, place), parts - 1, None)).network
    return network.cpu().eval()


def _parts(
    train: Sequence[Example], space: Floats, config: RankerConfig, device: torch.device, place: int | None
) -> Iterator[_Part]:
    """Train without end, and hold at each part of a pass."""
    torch.manual_seed(config.seed)
    network = Network(train[0].features.shape[1], space.shape[1], place)
    network.standardise(torch.from_numpy(np.concatenate([example.features for example in train])))
    network.to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-2)
    averaged = min(_AVERAGED, len(train) // _REQUESTS + 1)
    average_of: Any = get_ema_multi_avg_fn(1.0 - 1.0 / averaged)  # type: ignore[no-untyped-call]
    average: Any = AveragedModel(network, multi_avg_fn=average_of, use_buffers=True)
    rng = np.random.default_rng(config.seed)
    for epoch in count(1):
        batches = _batches(train, rng)
        split = np.array_split(np.arange(len(batches)), min(_MEASURED, len(batches)))
        for part, steps in enumerate(split, 1):
            network.train()
            losses = []
            for i in steps:
                losses.append(_step(network, optimiser, batches[i], space, config.positive_grade, device))
                average.update_parameters(network)
            yield _Part(average.module, epoch, part, part == len(split), float(np.mean(losses)))


def logits(network: Network, examples: Sequence[Example], space: Floats, device: torch.device) -> list[Doubles]:
    """The network's logits for each list, in float32 on any device."""
    network.eval()
    out: list[Doubles] = []
    for start in range(0, len(examples), _REQUESTS):
        batch = examples[start : start + _REQUESTS]
        with torch.inference_mode():
            scores = network(_input(batch, space, device)).cpu().numpy().astype(np.float64)
        out.extend(np.split(scores, np.cumsum([len(example.rows) for example in batch])[:-1]))
    return out


def mean_ndcg(scores: Sequence[Doubles], examples: Sequence[Example]) -> float:
    """Mean NDCG@10 of the lists that have a gain, -inf where none has; see `ranked.answers`."""
    values = ranked.ndcg(scores, ranked.answers(examples, np.inf))
    return float(np.nanmean(values)) if np.isfinite(values).any() else -np.inf


def _input(batch: Sequence[Example], space: Floats, device: torch.device) -> NetworkInput:
    made = network_input([Scorable(e.context, e.rows, e.features) for e in batch], space)
    return NetworkInput(*(tensor.to(device) for tensor in made))


def _batches(examples: Sequence[Example], rng: np.random.Generator) -> list[list[Example]]:
    order = rng.permutation(len(examples))
    return [
        [_drawn(examples[i], rng) for i in order[start : start + _REQUESTS]]
        for start in range(0, len(order), _REQUESTS)
    ]


def _drawn(example: Example, rng: np.random.Generator) -> Example:
    """At most _LIST rows of a list; what calibration the draw costs, the calibration on whole lists gives back."""
    if len(example.rows) <= _LIST:
        return example
    wanted = np.flatnonzero(example.grades > 0)
    others = np.flatnonzero(example.grades <= 0)
    kept = np.concatenate([wanted, rng.permutation(others)[: max(_LIST - len(wanted), _LIST // 2)]])
    return example._replace(rows=example.rows[kept], features=example.features[kept], grades=example.grades[kept])


def _step(
    network: Network,
    optimiser: torch.optim.Optimizer,
    batch: Sequence[Example],
    space: Floats,
    positive: float,
    device: torch.device,
) -> float:
    x = _input(batch, space, device)
    grades = np.concatenate([example.grades for example in batch])
    with mixed(device):
        scores = network(x)
    clicked = torch.from_numpy((grades >= positive).astype(np.float32)).to(device)
    worth = torch.from_numpy(gains(grades).astype(np.float32)).to(device)
    loss = F.binary_cross_entropy_with_logits(scores, clicked) + _list_loss(scores, worth, x.request, len(batch))
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.item())


def _list_loss(scores: Tensor, worth: Tensor, request: Tensor, requests: int) -> Tensor:
    """Softmax cross-entropy of each list against its normalised gains (ListNet, Cao et al., ICML 2007)."""
    counts = torch.bincount(request, minlength=requests)
    place = torch.arange(len(request), device=request.device) - (counts.cumsum(0) - counts)[request]
    shape = (requests, int(counts.max()))
    table = torch.full(shape, -1e9, device=scores.device).index_put((request, place), scores)
    target = torch.zeros(shape, device=scores.device).index_put((request, place), worth)
    total = target.sum(1)
    losses = -(target * table.log_softmax(1)).sum(1) / total.clamp(min=1e-9)
    return losses[total > 0].mean() if bool((total > 0).any()) else scores.sum() * 0.0
