"""A booster's splits as flat arrays, scored many times as fast as `Booster.predict` does on one thread."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from indexer.arrays import Array, Doubles, Floats
from indexer.errors import SnapshotError
from ranker.forest_kernel import COLUMN, WORD, score

if TYPE_CHECKING:
    import lightgbm as lgb

_VERSION = "v4"
# Bits of LightGBM's decision_type; the two above them are the missing type.
_IS_CATEGORY, _DEFAULT_LEFT = 1, 2
_NO_MISSING, _ZERO_MISSING = 0, 1
# Places of a tree's leaves are whole words of the kernel, two by two.
_PLACES = 2 * WORD

# Of trees that are one leaf each.
_NO_SPLITS = (np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))

_Fields: TypeAlias = dict[str, str]


class _Column(NamedTuple):
    """One feature as some nodes want it: what stands for zero and for NaN or, of a category, the set that goes left."""

    feature: int
    zero: float = 0.0
    missing: float = 0.0
    categories: tuple[int, ...] | None = None


class _Split(NamedTuple):
    """An inner node: what it compares with what; the places of the leaves on its left, from `first` to before `end`."""

    column: int
    threshold: float
    first: int
    end: int


@dataclass(frozen=True)
class Forest:
    """The trees of one booster. Nothing is written once it is made: any number of threads may score at a time."""

    width: int
    arrays: tuple[Array, ...]

    @classmethod
    def of(cls, booster: "lgb.Booster") -> "Forest":
        """The trees that `booster.predict` would use; see `read`."""
        return cls.read(booster.model_to_string(num_iteration=booster.best_iteration))

    @classmethod
    def read(cls, text: str) -> "Forest":
        """The trees of a booster's text, which is what LightGBM itself loads boosters from.

        Raises `SnapshotError` where they are not simply added up.
        """
        header, *trees = _blocks(text)
        _check(header, trees)
        columns: dict[_Column, int] = {}
        splits: list[_Split] = []
        values: list[float] = []
        begins = [0]
        for tree in trees:
            _add(tree, splits, values, columns)
            begins.append(len(values) // _PLACES)
        arrays = (
            *_column_arrays(columns),
            *_split_arrays(splits, len(columns)),
            np.array(values, np.float64),
            np.array(begins, np.uint64),
        )
        for array in arrays:
            array.setflags(write=False)
        return cls(int(header["max_feature_idx"]) + 1, arrays)

    def score(self, features: Floats) -> Doubles:
        """Raw scores float64 [rows] of float32 [rows, features], missing values NaN: those of `Booster.predict`."""
        if features.ndim != 2 or features.shape[1] != self.width or features.dtype != np.float32:
            raise ValueError(
                f"The trees were fitted on float32 [rows, {self.width}] and cannot score "
                f"{features.dtype} {list(features.shape)}: give them the matrix of the feature schema."
            )
        return score(np.require(features, requirements=["C", "A"]), *self.arrays)


def _blocks(text: str) -> list[_Fields]:
    """The header and one block for each tree, as LightGBM writes them: lines of key=value, or of a key alone."""
    blocks = text.split("\nend of trees")[0].split("\nTree=")
    return [{key: value for key, _, value in (line.partition("=") for line in block.splitlines())} for block in blocks]


def _check(header: _Fields, trees: Sequence[_Fields]) -> None:
    again = "Train again with this program: `vitrine train`."
    if header.get("version") != _VERSION:
        raise SnapshotError(f"The trees are of LightGBM's format {header.get('version')}, not {_VERSION}. {again}")
    if header["num_tree_per_iteration"] != "1":
        raise SnapshotError(f"The trees give {header['num_tree_per_iteration']} scores for each row, not one. {again}")
    if "average_output" in header:
        raise SnapshotError(f"The trees are averaged (boosting=rf), not added up. {again}")
    if any(tree.get("is_linear", "0") != "0" for tree in trees):
        raise SnapshotError(f"The trees have linear models in their leaves (linear_tree). {again}")


def _add(tree: _Fields, splits: list[_Split], values: list[float], columns: dict[_Column, int]) -> None:
    """Append a tree's splits, and its leaves' values from left to right, filled up to whole words with zeros."""
    left, right = (_integers(tree, key) for key in ("left_child", "right_child"))
    compared, leaves = _splits(tree), [float(value) for value in tree["leaf_value"].split()]
    order = [0] if compared else []
    for node in order:  # which grows meanwhile
        order += [child for child in (left[node], right[node]) if child >= 0]
    # A leaf stands in the place of a child as the complement of its number.
    below = dict.fromkeys(range(-len(leaves), 0), 1)
    for node in reversed(order):
        below[node] = below[left[node]] + below[right[node]]
    place = {order[0] if order else ~0: len(values)}
    for node in order:
        place[left[node]], place[right[node]] = place[node], place[node] + below[left[node]]
        column, threshold = compared[node]
        splits.append(
            _Split(columns.setdefault(column, len(columns)), threshold, place[left[node]], place[right[node]])
        )
    values += [leaves[~number] for number in sorted(range(-len(leaves), 0), key=place.__getitem__)]
    values += [0.0] * (-len(values) % _PLACES)


def _splits(tree: _Fields) -> list[tuple[_Column, float]]:
    """What each inner node compares with what, such that whatever is not above the threshold goes left."""
    features, decisions = (_integers(tree, key) for key in ("split_feature", "decision_type"))
    thresholds = [float(threshold) for threshold in tree["threshold"].split()]
    sets = _sets(tree)
    return [
        (_Column(feature, categories=sets[int(threshold)]), 0.5)
        if decision & _IS_CATEGORY
        else (_number(feature, decision), threshold)
        for feature, decision, threshold in zip(features, decisions, thresholds, strict=True)
    ]


def _number(feature: int, decision: int) -> _Column:
    """A missing value is -inf to go left and NaN to go right, where no comparison holds; 0 if the split knows of none.

    All from the one object `np.nan`, so that equal columns are found equal.
    """
    kind = decision >> 2
    missing = -np.inf if decision & _DEFAULT_LEFT else np.nan
    return _Column(feature, missing if kind == _ZERO_MISSING else 0.0, 0.0 if kind == _NO_MISSING else missing)


def _sets(tree: _Fields) -> list[tuple[int, ...]]:
    """The sets of categories that go left, as bits, 32 to a word."""
    if tree["num_cat"] == "0":
        return []
    ends, words = (_integers(tree, key) for key in ("cat_boundaries", "cat_threshold"))
    return [tuple(words[start:stop]) for start, stop in pairwise(ends)]


def _integers(tree: _Fields, key: str) -> list[int]:
    return [int(value) for value in tree[key].split()]


def _column_arrays(columns: Collection[_Column]) -> tuple[Array, Array]:
    """The columns and, end to end, their sets."""
    sets = [column.categories or () for column in columns]
    ends = np.cumsum([0, *map(len, sets)])
    rows = [
        (column.feature, column.zero, column.missing, column.categories is not None, start, stop)
        for column, (start, stop) in zip(columns, pairwise(ends), strict=True)
    ]
    return np.array(rows, COLUMN), np.array([word for words in sets for word in words], np.uint32)


def _split_arrays(splits: Sequence[_Split], columns: int) -> tuple[Array, ...]:
    """Where each column's splits begin; by column and rising threshold their thresholds, words, and masks of the words.

    A split whose left leaves lie in several words stands there once for each: the mask leaves out what lies in it.
    """
    column, threshold, first, end = (np.array(each) for each in zip(*splits, strict=True)) if splits else _NO_SPLITS
    words = (end - 1) // WORD - first // WORD + 1
    which = np.repeat(np.arange(len(splits)), words)
    word = first[which] // WORD + np.arange(len(which)) - np.repeat(np.cumsum(words) - words, words)
    low = np.maximum(first[which] - word * WORD, 0).astype(np.uint64)
    high = np.minimum(end[which] - word * WORD, WORD).astype(np.uint64)
    one = np.uint64(1)
    mask = ~((one << high) - (one << low)).astype(np.uint32)
    limit = _not_above(threshold)[which]
    order = np.lexsort((word, limit, column[which]))
    begins = np.searchsorted(column[which][order], np.arange(columns + 1)).astype(np.uint64)
    return begins, limit[order], word[order].astype(np.uint64), mask[order]


def _not_above(thresholds: Doubles) -> Floats:
    """The largest float32 that is not above each threshold.

    LightGBM compares in float64. A float32 is not above a threshold exactly if it is not above this, so that every
    decision stays as it is, at half the memory.
    """
    with np.errstate(over="ignore", under="ignore"):
        near = thresholds.astype(np.float32)
        return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)
