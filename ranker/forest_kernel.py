"""The walk through the trees, compiled by numba: sixteen rows side by side, on the calling thread, without the GIL."""

from typing import Any

import numpy as np
from numba.extending import register_jitable

from indexer.arrays import Array, Doubles, Floats
from indexer.machine_code import machine_code

# So many rows go down a tree side by side, so that none waits for another's loads; 8 and 32 were 6 to 10 % slower.
LANES = 16
# After so many levels: has any row moved? In deep trees most rows are at a leaf long before the deepest.
_LEVELS = 3
# kZeroThreshold of LightGBM: what is no larger is zero.
_ZERO = np.float32(1e-35)

# A feature as some nodes want it: what stands for zero and for NaN or, if it is a category, the set that goes left.
COLUMN = np.dtype(
    [
        ("feature", np.int64),
        ("zero", np.float32),
        ("missing", np.float32),
        ("category", np.bool_),
        ("start", np.int64),
        ("stop", np.int64),
    ]
)


@machine_code
def score(
    features: Floats,
    columns: Array,
    bits: Array,
    cell: Array,
    threshold: Floats,
    right: Array,
    value: Doubles,
    roots: Array,
    depths: Array,
) -> Doubles:
    """Sums in the order of the trees, as LightGBM makes them: the scores are the same to the last bit.

    A node sends a row to `right`, or to the node before that where the row's cell is not above the threshold. A leaf is
    to its own right, and its threshold is NaN: rows that arrived early wait there.

    Nodes are unsigned: numba takes a signed index for one that may count from the end and tests each, which doubled
    the time.
    """
    rows = len(features)
    scores = np.empty(rows, np.float64)
    cells = np.empty(len(columns) * LANES, np.float32)
    nodes = np.empty(LANES, np.uint32)
    sums = np.empty(LANES, np.float64)
    for first in range(0, rows, LANES):
        for number in range(len(columns)):
            for lane in range(LANES):
                x = features[min(first + lane, rows - 1), columns[number].feature]
                cells[number * LANES + lane] = _cell(x, columns[number], bits)
        sums[:] = 0.0
        for tree in range(len(roots)):
            nodes[:] = roots[tree]
            for _ in range(0, depths[tree], _LEVELS):
                moved = np.uint32(0)
                for _ in range(_LEVELS):
                    moved = np.uint32(0)
                    for lane in range(LANES):
                        node = nodes[lane]
                        to = right[node] - np.uint32(cells[cell[node] + np.uint32(lane)] <= threshold[node])
                        moved |= np.uint32(to) ^ node
                        nodes[lane] = to
                if moved == 0:
                    break
            for lane in range(LANES):
                sums[lane] += value[nodes[lane]]
        scores[first : first + LANES] = sums[: rows - first]
    return scores


def _cell(x: np.float32, column: Any, bits: Array) -> np.float32:
    if column.category:
        return np.float32(0.0 if _found(x, bits[column.start : column.stop]) else 1.0)
    if np.isnan(x):
        x = column.missing
    return column.zero if abs(x) <= _ZERO else x


def _found(x: np.float32, bits: Array) -> bool:
    """Whether the whole part of x is one of the set; what is negative, missing or beyond its end is not."""
    if not -1.0 < x < 32.0 * len(bits):
        return False
    category = np.int64(x)
    return bool((bits[category >> 5] >> np.uint32(category & 31)) & np.uint32(1))


# Called rather than put above the functions, whose types it would hide from the type checker.
register_jitable(_cell)
register_jitable(_found)
