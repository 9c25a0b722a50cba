"""The encoder as an ONNX graph, run by ONNX Runtime: float32, or matrix products in int8."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.arrays import Floats
from indexer.tokenise import Tokeniser

if TYPE_CHECKING:
    import torch

_INPUTS = ("input_ids", "attention_mask")


def write_graph(model: "torch.nn.Module", tokeniser: Tokeniser, path: Path) -> None:
    """Write a sentence-transformers model as a graph of any number of rows and tokens."""
    import torch

    from indexer.traced import Traced

    example = torch.ones((2, 8), dtype=torch.int64)
    traced = Traced(model, "token_type_ids" in tokeniser.inputs).eval()
    with warnings.catch_warnings():
        # As for OpenVINO. The exporter that follows this one takes four times as long and needs one more package.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            traced,
            (example, example),
            str(path),
            input_names=list(_INPUTS),
            output_names=["vectors"],
            dynamic_axes={name: {0: "rows", 1: "tokens"} for name in _INPUTS},
            dynamo=False,
        )


def write_int8(graph: Path, path: Path) -> None:
    """Quantise the weights of a written graph, each row by itself; the activations are quantised as they come."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared")
    with _no_handler_of_its_own():
        quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
        quantize_dynamic(prepared, path, weight_type=QuantType.QInt8, per_channel=True)
    prepared.unlink()


@contextlib.contextmanager
def _no_handler_of_its_own() -> Iterator[None]:
    """The quantiser logs to the root logger, to which Python then adds a handler for every library's messages."""
    handler = logging.NullHandler()
    logging.root.addHandler(handler)
    try:
        yield
    finally:
        logging.root.removeHandler(handler)


class OnnxForward:
    """A `Forward` by ONNX Runtime. One session serves every thread."""

    def __init__(self, graph: Path, threads: int) -> None:
        """`graph` is a path that `write_graph` or `write_int8` wrote."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or os.cpu_count() or 1
        # Waiting threads would take the cores that the other workers need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        made = self._session.run(None, dict(zip(_INPUTS, (input_ids, attention_mask), strict=True)))
        return np.asarray(made[0], np.float32)
