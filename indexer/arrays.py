"""Names for the array types that cross module borders, and arrays mapped from files."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
# A mask of a bit a row, the first in the lowest bit, zeros at the end.
Bits: TypeAlias = NDArray[np.uint8]
Bytes: TypeAlias = NDArray[np.uint8]
Array: TypeAlias = NDArray[Any]


def sealed(array: Array) -> Array:
    """`array`, not to be written to any more, as what is mapped from a file.

    Compiled loops are compiled for either, which takes a second at the first call: so they meet one type only.
    """
    array.setflags(write=False)
    return array


def mapped(path: Path) -> Array:
    """A saved array, memory-mapped for reading; a plain array, since `np.memmap` takes 8 microseconds to index."""
    return np.asarray(np.load(path, mmap_mode="r"))
