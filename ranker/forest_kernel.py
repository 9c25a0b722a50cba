"""Which leaf of each tree a row falls into, compiled by numba: sixteen rows at a time, without walking down a tree.

QuickScorer (Lucchese et al., SIGIR 2015), with vectors as in "Exploiting CPU SIMD extensions to speed-up document
scoring with tree ensembles" (Lucchese et al., SIGIR 2016): a row that a split sends to the right can reach no leaf on
its left. With the left leaves of all such splits struck out, the first leaf that remains is the row's. Splits of one
column come with rising thresholds, so that none need be looked at after the first that sends no row to the right. No
step waits for the one before, as each step of a walk down a tree does.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, register_jitable
from numba.np.arrayobj import make_array

from indexer.arrays import Array, Doubles, Floats
from indexer.machine_code import machine_code

# Rows at a time: one vector of AVX-512, two of AVX2.
LANES = 16
# Leaves of a word. 64 would be twice the bits to strike out of for most splits.
WORD = 32
_ALL = np.uint32(0xFFFFFFFF)
# Bytes of a line of the cache: a vector over two lines is read and written twice.
_LINE = 64
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
    begins: Array,
    threshold: Floats,
    word: Array,
    mask: Array,
    value: Doubles,
    pairs: Array,
) -> Doubles:
    """Sums in the order of the trees, as LightGBM makes them: the scores are the same to the last bit.

    A row goes to the right where its cell is not at most the threshold. The splits of column c are `begins[c]` to
    `begins[c + 1]`; each leaves `mask` of a word. The leaves of tree t are the pairs of words `pairs[t]` to
    `pairs[t + 1]`.

    Places are unsigned: numba takes a signed index for one that may count from the end and tests each.
    """
    rows = len(features)
    scores = np.empty(rows, np.float64)
    left = _on_lines(len(value) // WORD * LANES, _ALL)
    cells = _on_lines(LANES, np.float32(0.0))
    sums = np.empty(LANES, np.float64)
    for first in range(0, rows, LANES):
        left[:] = _ALL
        for number in range(len(columns)):
            highest, missing = np.float32(-np.inf), False
            for lane in range(LANES):
                x = features[min(first + lane, rows - 1), columns[number].feature]
                cell = _cell(x, columns[number], bits)
                cells[lane] = cell
                missing |= np.isnan(cell)
                if cell > highest:
                    highest = cell
            for split in range(begins[number], begins[number + 1]):
                if threshold[split] >= highest and not missing:
                    break
                _strike_out(left, word[split] * np.uint64(LANES), cells, threshold[split], mask[split])
        sums[:] = 0.0
        for tree in range(np.uint64(len(pairs) - 1)):
            for lane in range(np.uint64(LANES)):
                # From the last pair to the first, without a branch: which one it is cannot be foreseen.
                pair = pairs[tree + np.uint64(1)]
                leaf = np.uint64(0)
                while pair > pairs[tree]:
                    pair -= np.uint64(1)
                    found = _pair(left, pair, lane)
                    leaf = pair * np.uint64(2 * WORD) + _lowest(found) if found else leaf
                sums[lane] += value[leaf]
        scores[first : first + LANES] = sums[: rows - first]
    return scores


@intrinsic  # type: ignore[untyped-decorator]
def _strike_out(typing: Any, left: Any, place: Any, cells: Any, threshold: Any, mask: Any) -> Any:
    """left[place : place + LANES] &= mask, in the lanes whose cell is not at most the threshold.

    As vectors of LLVM: of the same as a loop it cannot tell that `left` and `cells` do not overlap.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        words, floats = (ir.VectorType(kind, LANES) for kind in (ir.IntType(32), ir.FloatType()))
        left, cells = (make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 2))
        target = builder.bitcast(builder.gep(left, [arguments[1]]), words.as_pointer())
        row = builder.load(builder.bitcast(cells, floats.as_pointer()), align=4)
        right = builder.fcmp_unordered(">", row, _in_all_lanes(builder, arguments[3], floats))
        kept = builder.select(right, _in_all_lanes(builder, arguments[4], words), ir.Constant(words, [-1] * LANES))
        builder.store(builder.and_(builder.load(target, align=4), kept), target, align=4)
        return context.get_dummy_value()

    return types.void(left, types.uint64, cells, types.float32, types.uint32), generate


def _in_all_lanes(builder: Any, value: Any, vector: Any) -> Any:
    undefined, zeros = ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    one = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, zeros)


@intrinsic  # type: ignore[untyped-decorator]
def _lowest(typing: Any, bits: Any) -> Any:
    """The number of the lowest bit that is set, 64 where none is."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


def _pair(left: Array, pair: Any, lane: Any) -> np.uint64:
    """What is left of two words, the first of them low."""
    place = pair * np.uint64(2 * LANES) + lane
    return np.uint64(left[place]) | (np.uint64(left[place + np.uint64(LANES)]) << np.uint64(WORD))


def _on_lines(size: int, like: Any) -> Array:
    """Room for `size` numbers of four bytes of the kind of `like`, from the beginning of a line of the cache on."""
    room = np.full(size + _LINE // 4, like)
    skipped = (-room.ctypes.data % _LINE) // 4
    return room[skipped : skipped + size]


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
register_jitable(_pair)
register_jitable(_on_lines)
