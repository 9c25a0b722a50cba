"""The compiled forms that an encoder may take on the CPU, behind one interface."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from indexer import compiled, onnx
from indexer.agreement import Forward
from indexer.tokenise import Tokeniser

if TYPE_CHECKING:
    import torch

_OPENVINO = ("graph.xml", "graph.bin")
_ONNX, _INT8 = "graph.onnx", "int8.onnx"


class Backend(NamedTuple):
    """One compiled form: how its files are written into a folder, and how they are opened.

    `files` are what `open` needs of the folder; `write` leaves what is there already, since two forms may share a file.
    """

    name: str
    # What `indexer.backend` calls it, and the packages that it needs.
    family: str
    packages: tuple[str, ...]
    files: tuple[str, ...]
    write: "Callable[[torch.nn.Module, Tokeniser, Path], None]"
    # The folder and the number of threads, 0 for every core.
    open: Callable[[Path, int], Forward]
    # Whether the CPU computes this way by itself.
    suits: Callable[[], bool]


def candidates(family: str) -> list[Backend]:
    """The backends that are installed and that the CPU has; of one family, or of all where it is "auto"."""
    return [
        backend
        for backend in BACKENDS.values()
        if family in ("auto", backend.family) and all(map(find_spec, backend.packages)) and backend.suits()
    ]


def _write_openvino(model: "torch.nn.Module", tokeniser: Tokeniser, folder: Path) -> None:
    if not (folder / _OPENVINO[0]).exists():
        from indexer.traced import converted

        compiled.save_graph(converted(model, tokeniser), folder / _OPENVINO[0])


def _open_openvino(precision: str, folder: Path, threads: int) -> Forward:
    return compiled.CompiledForward(folder / _OPENVINO[0], threads, precision)


def _write_onnx(model: "torch.nn.Module", tokeniser: Tokeniser, folder: Path) -> None:
    if not (folder / _ONNX).exists():
        onnx.write_graph(model, tokeniser, folder / _ONNX)


def _write_int8(model: "torch.nn.Module", tokeniser: Tokeniser, folder: Path) -> None:
    _write_onnx(model, tokeniser, folder)
    onnx.write_int8(folder / _ONNX, folder / _INT8)


def _open_onnx(name: str, folder: Path, threads: int) -> Forward:
    return onnx.OnnxForward(folder / name, threads)


def _openvino(precision: str, short: str, capability: str) -> Backend:
    suits = partial(compiled.has, capability)
    opens = partial(_open_openvino, short)
    return Backend(f"openvino-{precision}", "openvino", ("openvino",), _OPENVINO, _write_openvino, opens, suits)


_PRECISIONS = (("bfloat16", "bf16", "BF16"), ("float16", "f16", "FP16"), ("float32", "f32", "FP32"))
_QUANTISED = Backend(
    "onnx-int8",
    "onnx",
    ("onnx", "onnxruntime"),
    (_INT8,),
    _write_int8,
    partial(_open_onnx, _INT8),
    lambda: True,
)
_PLAIN = _QUANTISED._replace(name="onnx-float32", files=(_ONNX,), write=_write_onnx, open=partial(_open_onnx, _ONNX))
BACKENDS = {backend.name: backend for backend in (*(_openvino(*each) for each in _PRECISIONS), _PLAIN, _QUANTISED)}
