"""The encoder as OpenVINO's graph, kept on disk, and compiled for the CPU: bfloat16 where it has that, else float32."""

import os
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from indexer.arrays import Floats
from indexer.tokenise import Tokeniser


class _Traced(torch.nn.Module):
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
            _Traced(model, "token_type_ids" in tokeniser.inputs).eval(),
            example_input={"input_ids": example, "attention_mask": example},
        )


def save_graph(graph: Any, path: Path) -> None:
    """Write a graph as it is, weights in float32 beside it."""
    import openvino

    openvino.save_model(graph, path, compress_to_fp16=False)


class CompiledForward:
    """A compiled `Forward`. Each thread has its own inference request, since one request serves one call at a time."""

    def __init__(self, graph: Any, threads: int) -> None:
        """`graph` is what `converted` made, or the path of one that `save_graph` wrote."""
        import openvino

        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or os.cpu_count() or 1,
            # With pinning, several processes sit on the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled: Any = openvino.Core().compile_model(graph, "CPU", options)
        self._local = threading.local()

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        # The result's memory belongs to the request and is written over by the next call.
        return np.array(self._local.request.infer([input_ids, attention_mask])[0], np.float32)
