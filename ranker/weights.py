"""The parameters of a module of PyTorch as arrays, which is what a model is in memory and on disk."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from indexer.arrays import Array

if TYPE_CHECKING:
    from torch import nn

# By name.
Weights: TypeAlias = Mapping[str, Array]


def weights_of(module: "nn.Module") -> Weights:
    """The parameters and buffers of a module, on whatever device it is."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
