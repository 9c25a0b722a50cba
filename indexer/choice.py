"""The form in which the encoder runs on the CPU: the fastest of those that agree with the model in float32."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from indexer.agreement import AGREEMENT, OVERLAP, Batch, Catalogue, Forward, Vectors, least_cosine, overlap
from indexer.arrays import Floats

logger = logging.getLogger(__name__)

EXACT = "torch-float32"
# How often a query alone, four queries and a batch of titles are timed: together well under two seconds.
_ROUNDS = (9, 9, 3)


class Choice(NamedTuple):
    """A form of the encoder, and what was found of each that was tried.

    `told` says of each, as far as it came: its least `cosine`, the milliseconds `ms` of a query alone, of four queries
    and of 32 titles, its `overlap` with the nearest titles, and why it was `refused`. What is slower than the chosen
    one has no overlap.
    """

    name: str
    forward: Forward
    told: dict[str, dict[str, Any]]


class Trial:
    """Forms of one model tried against each other, and against the model itself."""

    def __init__(
        self,
        exact: Forward,
        batches: Sequence[Batch],
        reference: Sequence[Floats],
        catalogue: Catalogue,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`reference` is what `exact` makes of `batches`, on which cosines are taken."""
        self.told: dict[str, dict[str, Any]] = {}
        self._exact, self._batches, self._reference = exact, batches, reference
        self._catalogue, self._clock = catalogue, clock

    def fastest(self, forms: Mapping[str, Callable[[], Forward]], or_exact: bool = True) -> Choice | None:
        """The fastest of `forms` that agrees; `or_exact`, the model itself competes. None where nothing is left.

        What could not be used at all is told by a warning. Overlaps are taken from the fastest on: the first that holds
        is it.
        """
        forwards = {EXACT: self._exact} if or_exact else {}
        self.told = {name: {} for name in (*forwards, *forms)}
        forwards |= {name: forward for name, make in forms.items() if (forward := self._agreeing(name, make))}
        for name, times in self._measured(forwards).items():
            self.told[name]["ms"] = [round(1e3 * each, 3) for each in times]
        # The product, so that a third off a query's time counts as much as a third off a batch's.
        for name in sorted(forwards, key=lambda name: math.prod(self.told[name]["ms"])):
            if name == EXACT or self._overlapping(name, forwards[name]):
                return Choice(name, forwards[name], self.told)
        return None

    def _agreeing(self, name: str, make: Callable[[], Forward]) -> Forward | None:
        try:
            forward = make()
            cosine = least_cosine(forward, self._batches, self._reference)
            # Whatever is compiled on first use is compiled here.
            for batch in self._catalogue.samples:
                forward(*batch)
        except Exception as error:  # Whatever a compiler raises, the model itself still works.
            self._refuse(name, f"could not be used ({error})", failed=True)
            return None
        self.told[name]["cosine"] = round(cosine, 6)
        if not cosine >= AGREEMENT:
            self._refuse(name, f"agrees only to a cosine of {cosine:.5f}")
            return None
        return forward

    def _overlapping(self, name: str, forward: Forward) -> bool:
        share = overlap(self._vectors, self._catalogue.vectors(forward))
        self.told[name]["overlap"] = round(share, 4)
        if share < OVERLAP:
            self._refuse(name, f"finds only {share:.4f} of the 100 nearest titles")
        return share >= OVERLAP

    @cached_property
    def _vectors(self) -> Vectors:
        return self._catalogue.vectors(self._exact)

    def _refuse(self, name: str, why: str, failed: bool = False) -> None:
        # That a coarser form does not agree is what the trial is for; that one breaks is a fault of the machine.
        level = logging.WARNING if failed else logging.INFO
        logger.log(level, "The encoder does not run as %s, which %s.", name, why)
        self.told[name] |= {"refused": why, "failed": True} if failed else {"refused": why}

    def _measured(self, forwards: Mapping[str, Forward]) -> dict[str, list[float]]:
        """The least seconds of each form for each sample, in turn: whatever else the machine does only adds to them."""
        least: dict[str, list[float]] = {name: [] for name in forwards}
        for batch, rounds in zip(self._catalogue.samples, _ROUNDS, strict=True):
            times = [[self._timed(forward, batch) for forward in forwards.values()] for _ in range(rounds)]
            for name, own in zip(forwards, zip(*times, strict=True), strict=True):
                least[name].append(min(own))
        return least

    def _timed(self, forward: Forward, batch: Batch) -> float:
        start = self._clock()
        forward(*batch)
        return self._clock() - start
