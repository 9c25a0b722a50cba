"""The model on a card: in its owner's thread, in few shapes, the small ones as CUDA graphs; vectors may stay there."""

import copy
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from indexer.arrays import Floats
from indexer.batches import padded_length, padded_texts
from indexer.captured import Captured, Recorder, graphs_of
from indexer.owner import Owner, owner_of
from indexer.tokenise import Tokeniser

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

# The most texts and tokens each of a batch that is recorded: 7 x 4 shapes. Beyond them the card computes for longer
# than it takes to start its kernels one by one, which is all that a graph saves.
TEXTS, LENGTH = 64, 32

# Padded input ids and attention mask, int64 [texts, tokens]; pinned, where the device is a card.
Padded = tuple[torch.Tensor, torch.Tensor]


class CardEncoder:
    """A `Forward` (see `agreement`) on a device, for several threads.

    A batch is filled up to one of few shapes. A fallback is told once: no graphs where the model cannot be recorded,
    smaller batches where the card has not the memory for the larger.
    """

    def __init__(
        self,
        model: "SentenceTransformer",
        tokeniser: Tokeniser,
        device: torch.device,
        dtype: torch.dtype,
        longest: int,
        recorder: Callable[[torch.device], Recorder | None] = graphs_of,
    ) -> None:
        """`model` is copied; `longest` is the most tokens it takes.

        Raises `torch.OutOfMemoryError` where it does not fit.
        """
        self.owner: Owner = owner_of(device)
        self._device = device
        self._card = device.type == "cuda"
        self._longest = longest
        self._inputs = tokeniser.inputs
        self._filler = int(tokeniser.pad([[], [0]])[0][0, 0])
        self._captured: dict[torch.Size, Captured] = {}
        # The most tokens of a batch, as far as has been found out.
        self._most = sys.maxsize
        self._model = self.owner.run(partial(_moved, model, device, dtype))
        self._recorder = self.owner.run(partial(recorder, device))

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        """See `agreement.Forward`."""
        return self.later(input_ids, attention_mask)()

    def later(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Callable[[], Floats]:
        """Begins a batch; what is returned waits for its vectors, while which the next may begin."""
        padded = self._padded(input_ids, attention_mask)
        return self.owner.run(lambda: self._fetched(self._vectors(padded)[: len(input_ids)]))

    def on_device(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> torch.Tensor:
        """Unit vectors float32 [texts, dimensions] on the device. On a card they are for work of `owner` alone.

        They may not have been computed yet, but will be before whatever the owner starts next.
        """
        padded = self._padded(input_ids, attention_mask)
        return self.owner.run(lambda: self._vectors(padded)[: len(input_ids)].clone())

    def warm_up(self) -> None:
        """Record all small shapes, which each costs the first batch of it some tens of milliseconds otherwise."""
        for length in sorted({min(padded_length(n), self._longest) for n in range(1, LENGTH + 1)}):
            for texts in sorted({padded_texts(n) for n in range(1, TEXTS + 1)}):
                ids = np.full((texts, length), self._filler, np.int64)
                self.on_device(ids, np.ones_like(ids))

    def _padded(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Padded:
        texts, length = input_ids.shape
        shape = (padded_texts(texts), max(min(padded_length(length), self._longest), length))
        ids = torch.full(shape, self._filler, dtype=torch.int64, pin_memory=self._card)
        mask = torch.zeros(shape, dtype=torch.int64, pin_memory=self._card)
        # A text of no tokens would divide zero by zero.
        mask[texts:, 0] = 1
        ids.numpy()[:texts, :length] = input_ids
        mask.numpy()[:texts, :length] = attention_mask
        return ids, mask

    # What follows runs in the owner's thread.

    def _vectors(self, padded: Padded) -> torch.Tensor:
        """Unit vectors [texts, dimensions], overwritten by the next batch."""
        texts, length = padded[0].shape
        if texts <= TEXTS and length <= LENGTH and (captured := self._recorded(padded)):
            return captured.replay(padded)
        return self._in_parts(padded)

    def _recorded(self, padded: Padded) -> Captured | None:
        shape = padded[0].shape
        if shape not in self._captured and self._recorder:
            try:
                self._captured[shape] = self._recorder.record(self._forward, padded)
            except Exception as error:  # Whatever keeps the model from being recorded, it can be run.
                # The error at the end of a capture only says that there was one within.
                why = error.__context__ or error
                logger.warning("The encoder runs on %s without CUDA graphs: %s", self._device, why)
                self._recorder = None
        return self._captured.get(shape)

    def _in_parts(self, padded: Padded) -> torch.Tensor:
        """As many texts at a time as the memory is known, and then found, to suffice for."""
        texts, length = padded[0].shape
        made: list[torch.Tensor] = []
        start = 0
        while start < texts:
            count = min(max(self._most // length, 1), texts - start)
            part = slice(start, start + count)
            try:
                made.append(self._forward(*(each[part].to(self._device, non_blocking=True) for each in padded)))
                start += count
                continue
            except torch.OutOfMemoryError as error:
                if count == 1:
                    raise
                if self._most == sys.maxsize:
                    logger.warning("%s has no memory for %d texts; batches are halved: %s", self._device, count, error)
            # Here the error is gone, and with it the frames that held what was computed.
            self._most = count * length // 2
            if self._card:
                torch.cuda.empty_cache()
        return made[0] if len(made) == 1 else torch.cat(made)

    def _forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": torch.zeros_like(input_ids),
        }
        vectors = self._model({name: given[name] for name in self._inputs})["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=1)

    def _fetched(self, vectors: torch.Tensor) -> Callable[[], Floats]:
        host = torch.empty(vectors.shape, pin_memory=self._card)
        host.copy_(vectors, non_blocking=True)
        done = torch.cuda.current_stream(self._device).record_event() if self._card else None
        return partial(self._waited, host, done)

    # In the caller's thread again; a method, so that the model is there until its work is done.

    def _waited(self, host: torch.Tensor, done: torch.cuda.Event | None) -> Floats:
        if done:
            done.synchronize()
        # A copy, since pinned memory is scarce and whoever asked may keep the vectors.
        return np.array(host.numpy())


def _moved(model: "SentenceTransformer", device: torch.device, dtype: torch.dtype) -> "SentenceTransformer":
    # On the owner's stream, with which no other is in step.
    with torch.inference_mode(False):
        return copy.deepcopy(model).to(device=device, dtype=dtype).eval()
