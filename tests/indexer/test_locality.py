from collections.abc import Callable

import pytest

from indexer.arrays import Floats
from indexer.locality import by_neighbourhood


@pytest.mark.parametrize("rows", [1, 2, 5, 5_000])
def test_every_row_has_one_place(rows: int, clustered: Callable[[int, int], Floats]) -> None:
    assert sorted(by_neighbourhood(clustered(rows, 1)).tolist()) == list(range(rows))


def test_neighbours_come_side_by_side(clustered: Callable[[int, int], Floats]) -> None:
    vectors = clustered(5_000, 1)
    order = by_neighbourhood(vectors)
    ordered = vectors[order]
    side_by_side = (ordered[1:] * ordered[:-1]).sum(axis=1).mean()
    # Of 20 kinds of product, the next row is most often of another one.
    assert (vectors[1:] * vectors[:-1]).sum(axis=1).mean() < 0.1
    assert side_by_side > 0.6
