"""Where an index is searched: on the card that the configuration chooses, or as its manifest says."""

import logging
import threading
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch

from indexer import fallbacks
from indexer.arrays import Floats
from indexer.card import CardIndex
from indexer.config import IndexerConfig
from indexer.device import card
from indexer.exact import ExactIndex
from indexer.index import Index
from indexer.remote import in_use, open_remote
from indexer.room import Memory, Resident, card_memory, verdict

logger = logging.getLogger(__name__)

# Off by more than this, a card's scores are wrong and not only rounded: both are float32.
_AGREES = 1e-4


class Residents:
    """The indexes that are on a card, for as long as they live."""

    def __init__(self) -> None:
        self._held: weakref.WeakKeyDictionary[CardIndex, tuple[torch.device, Resident]] = weakref.WeakKeyDictionary()

    def of(self, device: torch.device) -> list[Resident]:
        """Those on one card."""
        return [resident for place, resident in self._held.values() if place == device]

    def add(self, index: CardIndex, device: torch.device, resident: Resident) -> None:
        """Count `index` until its last reference is gone."""
        self._held[index] = (device, resident)


_residents = Residents()
# An index is admitted and copied before the next one is looked at.
_placing = threading.Lock()


def on_card(vectors: Floats, folder: Path, config: IndexerConfig) -> Index | None:
    """The exact index of `vectors` on the configured card; None where there is none, or where it will not do.

    `folder` is the directory of the store that the index is opened from. Where another process holds the card for this
    one, that is asked. Raises `ConfigError` where a card is asked for that is not there. All else that goes wrong is
    told in a warning, and the CPU searches.
    """
    if (holder := in_use()) is not None:
        return open_remote(holder, vectors, folder)
    device = card(config.device)
    if device is None:
        return None
    return placed(vectors, folder.parent.name, torch.device(device.type, device.index or 0))


def _warn(device: torch.device, why: str) -> None:
    fallbacks.count("search")
    logger.warning("The CPU searches in place of %s: %s.", device, why)


def placed(
    vectors: Floats,
    shelf: str,
    device: torch.device,
    memory: Memory = card_memory,
    residents: Residents = _residents,
    refuse: Callable[[torch.device, str], None] = _warn,
) -> CardIndex | None:
    """The exact index of `vectors` on `device`, if the device works and has room; else None, and `refuse` says why."""
    with _placing:
        if fault := fault_of(device):
            refuse(device, fault)
            return None
        try:
            found = verdict(len(vectors), vectors.shape[1], shelf, residents.of(device), memory(device))
            if not found.admitted:
                refuse(device, found.told)
                return None
            index = CardIndex(vectors, device, resident=found.full)
        except RuntimeError as error:
            # Another process may have taken the memory since it was counted.
            refuse(device, str(error))
            return None
        residents.add(index, device, Resident(shelf, index.size, found.full))
        logger.info("%d vectors are searched on %s: %s", len(index), device, found.told)
        return index


@cache
def fault_of(device: torch.device) -> str | None:
    """Why a card cannot be searched on, found by a small search compared with the CPU's; None where it can."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(1_000, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mask = np.arange(1_000) % 3 == 0
    try:
        index = CardIndex(vectors, device, chunk=256)
        masks = [None, mask, None, mask, None]
        found = [index.search(vectors[:5], 10, kept) for kept in (None, mask)]
        expected = [ExactIndex(vectors).search(vectors[:5], 10, kept).scores for kept in (None, mask)]
        found.append(index.search_each(vectors[:5], 10, masks))
        expected.append(np.array([expected[kept is not None][place] for place, kept in enumerate(masks)]))
        if not np.allclose([each.scores for each in found], expected, atol=_AGREES):
            return f"a search on {device} finds other neighbours than the CPU"
        if index.widened or index.given_up:
            # Answers are right even so, but it is the second scan or the CPU that gives them.
            return f"a search on {device} gives scores that are off by more than rounding"
    except Exception as error:  # Whatever a driver raises, the CPU still works.
        return f"a search on {device} failed: {error}"
    return None
