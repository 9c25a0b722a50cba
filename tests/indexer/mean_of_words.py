"""The smallest model of the sentence-transformers shape, for tests of what compiles one."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


class MeanOfWords(torch.nn.Module):
    """The masked mean of word vectors; the token types, where there are any, are zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(50, 8)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        mask = features["attention_mask"].unsqueeze(-1).float()
        words = self.words(features["input_ids"]) + features.get("token_type_ids", torch.zeros(1)).sum()
        return {"sentence_embedding": (words * mask).sum(1) / mask.sum(1)}


def tokeniser(*, token_types: bool) -> Any:
    """What compiling needs to know of the model's tokeniser."""
    return SimpleNamespace(inputs=["input_ids", "attention_mask", *(["token_type_ids"] if token_types else [])])


def reference(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The model's own unit vectors."""
    features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    with torch.inference_mode():
        return torch.nn.functional.normalize(MeanOfWords()(features)["sentence_embedding"], dim=1).numpy()
