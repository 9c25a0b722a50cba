"""The one place where a device is chosen."""

import contextlib
from collections.abc import Iterator

import faiss
import torch

from indexer.errors import ConfigError


def choose(wanted: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda:N`. Raises `ConfigError` where a card is asked for that is not there."""
    if wanted == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f'device = "{wanted}": this machine shows {torch.cuda.device_count()} CUDA cards. Use "auto" or "cpu".'
        )
    return device


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread of PyTorch and of FAISS: handing one request's small work to a pool costs ten times the work itself.

    The two pools also wait for each other, spinning: a search of 0.3 ms then takes four.
    """
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    pin_to_one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])


def pin_to_one_thread() -> None:
    """One thread of PyTorch and of FAISS for the rest of the process; `one_thread` says why."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
