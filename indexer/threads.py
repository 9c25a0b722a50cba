"""How many threads PyTorch and FAISS have."""

import contextlib
import sys
from collections.abc import Iterator

import faiss


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread of PyTorch and of FAISS: handing one request's small work to a pool costs ten times the work itself.

    The two pools also wait for each other, spinning: a search of 0.3 ms then takes four.
    """
    import torch

    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    pin_to_one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])


def pin_to_one_thread() -> None:
    """One thread of PyTorch, if it is imported, and of FAISS for the rest of the process; `one_thread` says why."""
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
