"""The encoder as OpenVINO's graph, kept on disk, and compiled for the CPU in a precision that it has."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from indexer.arrays import Floats, Ints

# Rows and tokens of the graphs for queries; each takes 0.25 s to compile and 33 MB for MiniLM, when it is first used.
_ROWS = 4
_SHAPES = ((1, 8), (1, 12), (1, 16), (_ROWS, 12), (_ROWS, 16))
_WIDEST = max(width for _, width in _SHAPES)
# From so many queries on, one batch of four costs less than each alone; beyond so many they are titles of a build.
_FEW, _MANY = 3, 16


def save_graph(graph: Any, path: Path) -> None:
    """Write a graph as it is, weights in float32 beside it."""
    import openvino

    openvino.save_model(graph, path, compress_to_fp16=False)


def has(precision: str) -> bool:
    """Whether the CPU computes in "BF16", "FP16" or "FP32" by itself."""
    import openvino

    return precision in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class CompiledForward:
    """A compiled `Forward`. Each thread has its own inference requests, since one serves one call at a time.

    Whenever the shape of its input changes, a graph of any shape is made ready anew, which costs more than a query.
    Queries therefore go through graphs of fixed shapes, padded: few of them one by one, more by fours.
    """

    def __init__(self, graph: Any, threads: int, precision: str = "f32") -> None:
        """`graph` is what `converted` made, or the path of one that `save_graph` wrote; precision: f32, bf16 or f16."""
        import openvino

        self._core: Any = openvino.Core()
        self._graph = self._core.read_model(graph) if isinstance(graph, Path) else graph
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads or os.cpu_count() or 1,
            # With pinning, several processes sit on the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self._compiled: dict[tuple[int, int] | None, Any] = {}
        self._compiling = threading.Lock()
        self._local = threading.local()

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        if len(input_ids) > _MANY:
            return self._infer(None, input_ids, attention_mask)
        widths = attention_mask.sum(1)
        parts = parted(widths)
        made = []
        for part in parts:
            width = max(int(widths[part].max()), 1)
            shape = _fitting(1 if len(part) < _FEW else _ROWS, width)
            made.append(self._infer(shape, input_ids[part, :width], attention_mask[part, :width]))
        vectors = np.concatenate(made)
        vectors[np.concatenate(parts)] = vectors.copy()
        return vectors

    def _infer(self, shape: tuple[int, int] | None, input_ids: np.ndarray, attention_mask: np.ndarray) -> Floats:
        request = self._request(shape)
        if shape is None:
            # The result's memory belongs to the request and is written over by the next call.
            return np.array(request.infer([input_ids, attention_mask])[0], np.float32)
        # Written where the graph reads: handing arrays over takes a tenth of what a query does.
        rows, width = input_ids.shape
        for i, array in enumerate((input_ids, attention_mask)):
            held = request.get_input_tensor(i).data
            held[:] = 0
            held[:rows, :width] = array
        # What is padded is masked; a row of padding alone reads its first token, and is thrown away.
        held[rows:, 0] = 1
        request.infer()
        return np.array(request.get_output_tensor(0).data[:rows], np.float32)

    def _request(self, shape: tuple[int, int] | None) -> Any:
        """This thread's inference request for a shape, or for any where it is None."""
        requests: dict[tuple[int, int] | None, Any] = self._local.__dict__.setdefault("requests", {})
        if shape not in requests:
            with self._compiling:
                if shape not in self._compiled:
                    self._compiled[shape] = self._compile(shape)
                requests[shape] = self._compiled[shape].create_infer_request()
        return requests[shape]

    def _compile(self, shape: tuple[int, int] | None) -> Any:
        graph = self._graph
        if shape:
            graph = graph.clone()
            graph.reshape({each: list(shape) for each in graph.inputs})
        return self._core.compile_model(graph, "CPU", self._options)


def parted(widths: Ints) -> list[Ints]:
    """The places of queries that go through a graph together: by fours of like lengths, few or long ones alone.

    A long one among four would send all of them through the graph of any shape.
    """
    order = np.argsort(widths, kind="stable")
    short = order[widths[order] <= _WIDEST]
    fours = [short[start : start + _ROWS] for start in range(0, len(short), _ROWS)]
    alone = [fours.pop()] if fours and len(fours[-1]) < _FEW else []
    return [*fours, *np.concatenate([*alone, order[len(short) :]])[:, None]]


def _fitting(rows: int, width: int) -> tuple[int, int] | None:
    """The smallest of the fixed shapes that holds a batch; None where none does."""
    return min((shape for shape in _SHAPES if rows <= shape[0] and width <= shape[1]), default=None)
