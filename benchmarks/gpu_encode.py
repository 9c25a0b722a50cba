"""Titles a second through the encoder on a device, beside the bare model's forward in the same batches."""

import copy
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from indexer.encoder import Encoder, load_sentence_transformer, resolve
from indexer.text import normalise
from indexer.tokenise import Tokeniser

Features = dict[str, torch.Tensor]


class Bare:
    """The model alone: batches that lie tokenised on the device, in half precision on a card; nothing is copied back.

    Each batch is its longest text long.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        """`name` is a model as in `indexer.encoder`."""
        model = load_sentence_transformer(resolve(name), device)
        self._tokeniser = Tokeniser.of(model.tokenizer, model.max_seq_length or 512)
        self._model = copy.deepcopy(model).half() if device.type == "cuda" else model
        self._device = device

    def ready(self, batches: Sequence[Sequence[str]]) -> list[Features]:
        """What the model takes, on the device."""
        made = []
        for texts in batches:
            arrays = self._tokeniser.features(*self._tokeniser.pad(self._tokeniser([normalise(t) for t in texts])))
            made.append({name: torch.from_numpy(array).to(self._device) for name, array in arrays.items()})
        return made

    def run(self, batches: Sequence[Features]) -> list[torch.Tensor]:
        """Unit vectors float32 of each batch, left on the device; returns when they are made."""
        with torch.inference_mode():
            # A model may write what it finds into the mapping that it is given.
            made = [self._model(dict(features))["sentence_embedding"].float() for features in batches]
            made = [torch.nn.functional.normalize(vectors, dim=1) for vectors in made]
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return made


def tokens_of(batches: Sequence[Features]) -> dict[str, float]:
    """The mean tokens of a text, and the share of the batches that is padding."""
    real = sum(int(features["attention_mask"].sum()) for features in batches)
    texts = sum(len(features["attention_mask"]) for features in batches)
    padded = sum(features["attention_mask"].numel() for features in batches)
    return {"tokens": round(real / texts, 2), "padding": round(1 - real / padded, 4)}


def sorted_batches(texts: Sequence[str], size: int) -> list[list[str]]:
    """Batches of like lengths, by characters."""
    ordered = sorted(texts, key=len)
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def rates(
    encoder: Encoder,
    bare: Bare,
    titles: Sequence[str],
    rounds: int,
    wider: Sequence[int] = (),
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Titles a second by side, after one round that does not count; each second round backwards.

    `encode` and `stream` start from titles and end with vectors on the host; `bare` gets the batches that `stream`
    makes, and `bare_N` batches of N titles of like lengths. The ratios are medians of those within each round.
    """
    own = [texts for texts, _ in encoder.stream(titles)]
    ready = {"bare": bare.ready(own)} | {f"bare_{size}": bare.ready(sorted_batches(titles, size)) for size in wider}
    sides: dict[str, Callable[[], object]] = {
        "encode": lambda: encoder.encode(titles),
        "stream": lambda: [len(texts) for texts, _ in encoder.stream(titles)],
        **{name: lambda batches=batches: bare.run(batches) for name, batches in ready.items()},
    }
    made: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in sides if number % 2 else reversed(sides):
            start = clock()
            sides[name]()
            rate = len(titles) / (clock() - start)
            if number:
                made[name].append(rate)
    sizes = [len(texts) for texts in own]
    return {
        "titles": len(titles),
        "backend": encoder.backend,
        "batches": {"count": len(sizes), "median": median(sizes), "most": max(sizes), **tokens_of(ready["bare"])},
        "titles_per_second": {name: round(median(each), 1) for name, each in made.items()},
        "encode_ratio": ratio(made["encode"], made["bare"]),
        "stream_ratio": ratio(made["stream"], made["bare"]),
        "rounds": {name: [round(rate, 1) for rate in each] for name, each in made.items()},
    }


def ratio(ours: Sequence[float], bare: Sequence[float]) -> float:
    """The median of ours : bare within each round."""
    return round(median(a / b for a, b in zip(ours, bare, strict=True)), 4)
