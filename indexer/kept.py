"""A compiled encoder kept on disk: opened in a second, without the framework and the tracing it came from."""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from indexer.agreement import Forward, agreeing, probe_batches
from indexer.arrays import Floats
from indexer.compiled import CompiledForward, save_graph
from indexer.tokenise import Tokeniser

logger = logging.getLogger(__name__)

_GRAPH, _REFERENCE, _MADE = "graph.xml", "reference.npz", "made.json"


class Kept(NamedTuple):
    """What embeds."""

    tokeniser: Tokeniser
    forward: Forward
    dimensions: int


def keep(folder: Path, graph: Any, tokeniser: Tokeniser, reference: Sequence[Floats]) -> Any:
    """Write a graph, its tokeniser and the model's own vectors of the probe texts; `folder` appears whole.

    Returns what to compile: the written graph, whose vectors differ from the traced one's in their last bits. What
    cannot be written is not kept, and the next start traces the model again.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".aside-", dir=folder.parent) as aside:
            made = Path(aside) / "kept"
            made.mkdir()
            save_graph(graph, made / _GRAPH)
            tokeniser.save(made)
            np.savez(made / _REFERENCE, *reference)
            (made / _MADE).write_text(json.dumps(_made()))
            shutil.rmtree(folder, ignore_errors=True)
            # Of several processes that start at once, the first to get here is as good as any.
            os.rename(made, folder)
        return folder / _GRAPH
    except OSError as error:
        logger.warning("The compiled encoder cannot be kept in %s: %s. The next start compiles again.", folder, error)
        return graph


def open_kept(folder: Path, threads: int) -> Kept | None:
    """What `keep` wrote, if it is there, was written by the same OpenVINO, and still agrees with the model."""
    try:
        if json.loads((folder / _MADE).read_text()) != _made():
            return None
        tokeniser = Tokeniser.load(folder)
        with np.load(folder / _REFERENCE) as arrays:
            reference = [arrays[name] for name in arrays.files]
    except FileNotFoundError:
        return None
    except Exception as error:  # The tokenizer's library raises plain exceptions.
        logger.warning("The compiled encoder kept in %s is damaged (%s); it is made anew.", folder, error)
        return None
    batches = probe_batches(tokeniser)
    forward = agreeing(lambda: CompiledForward(folder / _GRAPH, threads), batches, reference, "the kept openvino graph")
    return Kept(tokeniser, forward, reference[0].shape[1]) if forward else None


def _made() -> dict[str, str]:
    try:
        return {"openvino": version("openvino")}
    except PackageNotFoundError:
        return {}
