"""Mixed precision is for cards: on the CPU nothing is rounded."""

from typing import Any

import pytest
import torch

from ranker import precision
from ranker.precision import mixed


def test_the_cpu_computes_in_float32() -> None:
    with mixed(torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_card_multiplies_in_bfloat16(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(precision.torch, "autocast", lambda *args, **named: asked.append((args, named)))
    mixed(torch.device(device))
    assert asked == [(("cuda", torch.bfloat16), {"enabled": True})]


@pytest.mark.gpu
def test_on_a_card() -> None:
    ones = torch.ones(2, 2, device="cuda:0")
    with mixed(ones.device):
        assert (ones @ ones).dtype == torch.bfloat16
    assert (ones @ ones).dtype == torch.float32
