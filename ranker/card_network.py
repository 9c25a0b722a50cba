"""The DNN as a card runs it: several lists at once, whose vectors are gathered there from a resident product space."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from indexer.arrays import Doubles, Floats
from indexer.captured import Captured, Recorder, graphs_of
from indexer.owner import owner_of
from ranker.card_batch import Shape, batched, candidates_of
from ranker.network import Network
from ranker.scoring import Scorable

logger = logging.getLogger(__name__)

# Rows of one pass, with those it is filled up by: 16,384 x 400 x 4 bytes are 25 MiB a layer.
_ROWS = 16_384
# The most lists of a pass that is recorded; for more a card computes longer than it takes to start its sixty kernels.
RECORDED = 16
# Products copied to the card at a time.
_UPLOAD = 65_536
# The layers that are kept in float32 whatever the others are in: see `Network.combined`.
_EXACT = ("seen", "logit")


class CardNetwork:
    """A trained network on a device, and the vectors `space` float32 [products, d] beside it, both in `dtype`.

    The candidates' features are float32 in any case, and so is the last layer. What a request brings is uploaded in one
    piece: row numbers, features, the query's vector. Freed with its last reference.
    """

    def __init__(
        self,
        network: Network,
        space: Floats,
        device: torch.device,
        dtype: torch.dtype,
        usual: int,
        recorder: Callable[[torch.device], Recorder | None] = graphs_of,
    ) -> None:
        """`usual` is how many candidates a list has at most, as a rule; only such passes are recorded.

        Raises `torch.OutOfMemoryError` where there is no room.
        """
        self.space, self.device, self.dtype = space, device, dtype
        self._usual = candidates_of(usual)
        self._captured: dict[Shape, Captured] = {}
        self._owner = owner_of(device)
        self._owner.run(partial(self._upload, network))
        self._recorder = self._owner.run(partial(recorder, device))

    @property
    def kind(self) -> str:
        """What it runs on, for people."""
        return f"{self.device} ({str(self.dtype).removeprefix('torch.')})"

    @property
    def size(self) -> int:
        """The bytes of its vectors on the device; the network's own are half a megabyte."""
        return self._table.nbytes

    def logits(self, lists: Sequence[Scorable]) -> Doubles:
        """Logits float64 of all candidates, list after list; rows are of `space`.

        Raises `FloatingPointError` where one is no number, and whatever the device raises.
        """
        logits = np.concatenate([part for few in self._passes(lists) for part in self._pass(few)])
        if not np.isfinite(logits).all():
            raise FloatingPointError(f"a logit is beyond {self.dtype}")
        return logits.astype(np.float64)

    def _passes(self, lists: Sequence[Scorable]) -> Iterator[Sequence[Scorable]]:
        """Lists for so many passes that none has more than _ROWS rows, unless one list has."""
        widest = candidates_of(max(self._usual, *(len(item.rows) for item in lists)))
        # A power of two, so that no pass is filled up to more than that.
        step = 1 << (max(_ROWS // widest, 1).bit_length() - 1)
        for start in range(0, len(lists), step):
            yield lists[start : start + step]

    def _pass(self, lists: Sequence[Scorable]) -> list[Floats]:
        shape, memory = batched(lists, self.space.shape[1], self._usual, pinned=self.device.type == "cuda")
        scores = self._owner.run(partial(self._scored, shape, memory))
        return [scores[i, : len(item.rows)] for i, item in enumerate(lists)]

    # What follows runs in the owner's thread.

    def _upload(self, network: Network) -> None:
        self._network = lowered(network, self.dtype).to(self.device)
        products, dimensions = self.space.shape
        self._table = torch.empty((products, dimensions), dtype=self.dtype, device=self.device)
        for start in range(0, products, _UPLOAD):
            # A copy, since PyTorch does not take what is mapped for reading only.
            block = torch.from_numpy(np.array(self.space[start : start + _UPLOAD], np.float32))
            self._table[start : start + len(block)] = block.to(self.device)

    def _scored(self, shape: Shape, memory: Tensor) -> Floats:
        """Logits float32 [lists, candidates], of what the lists were filled up by too."""
        captured = self._recorded(shape, memory)
        if captured is None:
            scores = self._forward(shape, memory.to(self.device, non_blocking=True))
        else:
            scores = captured.replay([memory])
        # A copy, since on the CPU it may be the memory that is written next.
        return np.array(scores.cpu().numpy())

    def _recorded(self, shape: Shape, memory: Tensor) -> Captured | None:
        usual = shape.candidates == self._usual and shape.lists <= RECORDED
        if usual and shape not in self._captured and self._recorder:
            try:
                self._captured[shape] = self._recorder.record(partial(self._forward, shape), [memory])
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # Whatever keeps it from being recorded, it can be run.
                # The error at the end of a capture only says that there was one within.
                why = error.__context__ or error
                logger.warning("The DNN runs on %s without CUDA graphs: %s", self.device, why)
                self._recorder = None
        return self._captured.get(shape)

    def _forward(self, shape: Shape, memory: Tensor) -> Tensor:
        """Logits [lists, candidates]; `memory` lies on the device. Nothing here waits for it."""
        x = shape.parts(memory)
        candidates = self._table.index_select(0, x.rows.flatten())
        history = self._table.index_select(0, x.history.clamp(min=0).flatten())
        sizes = (shape.lists, shape.candidates, shape.space)
        asked, told = self._network.ask(candidates).view(sizes), history.view(*x.history.shape, shape.space)
        interest = self._network.attended(asked, told, x.ages, x.history >= 0)
        queries = x.queries.to(self.dtype)[:, None].expand(sizes)
        flat = (part.reshape(-1, shape.space) for part in (interest, queries))
        logits: Tensor = self._network.combined(x.features.flatten(0, 1), candidates, *flat)
        return logits.view(shape.lists, shape.candidates)


def lowered(network: Network, dtype: torch.dtype) -> Network:
    """A copy of a network in `dtype` for serving; what standardises and the last layer stay in float32."""
    made = copy.deepcopy(network).eval()
    for name, layer in made.named_children():
        if name not in _EXACT:
            layer.to(dtype)
    return made
