"""Compiled functions: the values of the plain ones, also where the code cannot be kept."""

import numba
import numpy as np
import pytest

from indexer.machine_code import machine_code


def add(values: np.ndarray, number: int) -> np.ndarray:
    """Their sum."""
    out = np.empty_like(values)
    for i in range(len(values)):
        out[i] = values[i] + number
    return out


def test_the_values_are_those_of_the_plain_function() -> None:
    compiled = machine_code(add)
    for values in (np.arange(3), np.arange(3.0), np.empty(0, np.float32)):
        np.testing.assert_array_equal(compiled(values, 2), add(values, 2))
    assert (compiled.__name__, compiled.__doc__) == ("add", "Their sum.")


@pytest.mark.parametrize("refusal", [RuntimeError("cannot cache function"), PermissionError("__pycache__")])
def test_where_the_code_cannot_be_kept_it_is_compiled_anew(refusal: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    njit, asked = numba.njit, []

    def refusing(cache: bool = False, **options: object) -> object:
        asked.append(cache)
        if cache:
            raise refusal
        return njit(**options)

    monkeypatch.setattr(numba, "njit", refusing)
    compiled = machine_code(add)
    assert compiled(np.arange(2), 1).tolist() == compiled(np.arange(2), 1).tolist() == [1, 2]
    assert asked == [True, False]
