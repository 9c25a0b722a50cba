"""One place decides which tests see a card: only those marked `gpu`, and only where `pytest -m gpu` asks for them."""

import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    if not _asked_for(config):
        # All others are the same on every machine: with a card, "auto" would choose it.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if needing and (missing := _missing(config)):
        for item in needing:
            item.add_marker(pytest.mark.skip(reason=missing))


def _asked_for(config: pytest.Config) -> bool:
    return str(config.option.markexpr).strip() == "gpu"


def _missing(config: pytest.Config) -> str | None:
    """Why a test that needs a card cannot run."""
    if not _asked_for(config):
        return "needs an NVIDIA card: `pytest -m gpu` where there is one"
    import torch

    return None if torch.cuda.is_available() else "PyTorch sees no NVIDIA card"
