"""Where the DNN is served: on the card, for as many lists as it is measured to be faster for there, else in NumPy."""

import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from indexer import fallbacks
from indexer.amended import Vectors
from indexer.arrays import Doubles, Floats
from indexer.remote import in_use
from indexer.room import RESERVE, card_memory
from ranker.card_network import RECORDED, CardNetwork
from ranker.compiled_network import CompiledNetwork
from ranker.network import Network
from ranker.network_probe import probe
from ranker.scoring import Scorable

logger = logging.getLogger(__name__)

# So many lists are timed at once, so often each.
SIZES, _ROUNDS = (1, 4, 16), (15, 9, 5)
# By how much a logit may differ from NumPy's in float32. A hundredth moves the odds of a click by 1 %.
AGREES = {torch.float16: 0.01, torch.float32: 0.001}
_GIB = 2**30

# The free bytes and all bytes of a card, and those that this process holds there.
Look = Callable[[torch.device], tuple[int, int, int]]

# Those that are on a card, for as long as they live: a release that follows one has its room.
_there: "weakref.WeakSet[CardNetwork]" = weakref.WeakSet()
_placing = threading.Lock()


class SharedNetwork:
    """A network scored on a card where `least` lists or more come at once, and in NumPy where fewer do.

    Whatever the card cannot do is done in NumPy: this once where memory ran out or a logit is no number, and from then
    on where anything else went wrong, after which a card is not to be trusted.
    """

    def __init__(self, card: CardNetwork, compiled: CompiledNetwork, least: int) -> None:
        self._card, self._compiled, self._least = card, compiled, least
        self._said = self._given_up = False

    @property
    def kind(self) -> str:
        """What it runs on, for people."""
        if self._given_up:
            return self._compiled.kind
        return f"{self._card.kind} from {self._least} lists on" if self._least > 1 else self._card.kind

    def logits(self, lists: Sequence[Scorable], space: Vectors) -> Doubles:
        """See `CompiledNetwork.logits`; vectors of another `space` than the one on the card are read by NumPy."""
        if len(lists) < self._least or space is not self._card.space:
            return self._compiled.logits(lists, space)
        if not self._given_up:
            try:
                return self._card.logits(lists)
            except Exception as error:  # Whatever a driver raises, the CPU still works.
                self._given_up = not isinstance(error, torch.OutOfMemoryError | FloatingPointError)
                if not self._said:
                    _warn(self._card.device, str(error))
                self._said = True
        fallbacks.count("DNN")
        return self._compiled.logits(lists, space)


def on_card(network: Network, space: Floats, rows: int, device: torch.device) -> CompiledNetwork | SharedNetwork:
    """What scores lists of at most `rows` products of `space`, as a rule, with `network` on a card.

    Where another process holds the card for several, that is NumPy: each of them has a core for it.
    """
    compiled = CompiledNetwork.of(network)
    if in_use() is not None:
        return compiled
    return placed(network, compiled, space, rows, torch.device(device.type, device.index or 0))


def placed(
    network: Network,
    compiled: CompiledNetwork,
    space: Floats,
    rows: int,
    device: torch.device,
    look: Look | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> CompiledNetwork | SharedNetwork:
    """The network on `device`, if it has room, agrees and is faster for some number of lists; else `compiled`.

    What goes wrong is told in a warning; that NumPy is faster is not wrong, and told as information.
    """
    with _placing:
        try:
            lists = probe(network, space, SIZES[-1], rows)
            card = _agreeing(network, compiled, space, lists, device, look or _look)
            if card is None:
                return compiled
            times = _timed((card.logits, partial(compiled.logits, space=space)), lists, clock)
            least = won(*zip(*times, strict=True))
            if least is not None:
                _warm_up(card, lists, least)
        except Exception as error:  # Whatever a driver raises, the CPU still works.
            fallbacks.count("DNN")
            _warn(device, str(error))
            return compiled
        told = ", ".join(f"{n}: {1e3 * a:.2f} and {1e3 * b:.2f}" for n, (a, b) in zip(SIZES, times, strict=True))
        told = f"milliseconds for lists of {rows} products, there and in NumPy, by their number: {told}"
        if least is None:
            logger.info("The DNN is served in NumPy, which is faster than %s; %s", card.kind, told)
            return compiled
        _there.add(card)
        shared = SharedNetwork(card, compiled, least)
        logger.info("The DNN is served on %s; %s", shared.kind, told)
        return shared


def won(card: Sequence[float], numpy: Sequence[float]) -> int | None:
    """The fewest of SIZES from which on the card took less time at each; None where it took more at the most."""
    least = None
    for size, mine, other in reversed(list(zip(SIZES, card, numpy, strict=True))):
        if mine >= other:
            break
        least = size
    return least


def verdict(size: int, follows: bool, memory: tuple[int, int, int], reserve: int = RESERVE) -> str | None:
    """Why `size` more bytes do not fit on a card of `memory` (free, total, held); None where they do.

    At a swap two releases are there. The first is therefore admitted only where all that this process holds and itself
    would fit once more; one that `follows` another has had its room kept.
    """
    free, total, held = memory
    wanted = size + reserve + (0 if follows else held + size)
    if wanted <= free:
        return None
    beside = "" if follows else f", as much again ({_gib(held + size)}) for the release that follows"
    told = f"the product space needs {_gib(size)}{beside} and {_gib(reserve)} of reserve"
    return f"{told}; {_gib(free)} of {_gib(total)} are free"


def _agreeing(
    network: Network,
    compiled: CompiledNetwork,
    space: Floats,
    lists: Sequence[Scorable],
    device: torch.device,
    look: Look,
) -> CardNetwork | None:
    """The network on a card in the coarsest type that agrees with NumPy, and has room; None, with a warning."""
    expected = compiled.logits(lists, space)
    told = ""
    for dtype, most in AGREES.items():
        follows = any(each.device == device for each in _there)
        if why := verdict(space.size * dtype.itemsize, follows, look(device)):
            told += why
            break
        card = CardNetwork(network, space, device, dtype, len(lists[0].rows))
        apart = _apart(card, lists, expected)
        if apart <= most:
            logger.info("The DNN's logits on %s are within %.4f of float32 in NumPy.", card.kind, apart)
            return card
        told += f"its logits in {dtype} are off by {apart:.4f}; "
        del card  # Before the next one is given room.
    fallbacks.count("DNN")
    _warn(device, told.removesuffix("; "))
    return None


def _warm_up(card: CardNetwork, lists: list[Scorable], least: int) -> None:
    """Meet every shape that lists of the usual length have: the first time, each takes some tens of milliseconds."""
    count = least
    while count <= RECORDED:
        card.logits(lists[:1] * count)
        count *= 2


def _apart(card: CardNetwork, lists: Sequence[Scorable], expected: Doubles) -> float:
    """The most by which a logit differs; infinite where one is no number."""
    try:
        return float(np.abs(card.logits(lists) - expected).max())
    except FloatingPointError:
        return np.inf


def _timed(
    runs: Sequence[Callable[[Sequence[Scorable]], object]], lists: Sequence[Scorable], clock: Callable[[], float]
) -> list[tuple[float, ...]]:
    """The least seconds of each run for each of SIZES, taken in turn: whatever else a machine does only adds."""
    times = []
    for size, rounds in zip(SIZES, _ROUNDS, strict=True):
        some = lists[:size]
        for run in runs:
            # The first pass of a shape is slower on a card.
            run(some)
        taken = [[_seconds(run, some, clock) for run in runs] for _ in range(rounds)]
        times.append(tuple(map(min, zip(*taken, strict=True))))
    return times


def _seconds(
    run: Callable[[Sequence[Scorable]], object], lists: Sequence[Scorable], clock: Callable[[], float]
) -> float:
    start = clock()
    run(lists)
    return clock() - start


def _look(device: torch.device) -> tuple[int, int, int]:
    return *card_memory(device), torch.cuda.memory_allocated(device)


def _warn(device: torch.device, why: str) -> None:
    logger.warning("The DNN is served in NumPy in place of %s: %s.", device, why)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
