"""Every compiled form gives the model's vectors, from its own files alone."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from indexer import backends as module
from indexer.backends import BACKENDS, candidates


class MeanOfWords(torch.nn.Module):
    """The masked mean of word vectors, through one layer that can be quantised."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = torch.nn.Embedding(50, 32)
        self.layer = torch.nn.Linear(32, 16)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        mask = features["attention_mask"].unsqueeze(-1).float()
        words = self.layer(self.words(features["input_ids"]))
        return {"sentence_embedding": (words * mask).sum(1) / mask.sum(1)}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_form_is_opened_from_its_own_files(name: str, tmp_path: Path) -> None:
    backend = BACKENDS[name]
    for package in backend.packages:
        pytest.importorskip(package, reason=f"{package} is an extra")
    (tmp_path / "made").mkdir()
    (tmp_path / "kept").mkdir()
    model, tokeniser = MeanOfWords(), SimpleNamespace(inputs=["input_ids", "attention_mask"])
    backend.write(model, tokeniser, tmp_path / "made")
    for file in backend.files:
        shutil.move(tmp_path / "made" / file, tmp_path / "kept" / file)
    forward = backend.open(tmp_path / "kept", 1)
    for rows, width in ((1, 3), (5, 4), (40, 20)):
        random = np.random.default_rng(width)
        ids = random.integers(50, size=(rows, width))
        mask = (np.arange(width) < random.integers(1, width + 1, size=(rows, 1))).astype(np.int64)
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        exact = torch.nn.functional.normalize(model(features)["sentence_embedding"], dim=1).detach().numpy()
        vectors = forward(ids, mask)
        assert (vectors.shape, vectors.dtype) == ((rows, 16), np.float32)
        assert (vectors * exact).sum(1).min() > (0.99 if name == "onnx-int8" else 0.999)


def test_forms_share_the_file_they_have_in_common(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the compiled encoder is part of the cpu extra")
    (tmp_path / "graph.xml").write_text("written before")
    nothing: Any = None
    BACKENDS["openvino-bfloat16"].write(nothing, nothing, tmp_path)
    assert (tmp_path / "graph.xml").read_text() == "written before"


def cpu(patch: pytest.MonkeyPatch, *capabilities: str) -> None:
    """A CPU of which OpenVINO says that it has these."""
    core = SimpleNamespace(get_property=lambda *_: list(capabilities))
    patch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))


def names(family: str) -> set[str]:
    return {backend.name for backend in candidates(family)}


def test_what_is_not_installed_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu(monkeypatch, "FP32", "BF16", "FP16")
    for present, expected in (
        ({"onnxruntime", "onnx"}, {"onnx-float32", "onnx-int8"}),
        ({"onnxruntime"}, set()),
        ({"openvino"}, {"openvino-bfloat16", "openvino-float16", "openvino-float32"}),
    ):
        monkeypatch.setattr(module, "find_spec", lambda name, present=present: name in present or None)
        assert names("auto") == expected
        assert names("openvino") | names("onnx") == expected


def test_a_family_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    cpu(monkeypatch, "FP32", "BF16", "FP16")
    assert names("onnx") == {"onnx-float32", "onnx-int8"}
    assert names("openvino") | names("onnx") == names("auto") == set(BACKENDS)


def test_a_precision_that_the_cpu_does_not_have_is_no_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    cpu(monkeypatch, "FP32", "INT8")
    assert names("openvino") == {"openvino-float32"}
