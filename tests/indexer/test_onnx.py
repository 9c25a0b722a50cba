"""ONNX Runtime as it is set up: one session for all threads, none of which spins."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mean_of_words import MeanOfWords, reference, tokeniser

pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra")

from indexer.onnx import OnnxForward, write_graph, write_int8


@pytest.fixture(scope="module", params=[True, False], ids=["token types", "no token types"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("onnx") / "graph.onnx"
    write_graph(MeanOfWords(), tokeniser(token_types=request.param), path)
    return path


def test_threads_get_the_vectors_of_the_model(graph: Path) -> None:
    forward = OnnxForward(graph, 1)
    ids = [np.random.default_rng(width).integers(50, size=(2, width)) for width in range(1, 30)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: forward(each, np.ones_like(each)), ids))
    for each, vectors in zip(ids, together, strict=True):
        np.testing.assert_allclose(vectors, reference(each, np.ones_like(each)), atol=1e-5)


@pytest.mark.parametrize(("threads", "expected"), [(3, 3), (0, 7)])
def test_threads_are_those_configured_and_do_not_spin(
    threads: int, expected: int, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    options = OnnxForward(graph, threads)._session.get_session_options()
    assert options.intra_op_num_threads == expected
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_quantising_adds_no_handler_to_the_log(graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])
    write_int8(graph, tmp_path / "int8.onnx")
    assert logging.root.handlers == []
