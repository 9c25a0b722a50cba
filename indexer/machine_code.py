"""Loops over rows as machine code: numba compiles a function when it is first called, and keeps the result."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def machine_code(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, over arrays and numbers, compiled for the types it is called with; it runs without the GIL.

    Numba keeps what it compiled in `__pycache__` or in the user's cache folder. Where it may write to neither, each
    process compiles its own, which takes about a second a function.
    """

    @cache
    def compiled() -> Any:
        # Imported when first needed: the commands that rank nothing start without it.
        from numba import njit

        options = {"nogil": True, "error_model": "numpy"}
        try:
            return njit(cache=True, **options)(function)
        except (RuntimeError, OSError):
            return njit(**options)(function)

    @wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        result: R = compiled()(*arguments, **named)
        return result

    return call
