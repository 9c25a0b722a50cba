"""Inverted lists of codes on a device, as they stand in for vectors that do not fit on it."""

from collections.abc import Iterator
from typing import Any

from gpu_search import Bench

from indexer.card_lists import CardLists
from indexer.config import IndexerConfig
from indexer.dense import DenseIndex
from indexer.kinds import inverted
from indexer.tuning import filled


class Coded(Bench):
    """The lists that `auto` makes of the vectors, tuned on held-out ones as a build does, on a device."""

    def _indexed(self) -> Any:
        kind = inverted(*self.vectors.shape)
        own, self.entry = filled(kind, self.vectors, IndexerConfig.model_validate({"device": "cpu"}))
        assert isinstance(own, DenseIndex)
        return CardLists(own, self.vectors, self.device)

    def measured(self) -> Iterator[dict[str, Any]]:
        """Each batch, k and kind of mask, as soon as it is measured, as `Bench.points` has them."""
        for batch in self.plan.batches:
            for k in self.plan.ks:
                for kind in self._kinds:
                    if kind != "each" or batch <= len(self.masks):
                        yield {**self._timed(batch, k, kind), **self._recalled(batch, k, kind)}
