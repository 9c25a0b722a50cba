"""The one place where a device is chosen."""

import ctypes
import sys
from typing import TYPE_CHECKING

from indexer.errors import ConfigError

# A server on the CPU does without PyTorch, whose import takes more than a second and 125 MB of each process: here and
# in all that such a server imports, it is imported where it is used.
if TYPE_CHECKING:
    import torch


def has_driver() -> bool:
    """Whether NVIDIA's driver can be loaded. Without it PyTorch sees no card."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def card(wanted: str) -> "torch.device | None":
    """The card that `choose` chooses, or None where that is the CPU; PyTorch is asked only if there may be one."""
    if wanted == "cpu" or (wanted == "auto" and not has_driver()):
        return None
    device = choose(wanted)
    return None if device.type == "cpu" else device


def choose(wanted: str) -> "torch.device":
    """The device for `auto`, `cpu` or `cuda:N`. Raises `ConfigError` where a card is asked for that is not there."""
    import torch

    if wanted == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f'device = "{wanted}": this machine shows {torch.cuda.device_count()} CUDA cards. Use "auto" or "cpu".'
        )
    return device
