"""Where an index is searched: on the card that the configuration chooses, or as its manifest says."""

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from indexer import fallbacks
from indexer.arrays import Floats
from indexer.card import CardIndex
from indexer.card_lists import CardLists, size_on_card
from indexer.config import IndexerConfig
from indexer.dense import FILE, DenseIndex
from indexer.device import card
from indexer.exact import ExactIndex
from indexer.index import Index
from indexer.remote import in_use, open_remote
from indexer.room import Memory, Resident, Verdict, card_memory, needed, verdict

logger = logging.getLogger(__name__)

# Off by more than this, a card's scores are wrong and not only rounded: both are float32.
_AGREES = 1e-4
# Neighbours of a search that is tried, and the share of them that codes must lead to: where one is missed, the scores
# of those after it are others too.
_FOUND, _BY_CODES, _TRIAL_ROWS = 10, 0.9, 4_000


# What is on a card.
Placed: TypeAlias = CardIndex | CardLists
# Opens the inverted lists of codes of an index, which the CPU searches; None where it has none.
Coded = Callable[[], DenseIndex | None]


class Residents:
    """The indexes that are on a card, for as long as they live."""

    def __init__(self) -> None:
        self._held: weakref.WeakKeyDictionary[Placed, tuple[torch.device, Resident]] = weakref.WeakKeyDictionary()

    def of(self, device: torch.device) -> list[Resident]:
        """Those on one card."""
        return [resident for place, resident in self._held.values() if place == device]

    def add(self, index: Placed, device: torch.device, resident: Resident) -> None:
        """Count `index` until its last reference is gone."""
        self._held[index] = (device, resident)


_residents = Residents()
# An index is admitted and copied before the next one is looked at.
_placing = threading.Lock()


def on_card(vectors: Floats, folder: Path, config: IndexerConfig) -> Index | None:
    """The index of `vectors` on the configured card; None where there is none, or where it will not do.

    `folder` is the directory of the store that the index is opened from. Where another process holds the card for this
    one, that is asked. Raises `ConfigError` where a card is asked for that is not there. All else that goes wrong is
    told in a warning, and the CPU searches.
    """
    coded = partial(coded_in, folder, vectors, config)
    if (holder := in_use()) is not None:
        return open_remote(holder, vectors, folder, lambda: coded() or ExactIndex(vectors))
    device = card(config.device)
    if device is None:
        return None
    return placed(vectors, folder.parent.name, torch.device(device.type, device.index or 0), coded=coded)


def coded_in(folder: Path, vectors: Floats, config: IndexerConfig) -> DenseIndex | None:
    """The inverted lists of codes that `folder` holds; None where its index is of another kind."""
    index = DenseIndex.load("", folder, vectors, config) if (folder / FILE).exists() else None
    return index if index is not None and index.lists is not None else None


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
    coded: Coded = lambda: None,
) -> Placed | None:
    """The index of `vectors` on `device`: exact where there is room for that, else the lists of codes.

    None where the device does not work or has room for neither; `refuse` says why.
    """
    with _placing:
        try:
            index, found = _made(vectors, shelf, device, residents.of(device), memory, coded)
        except RuntimeError as error:
            # Another process may have taken the memory since it was counted.
            index, found = None, Verdict(None, str(error))
        if index is None or found.form is None:
            refuse(device, found.told)
            return None
        residents.add(index, device, Resident(shelf, index.size, found.form))
        logger.info("%d vectors are searched on %s, %s: %s", len(index), device, found.form, found.told)
        return index


def _made(
    vectors: Floats, shelf: str, device: torch.device, there: Sequence[Resident], memory: Memory, coded: Coded
) -> tuple[Placed | None, Verdict]:
    """The index, if the device works and has room, and what is to be told."""
    if fault := fault_of(device):
        return None, Verdict(None, fault)
    what = f"{len(vectors):,} vectors of {vectors.shape[1]}"
    exact = verdict(what, needed(*vectors.shape), shelf, there, memory(device))
    if exact.form is not None:
        return CardIndex(vectors, device, resident=exact.form == "full"), exact
    own = coded()
    size = None if own is None else size_on_card(own)
    if own is None or size is None:
        return None, exact
    if fault := fault_of_lists(device):
        return None, Verdict(None, f"{exact.told}; {fault}")
    found = verdict(f"their codes, of {what},", {"codes": size}, shelf, there, memory(device))
    if found.form is None:
        return None, Verdict(None, f"{exact.told}; {found.told}")
    logger.warning("%s searches codes in place of vectors: %s.", device, exact.told)
    return CardLists(own, vectors, device), found


@cache
def fault_of(device: torch.device) -> str | None:
    """Why a card cannot be searched on, found by a small search compared with the CPU's; None where it can."""
    vectors = _trial_vectors(1_000)
    try:
        index = CardIndex(vectors, device, chunk=256)
        if _agreement(index, vectors) < 1:
            return f"a search on {device} finds other neighbours than the CPU"
        if index.widened or index.given_up:
            # Answers are right even so, but it is the second scan or the CPU that gives them.
            return f"a search on {device} gives scores that are off by more than rounding"
    except Exception as error:  # Whatever a driver raises, the CPU still works.
        return f"a search on {device} failed: {error}"
    return None


@cache
def fault_of_lists(device: torch.device) -> str | None:
    """As `fault_of`, of codes. An eighth of the rows is scored anew: codes that mean nothing would find an eighth."""
    vectors = _trial_vectors(_TRIAL_ROWS)
    config = IndexerConfig.model_validate({"nprobe": 4, "device": "cpu"})
    try:
        own = DenseIndex.build("IVF4,PQ16x4fsr", vectors, config).extended(vectors)
        if _agreement(CardLists(own, vectors, device, block=2**16, picked=1_024), vectors) < _BY_CODES:
            return f"a search of codes on {device} finds other neighbours than the CPU"
    except Exception as error:  # As above.
        return f"a search of codes on {device} failed: {error}"
    return None


def _trial_vectors(rows: int) -> Floats:
    vectors = np.random.default_rng(0).normal(size=(rows, 32)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _agreement(index: Placed, vectors: Floats) -> float:
    """The share found of what `ExactIndex` finds: without a mask, under one, and both in one batch."""
    mask = np.arange(len(vectors)) % 3 == 0
    masks = [None, mask, None, mask, None]
    queries, exact = vectors[:5], ExactIndex(vectors)
    found = [index.search(queries, _FOUND, kept).scores for kept in (None, mask)]
    expected = [exact.search(queries, _FOUND, kept).scores for kept in (None, mask)]
    found.append(index.search_each(queries, _FOUND, masks).scores)
    expected.append(exact.search_each(queries, _FOUND, masks).scores)
    return float(np.isclose(found, expected, rtol=0, atol=_AGREES).mean())
