"""ONNX Runtime as it is set up: one session for all threads, none of which spins."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason="ONNX Runtime is an extra")

from indexer.onnx import OnnxForward, write_graph, write_int8


class Words(torch.nn.Module):
    """The masked mean of word vectors; the token types, where there are any, are zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(50, 8)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        mask = features["attention_mask"].unsqueeze(-1).float()
        words = self.words(features["input_ids"]) + features.get("token_type_ids", torch.zeros(1)).sum()
        return {"sentence_embedding": (words * mask).sum(1) / mask.sum(1)}


@pytest.fixture(scope="module", params=[True, False], ids=["token types", "no token types"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("onnx") / "graph.onnx"
    tokeniser: Any = SimpleNamespace(inputs=["input_ids", *(["token_type_ids"] if request.param else [])])
    write_graph(Words(), tokeniser, path)
    return path


def test_threads_get_the_vectors_of_the_model(graph: Path) -> None:
    forward = OnnxForward(graph, 1)
    ids = [np.random.default_rng(width).integers(50, size=(2, width)) for width in range(1, 30)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: forward(each, np.ones_like(each)), ids))
    for each, vectors in zip(ids, together, strict=True):
        exact = Words()(
            {"input_ids": torch.from_numpy(each), "attention_mask": torch.ones_like(torch.from_numpy(each))}
        )
        expected = torch.nn.functional.normalize(exact["sentence_embedding"], dim=1).detach().numpy()
        np.testing.assert_allclose(vectors, expected, atol=1e-5)


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
