"""A sentence-transformers model as a graph, for what compiles it."""

import warnings
from typing import Any

import torch

from indexer.tokenise import Tokeniser


class Traced(torch.nn.Module):
    """The whole sentence-transformers pipeline as one function of two tensors."""

    def __init__(self, model: torch.nn.Module, token_types: bool) -> None:
        super().__init__()
        self.model = model
        self.token_types = token_types

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        features = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.token_types:
            features["token_type_ids"] = torch.zeros_like(input_ids)
        return torch.nn.functional.normalize(self.model(features)["sentence_embedding"], dim=1)


def converted(model: torch.nn.Module, tokeniser: Tokeniser) -> Any:
    """The graph (`openvino.Model`) of a sentence-transformers model; tracing it takes seconds."""
    import openvino

    example = torch.ones((2, 8), dtype=torch.int64)
    with warnings.catch_warnings():
        # Tracing warns of Python conditions on shapes; the agreement check is the judge of the result.
        warnings.simplefilter("ignore")
        return openvino.convert_model(
            Traced(model, "token_type_ids" in tokeniser.inputs).eval(),
            example_input={"input_ids": example, "attention_mask": example},
        )
